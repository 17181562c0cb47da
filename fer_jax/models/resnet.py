"""ResNet50, ResNet101 and ResNet152 (He et al. 2016), as in Keras: the stride is on the first 1x1 of a block."""

import functools

import flax.linen as nn

from fer_jax.models import layers
from fer_jax.models.backbone import Row

FILTERS = (64, 128, 256, 512)  # of the stacks conv2 to conv5; a block gives four times as many channels
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # of each stack, by the depth in the name
EPSILON = 1.001e-5


class ResNet(layers.Layers):
    """The stacks of bottleneck blocks; the maps are 1/32 of the input, rounded up, with 2048 channels."""

    blocks: tuple[int, ...] = ()  # of each stack

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.relu(self._conv_norm(x, "conv1", 64, 7, train, strides=2, padding=((3, 3), (3, 3))))
        # Keras pads this pool with zeros: after a ReLU the same as minus infinity.
        x = layers.max_pool(x, 3, 2, ((1, 1), (1, 1)))
        for stack, (count, filters) in enumerate(zip(self.blocks, FILTERS, strict=True), 2):
            for block in range(1, count + 1):
                x = self._block(x, f"conv{stack}_block{block}", filters, train, stack=stack, first=block == 1)
        return x

    def _block(self, x, name, filters, train, *, stack, first):
        strides = 2 if first and stack > 2 else 1
        shortcut = self._conv_norm(x, f"{name}_0", 4 * filters, 1, train, strides=strides) if first else x
        x = nn.relu(self._conv_norm(x, f"{name}_1", filters, 1, train, strides=strides))
        x = nn.relu(self._conv_norm(x, f"{name}_2", filters, 3, train))
        return nn.relu(shortcut + self._conv_norm(x, f"{name}_3", 4 * filters, 1, train))

    def _conv_norm(self, x, name, filters, kernel, train, *, strides=1, padding="SAME"):
        x = self.conv(x, f"{name}_conv", filters, kernel, strides=strides, padding=padding)
        return self.norm(x, f"{name}_bn", train=train, epsilon=EPSILON)


MODELS = {
    f"resnet{depth}": Row(functools.partial(ResNet, blocks=blocks), scaling="caffe") for depth, blocks in BLOCKS.items()
}
