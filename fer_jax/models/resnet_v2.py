"""ResNet50V2, ResNet101V2 and ResNet152V2 (He et al. 2016, "Identity mappings"), as in Keras.

Normalization and ReLU come before the convolutions; the stride is on the 3x3 of the last block of a stack.
"""

import functools

import flax.linen as nn

from fer_jax.models import layers, resnet
from fer_jax.models.backbone import Row


class ResNetV2(layers.Layers):
    """The stacks of pre-activated blocks; the maps are 1/32 of the input, rounded up, with 2048 channels."""

    blocks: tuple[int, ...] = ()  # number in each stack

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = self.conv(x, "conv1_conv", 64, 7, strides=2, padding=((3, 3), (3, 3)))
        # Zeros, not the minus infinity of a padded pool: without a ReLU before it, a zero can be the maximum.
        x = layers.max_pool(layers.zero_pad(x, 1), 3, 2)
        for stack, (count, filters) in enumerate(zip(self.blocks, resnet.FILTERS, strict=True), 2):
            for block in range(1, count + 1):
                strides = 2 if block == count and stack < 5 else 1
                x = self._block(x, f"conv{stack}_block{block}", filters, train, strides=strides, first=block == 1)
        return self._activate(x, "post_bn", train)

    def _block(self, x, name, filters, train, *, strides, first):
        activated = self._activate(x, f"{name}_preact_bn", train)
        # Keras takes every second pixel with a 1x1 max pool.
        shortcut = self.conv(activated, f"{name}_0_conv", 4 * filters, 1) if first else x[:, ::strides, ::strides]
        x = self.conv(activated, f"{name}_1_conv", filters, 1, use_bias=False)
        x = self._activate(x, f"{name}_1_bn", train)
        # Not 'SAME', which pads even maps at the far border only.
        x = self.conv(x, f"{name}_2_conv", filters, 3, strides=strides, padding=((1, 1), (1, 1)), use_bias=False)
        x = self._activate(x, f"{name}_2_bn", train)
        return shortcut + self.conv(x, f"{name}_3_conv", 4 * filters, 1)

    def _activate(self, x, name, train):
        return nn.relu(self.norm(x, name, train=train, epsilon=resnet.EPSILON))


MODELS = {
    f"resnet{depth}v2": Row(functools.partial(ResNetV2, blocks=blocks), scaling="symmetric")
    for depth, blocks in resnet.BLOCKS.items()
}
