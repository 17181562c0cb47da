"""BlazeFace (Bazarevsky et al. 2019) and its full-range successor in linen, under the layer names of their files.

Each takes uint8 pictures [B, S, S, 3] and returns, for each of A anchors, 16 raw numbers [B, A, 16] (box and 6 key
points, in px of the input relative to the anchor) and a logit [B, A].
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.models import layers

NUMBERS = 16  # of an anchor: centre, width and height of the box, then x and y of 6 points


class Blaze(layers.Layers):
    """The parts that the networks share: residual blocks of depthwise and 1x1 convolutions."""

    def stem(self, images, filters, kernel):
        """Scales to [-1, 1] and halves the resolution."""
        x = images.astype(self.dtype) / 127.5 - 1
        return nn.relu(self.conv(x, "conv2d", filters, kernel, strides=2))

    def separable(self, x, number, filters, strides=1):
        """The depthwise convolution with this number, and the next 1x1 convolution."""
        x = self.depthwise(x, _name("depthwise_conv2d", number), 3, strides=strides, use_bias=True)
        return self.conv(x, _name("conv2d", number + 1), filters, 1)

    def single(self, x, number, filters, strides):
        """A block of one separable convolution."""
        return nn.relu(_shortcut(x, filters, strides) + self.separable(x, number, filters, strides))

    def double(self, x, number, few, filters, strides):
        """A block of two separable convolutions, the first of which reduces the channels."""
        inside = nn.relu(self.separable(x, number, few, strides))
        return nn.relu(_shortcut(x, filters, strides) + self.separable(inside, number + 1, filters))

    def heads(self, maps, logits, regressors):
        """maps: {suffix of the layers' names: (features [B, H, W, C], anchors of a cell)}."""
        out = []
        for name, width in ((regressors, NUMBERS), (logits, 1)):
            parts = [self.conv(x, name + end, count * width, 1) for end, (x, count) in maps.items()]
            out.append(jnp.concatenate([part.reshape(part.shape[0], -1, width) for part in parts], 1))
        return out[0], out[1][..., 0]


class ShortRange(Blaze):
    """The network for faces near the camera, with inputs of 128 px."""

    @nn.compact
    def __call__(self, images):
        x = self.stem(images, 24, 5)
        for number, filters in enumerate((24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88)):
            x = self.single(x, number, filters, 2 if filters in (32, 48) else 1)
        fine = x
        for number in range(11, 16):
            x = self.single(x, number, 96, 2 if number == 11 else 1)
        return self.heads({"_8": (fine, 2), "_16": (x, 6)}, "classificator", "regressor")


class Back(Blaze):
    """The network for phones' back cameras, with inputs of 256 px."""

    @nn.compact
    def __call__(self, images):
        x = self.stem(images, 24, 5)
        for number in range(31):
            x = self.single(x, number, (24, 24, 48, 96)[(number + 1) // 8], 2 if number % 8 == 7 else 1)
        fine = x
        x = self.depthwise(x, "separable_conv2d__xeno_compat__depthwise", 3, strides=2, use_bias=True)
        x = nn.relu(self.conv(x, "separable_conv2d", 96, 1))
        return self.heads({"_16": (fine, 2), "_32": (x, 6)}, "classificator", "regressor")


# (few channels, channels, strides) of a block
DOWN = (
    (8, 32, 1),
    (8, 32, 1),
    (12, 48, 2),
    (12, 48, 1),
    (16, 64, 1),
    (24, 96, 2),
    (32, 128, 1),
    (32, 128, 1),
    (36, 144, 2),
    (48, 192, 1),
    (64, 256, 1),
    (96, 384, 2),
    *[(96, 384, 1)] * 3,
)
# (channels of a finer map, blocks on it), from coarse to fine
UP = ((96, 2), (64, 2), (48, 1))


class FullRange(Blaze):
    """The network for faces some metres away, with inputs of 192 px: a feature pyramid with one map of 1/4 of that."""

    @nn.compact
    def __call__(self, images):
        x, finer = self.stem(images, 32, 3), []
        for block, (few, filters, strides) in enumerate(DOWN):
            if strides == 2 and block > 2:
                finer.append(x)
            x = self.double(x, 2 * block, few, filters, strides)
        conv, depthwise = 2 * len(DOWN) + 1, 2 * len(DOWN)  # the numbers of the next layers
        for filters, blocks in UP:
            coarse = nn.relu(self.conv(x, _name("conv2d", conv), filters, 1))
            fine = nn.relu(self.conv(finer.pop(), _name("conv2d", conv + 1), filters, 1))
            x = fine + jax.image.resize(coarse, fine.shape, "bilinear")
            conv += 2
            for _ in range(blocks):
                x = self._refine(x, depthwise, conv)
                conv, depthwise = conv + 2, depthwise + 2
        return self.heads({"_4": (x, 1)}, "classifier_face", "regressor_face")

    def _refine(self, x, depthwise, conv):
        inside = x
        for step, filters in enumerate((x.shape[-1] // 2, x.shape[-1])):
            inside = self.depthwise(inside, _name("depthwise_conv2d", depthwise + step), 3, use_bias=True)
            inside = self.conv(inside, _name("conv2d", conv + step), filters, 1)
            inside = nn.relu(inside) if not step else inside
        return nn.relu(x + inside)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A network, its input's side in px, and (cells per side, anchors per cell) of its maps in order."""

    network: type
    size_px: int
    grids: tuple[tuple[int, int], ...]


SPECS = {
    "blazeface": Spec(ShortRange, 128, ((16, 2), (8, 6))),
    "blazeface:back": Spec(Back, 256, ((16, 2), (8, 6))),
    "blazeface:full": Spec(FullRange, 192, ((48, 1),)),
}


def _name(kind, number):
    return f"{kind}_{number}" if number else kind


def _shortcut(x, filters, strides):
    """The block's input with the resolution and channels of its output; new channels are 0."""
    x = layers.max_pool(x, 2, 2) if strides == 2 else x
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, filters - x.shape[-1])))
