"""The parts that pretrained families share: `Row`, the description of a model, and `Network`, backbone and head."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn

from fer_jax.errors import InputError
from fer_jax.models.preprocess import Preprocess


@dataclasses.dataclass(frozen=True)
class Row:
    """A model of a family.

    build: called with the fields of `layers.Layers`, returns the backbone, a module [B, S, S, 3] -> [B, h, w, C] that
    is called with `train`. scaling: the input scaling of its published weights, one of preprocess.SCALINGS. native_px:
    the side it was trained at; min_px: the least side that leaves a map. top: the layers between the maps and the
    ImageNet classifier, in text. order: names of the layers with weights, first to last, for a user's network; Keras's
    are in keras_layers.
    """

    build: Callable[..., nn.Module]
    scaling: str
    native_px: int = 224
    min_px: int = 32
    top: str = "global_avg_pool"
    order: tuple[str, ...] = ()


class Network(nn.Module):
    """Preprocessing, backbone and head: uint8 faces [B, H, W, 1 or 3] to float32 logits [B, K].

    `features` and `classify` are its two halves; `neck` has the head's first layers, up to one with weights or
    dropout, and is part of the features.
    """

    preprocess: Preprocess
    backbone: nn.Module
    neck: nn.Module
    head: nn.Module
    min_px: int
    backbone_frozen: bool = False
    source: str = ""  # digest of the user's file that defines the backbone

    def features(self, image, *, train: bool):
        """Returns the input of the head, [B, ...]."""
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
