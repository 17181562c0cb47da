"""What every pretrained family gives: a row of facts per model, and the network of a backbone and a head."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn

from fer_jax.errors import InputError
from fer_jax.models.preprocess import Preprocess


@dataclasses.dataclass(frozen=True)
class Row:
    """A model of a family.

    build: called with the fields of `layers.Layers`, returns the module [B, S, S, 3] -> [B, h, w, C], called with
    `train`. scaling: what its published weights expect, of preprocess.SCALINGS. native_px: what it was trained at;
    min_px: under it no map is left. top: the layers between the maps and the ImageNet classifier, in text.
    order: in a user's file the names of the layers with weights, from the first; those of Keras are in keras_layers.
    """

    build: Callable[..., nn.Module]
    scaling: str
    native_px: int = 224
    min_px: int = 32
    top: str = "global_avg_pool"
    order: tuple[str, ...] = ()


class Network(nn.Module):
    """Preprocessing, a backbone and a head: uint8 faces [B, H, W, 1 or 3] to float32 logits [B, K].

    `features` and `classify` are its two halves; `neck` is what of the head has no weights and comes first, so it
    belongs to the features.
    """

    preprocess: Preprocess
    backbone: nn.Module
    neck: nn.Module
    head: nn.Module
    min_px: int
    backbone_frozen: bool = False
    source: str = ""  # digest of the user's file that the backbone is from

    def features(self, image, *, train: bool):
        """Returns what the head sees, [B, ...]."""
        x = self.preprocess(image)
        if min(x.shape[1:3]) < self.min_px:
            raise InputError(
                f"faces of {x.shape[1]}x{x.shape[2]} pixels are too small for this model, whose minimum is "
                f"{self.min_px}: set model.size_px to {self.min_px} or more"
            )
        x = self.backbone(x.astype(self.backbone.dtype), train=train and not self.backbone_frozen)
        return self.neck(x, train=train)

    def classify(self, features, *, train: bool):
        """Returns float32 logits [B, K] of features."""
        return self.head(features.astype(self.backbone.dtype), train=train)

    def __call__(self, image, *, train: bool):
        return self.classify(self.features(image, train=train), train=train)
