"""Inception-ResNet V2 (Szegedy et al. 2017), as in Keras."""

import flax.linen as nn

from fer_jax.models import layers
from fer_jax.models.backbone import Row
from fer_jax.models.inception_v3 import Inception, inception_a, join, stem

# Keras's name of a residual block -> its branches, as steps of a chain
BRANCHES = {
    "block35": (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3))),
    "block17": (((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1)))),
    "block8": (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1)))),
}


class InceptionResNetV2(Inception):
    """The maps are about 1/32 of the input (75 pixels: one cell, 299: 8x8), with 1536 channels."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        chain = self.make_chain(train=train)
        x = inception_a(chain, stem(chain, x), 96, 64)
        for number in range(1, 11):
            x = nn.relu(self._residual(chain, x, "block35", number, 0.17))
        x = join(
            chain(x, (384, 3, "VALID", 2)),
            chain(x, (256, 1), (256, 3), (384, 3, "VALID", 2)),
            layers.max_pool(x, 3, 2),
        )
        for number in range(1, 21):
            x = nn.relu(self._residual(chain, x, "block17", number, 0.1))
        x = join(
            chain(x, (256, 1), (384, 3, "VALID", 2)),
            chain(x, (256, 1), (288, 3, "VALID", 2)),
            chain(x, (256, 1), (288, 3), (320, 3, "VALID", 2)),
            layers.max_pool(x, 3, 2),
        )
        for number in range(1, 10):
            x = nn.relu(self._residual(chain, x, "block8", number, 0.2))
        x = self._residual(chain, x, "block8", 10, 1.0)
        return self.conv_norm_relu(x, ("conv_7b", "conv_7b_bn"), 1536, 1, train=train)

    def _residual(self, chain, x, block, number, scale):
        branches = join(*(chain(x, *steps) for steps in BRANCHES[block]))
        return x + scale * self.conv(branches, f"{block}_{number}_conv", x.shape[-1], 1)


MODELS = {"inception_resnet_v2": Row(InceptionResNetV2, scaling="symmetric", native_px=299, min_px=75)}
