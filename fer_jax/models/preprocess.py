"""Converts uint8 faces to the channels, size and range that a network expects.

It is part of every model, so that a backbone cannot get input in the wrong range (R4's EfficientNet failure).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1
# Means of blue, green and red in 0..255: of ImageNet, and of VGGFace and VGGFace2 (Cao et al. 2018).
CAFFE_MEAN = (103.939, 116.779, 123.68)
VGGFACE_MEAN = (93.5940, 104.7624, 129.1863)
VGGFACE2_MEAN = (91.4953, 103.8827, 131.0912)


def _minus_bgr(x, mean):
    return x[..., ::-1] - _row(mean)


def _row(values):
    return np.asarray(values, np.float32).reshape(1, 1, 1, -1)


# name -> function of float32 [B, H, W, C] in 0..255
SCALINGS = {
    "raw": lambda x: x,
    "unit": lambda x: x / 255.0,
    "symmetric": lambda x: x / 127.5 - 1.0,
    "lite": lambda x: (x - 127.0) / 128.0,
    "imagenet": lambda x: (x / 255.0 - _row(IMAGENET_MEAN)) / _row(IMAGENET_STD),
    "caffe": lambda x: _minus_bgr(x, CAFFE_MEAN),
    "vggface": lambda x: _minus_bgr(x, VGGFACE_MEAN),
    "vggface2": lambda x: _minus_bgr(x, VGGFACE2_MEAN),
}
COLOUR_SCALINGS = ("imagenet", "caffe", "vggface", "vggface2")


def check_channels(faces: int, model: int) -> None:
    """Raises InputError if a model has fewer channels than the faces: grey is replicated, colour is not dropped."""
    if faces not in (1, model):
        raise InputError(
            f"the faces have {faces} channels (data.channels) and the model {model} (model.channels): set "
            "model.channels to 3, or data.channels to 1"
        )


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Converts uint8 faces [B, H, W, 1 or 3] to float32 [B, S, S, channels].

    scaling: one of SCALINGS; channels: 1, or 3 (grey faces are replicated); size_px: S, resized bilinearly (0: no
    resizing).

    Raises:
      InputError: an unknown scaling, or one for colour with channels 1; when called, RGB faces with channels 1.
    """

    scaling: str = "unit"
    channels: int = 1
    size_px: int = 0

    def __post_init__(self):
        if self.scaling not in SCALINGS:
            raise InputError(f"model.scaling is '{self.scaling}'; known are auto, {', '.join(SCALINGS)}")
        if self.channels not in (1, 3):
            raise InputError(f"model.channels is {self.channels}: give 1 (grey) or 3 (colour)")
        if self.channels == 1 and self.scaling in COLOUR_SCALINGS:
            raise InputError(
                f"model.scaling '{self.scaling}' is for colour: give model.channels 3, or one of "
                + ", ".join(name for name in SCALINGS if name not in COLOUR_SCALINGS)
            )
        if self.size_px < 0:
            raise InputError(f"model.size_px is {self.size_px}: give the side in pixels, or 0 for that of the faces")

    def __call__(self, image):
        check_channels(image.shape[-1], self.channels)
        x = image.astype(jnp.float32)
        if self.size_px and image.shape[1:3] != (self.size_px, self.size_px):
            # Before the channels are replicated: a third of the work, and the same values.
            x = jax.image.resize(x, (x.shape[0], self.size_px, self.size_px, x.shape[-1]), "bilinear")
        if x.shape[-1] < self.channels:
            x = jnp.repeat(x, self.channels, axis=-1)
        return SCALINGS[self.scaling](x)
