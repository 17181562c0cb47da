"""ResNet50, ResNet101 and ResNet152 (He et al. 2016), as in Keras: the stride is on the first 1x1 of a block.

`vggface_resnet50` is VGGFace2's (Cao et al. 2018) as ported to Keras by Malli: RESNET50 in keras_vggface/models.py of
github.com/rcmalli/keras-vggface, commit 132a661. Its stride is on the first 1x1 too, its layers have the same names
here, and the backbone ends before its 7x7 average pool.
"""

import functools

import flax.linen as nn

from fer_jax.models import layers
from fer_jax.models.backbone import Row

FILTERS = (64, 128, 256, 512)  # of the stacks conv2 to conv5; a block outputs four times as many channels
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # of each stack, by the depth in the name
EPSILON, KERAS_EPSILON = 1.001e-5, 1e-3  # Keras's for its ResNets; Keras's default


class ResNet(layers.Layers):
    """The stacks of bottleneck blocks; the maps are about 1/32 of the input, with 2048 channels.

    Attributes:
      blocks: number in each stack.
      stem_padding, pool_padding: of the first convolution and of the pool after it.
      use_bias: of the convolutions.
      epsilon: of the normalizations.
    """

    blocks: tuple[int, ...] = ()
    stem_padding: str | tuple = ((3, 3), (3, 3))
    pool_padding: str | tuple = ((1, 1), (1, 1))
    use_bias: bool = True
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.relu(self._conv_norm(x, "conv1", 64, 7, train, strides=2, padding=self.stem_padding))
        # Keras pads this pool with zeros, which after a ReLU equals padding with minus infinity.
        x = layers.max_pool(x, 3, 2, self.pool_padding)
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
        x = self.conv(x, f"{name}_conv", filters, kernel, strides=strides, padding=padding, use_bias=self.use_bias)
        return self.norm(x, f"{name}_bn", train=train, epsilon=self.epsilon)


MODELS = {
    f"resnet{depth}": Row(functools.partial(ResNet, blocks=blocks), scaling="caffe") for depth, blocks in BLOCKS.items()
}
MODELS["vggface_resnet50"] = Row(
    functools.partial(
        ResNet, blocks=BLOCKS[50], stem_padding="SAME", pool_padding="VALID", use_bias=False, epsilon=KERAS_EPSILON
    ),
    scaling="vggface2",
)
