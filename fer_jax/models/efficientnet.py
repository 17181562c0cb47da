"""EfficientNet B0 to B3 (Tan and Le 2019), as in Keras."""

import dataclasses
import functools
import math
import string
from collections.abc import Callable, Iterator

import flax.linen as nn

from fer_jax.models import layers
from fer_jax.models.backbone import Row

FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
# A depthwise kernel [k, k, 1, C] has one output per channel; Keras takes the fan-out from its own [k, k, C, 1].
FAN_OUT_DEPTHWISE = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal", in_axis=-1, out_axis=-2)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A sequence of equal blocks; only the first has the strides and changes the number of channels to `filters`.

    expand: the expansion of channels inside a block. squeeze: the fraction of a block's input channels that
    squeeze-and-excitation keeps, 0 for none. fused: a full convolution instead of a 1x1 and a depthwise one (V2).
    """

    repeats: int
    kernel: int
    strides: int
    expand: int
    filters: int
    squeeze: float = 0.25
    fused: bool = False


B0 = (
    Stage(repeats=1, kernel=3, strides=1, expand=1, filters=16),
    Stage(repeats=2, kernel=3, strides=2, expand=6, filters=24),
    Stage(repeats=2, kernel=5, strides=2, expand=6, filters=40),
    Stage(repeats=3, kernel=3, strides=2, expand=6, filters=80),
    Stage(repeats=3, kernel=5, strides=1, expand=6, filters=112),
    Stage(repeats=4, kernel=5, strides=2, expand=6, filters=192),
    Stage(repeats=1, kernel=3, strides=1, expand=6, filters=320),
)


class EfficientNet(layers.Layers):
    """Inverted residual blocks (MBConv); the maps are 1/32 of the input, with `top` channels.

    Attributes:
      stages: the stages of blocks.
      stem, top: channels of the convolutions before and after them.
      activation: between the layers.
      momentum: of the batch normalizations.
      depthwise_suffix: of the depthwise convolutions' names.
      drop_connect: stochastic depth (Huang et al. 2016): in training, a block's branch is dropped for a fraction of
        the faces, which grows with the block's number from 0 to just under this; above 0 it needs the rng `dropout`.
      drop_blocks: the number of blocks over which the fraction grows; 0: all.
    """

    stages: tuple[Stage, ...] = B0
    stem: int = 32
    top: int = 1280
    activation: Callable = nn.swish
    momentum: float = 0.99
    depthwise_suffix: str = "dwconv"
    drop_connect: float = 0.2
    drop_blocks: int = 0

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = self.activation(self.conv_norm(x, "stem", self.stem, 3, strides=2, train=train))
        for name, stage, strides, drop_rate in self.plan():
            block = self.fused if stage.fused else self.mbconv
            branch = block(x, name, stage, strides, train)
            if strides == 1 and branch.shape == x.shape:
                if train and drop_rate > 0:
                    # One draw per face, as with Keras's noise_shape (None, 1, 1, 1).
                    drop = nn.Dropout(drop_rate, broadcast_dims=(1, 2, 3), deterministic=False, name=f"{name}_drop")
                    branch = drop(branch)
                branch = branch + x
            x = branch
        return self.activation(self.conv_norm(x, "top", self.top, 1, train=train))

    def plan(self) -> Iterator[tuple[str, Stage, int, float]]:
        """Yields (name, stage, strides, drop rate) of every block."""
        total = self.drop_blocks or sum(stage.repeats for stage in self.stages)
        index = 0
        for number, stage in enumerate(self.stages, 1):
            for letter in string.ascii_lowercase[: stage.repeats]:
                strides = stage.strides if letter == "a" else 1
                yield f"block{number}{letter}", stage, strides, self.drop_connect * index / total
                index += 1

    def mbconv(self, x, name, stage, strides, train):
        """A 1x1 expansion, a depthwise convolution, squeeze-and-excitation, and a 1x1 projection."""
        inputs = x.shape[-1]
        if stage.expand != 1:
            x = self.activation(self.conv_norm(x, f"{name}_expand", inputs * stage.expand, 1, train=train))
        x = self.depthwise(x, f"{name}_{self.depthwise_suffix}", stage.kernel, strides=strides, init=FAN_OUT_DEPTHWISE)
        x = self.activation(self.norm(x, f"{name}_bn", train=train, momentum=self.momentum))
        if stage.squeeze:
            x = self.excite(x, name, max(1, int(inputs * stage.squeeze)))
        return self.conv_norm(x, f"{name}_project", stage.filters, 1, train=train)

    def fused(self, x, name, stage, strides, train):
        """A full convolution that expands, and a 1x1 projection; without expansion, one convolution."""
        if stage.expand == 1:
            x = self.conv_norm(x, f"{name}_project", stage.filters, stage.kernel, strides=strides, train=train)
            return self.activation(x)
        inside = x.shape[-1] * stage.expand
        x = self.conv_norm(x, f"{name}_expand", inside, stage.kernel, strides=strides, train=train)
        return self.conv_norm(self.activation(x), f"{name}_project", stage.filters, 1, train=train)

    def excite(self, x, name, squeezed):
        """Squeeze-and-excitation (Hu et al. 2018): scales each channel by a function of all channels' means."""
        weights = x.mean(axis=(1, 2), keepdims=True)
        weights = self.activation(self.conv(weights, f"{name}_se_reduce", squeezed, 1, init=FAN_OUT))
        return x * nn.sigmoid(self.conv(weights, f"{name}_se_expand", x.shape[-1], 1, init=FAN_OUT))

    def conv_norm(self, x, name, filters, kernel, *, strides=1, train):
        """A convolution without bias, `<name>_conv`, and its batch normalization, `<name>_bn`."""
        x = self.conv(x, f"{name}_conv", filters, kernel, strides=strides, use_bias=False, init=FAN_OUT)
        return self.norm(x, f"{name}_bn", train=train, momentum=self.momentum)


def scaled(stages, *, width: float, depth: float) -> dict:
    """Returns the fields of a network with `width` times B0's channels and `depth` times its blocks."""

    def filters(number):
        rounded = max(8, int(number * width + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * number * width else rounded + 8

    rows = tuple(
        dataclasses.replace(stage, repeats=math.ceil(depth * stage.repeats), filters=filters(stage.filters))
        for stage in stages
    )
    return {"stages": rows, "stem": filters(32), "top": filters(1280)}


MODELS = {
    name: Row(
        functools.partial(EfficientNet, **scaled(B0, width=width, depth=depth)),
        scaling="imagenet",
        native_px=native_px,
        top=f"global_avg_pool, dropout {dropout}",
    )
    for name, (width, depth, native_px, dropout) in {
        "efficientnetb0": (1.0, 1.0, 224, 0.2),
        "efficientnetb1": (1.0, 1.1, 240, 0.2),
        "efficientnetb2": (1.1, 1.2, 260, 0.3),
        "efficientnetb3": (1.2, 1.4, 300, 0.3),
    }.items()
}
