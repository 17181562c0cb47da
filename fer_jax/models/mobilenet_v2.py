"""MobileNetV2 1.0 (Sandler et al. 2018) as in torchvision, under the layer names of Keras's MobileNetV2.

torchvision pads strided convolutions by one cell on every side, Keras on the far sides only, and its epsilon is 1e-5,
not 1e-3, so weights of one do not fit the other. The input is RGB with ImageNet's mean and standard deviation. Training
differs in one point: PyTorch's running variance uses the unbiased variance of a batch, ours the biased one.
"""

import flax.linen as nn

from fer_jax.models import layers
from fer_jax.models.backbone import Row

STEM, TOP = 32, 1280
# (expansion, filters, blocks, strides of the first block): table 2 of the paper
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
AROUND = ((1, 1), (1, 1))
EPSILON, MOMENTUM = 1e-5, 0.9  # of PyTorch, whose momentum of 0.1 is the weight of the new statistics
FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # of depthwise kernels too, as in torchvision
PLAIN = {"use_bias": False, "init": FAN_OUT}


class MobileNetV2(layers.Layers):
    """Inverted residual blocks; the maps are 1/32 of the input, with 1280 channels."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = self._activate(self.conv(x, "Conv1", STEM, 3, strides=2, padding=AROUND, **PLAIN), "bn_Conv1", train)
        number = 0
        for expansion, filters, blocks, strides in STAGES:
            for index in range(blocks):
                name = f"block_{number}" if number else "expanded_conv"
                inside = self._expand(x, name, expansion, train) if expansion > 1 else x
                branch = self._reduce(inside, name, filters, train, strides=1 if index else strides)
                x = x + branch if index else branch
                number += 1
        return self._activate(self.conv(x, "Conv_1", TOP, 1, **PLAIN), "Conv_1_bn", train)

    def _expand(self, x, name, times, train):
        x = self.conv(x, f"{name}_expand", times * x.shape[-1], 1, **PLAIN)
        return self._activate(x, f"{name}_expand_BN", train)

    def _reduce(self, x, name, filters, train, *, strides):
        """A depthwise convolution, and a linear 1x1 projection."""
        x = self.depthwise(x, f"{name}_depthwise", 3, strides=strides, padding=AROUND, init=FAN_OUT)
        x = self._activate(x, f"{name}_depthwise_BN", train)
        x = self.conv(x, f"{name}_project", filters, 1, **PLAIN)
        return self._norm(x, f"{name}_project_BN", train)

    def _activate(self, x, name, train):
        return nn.relu6(self._norm(x, name, train))

    def _norm(self, x, name, train):
        return self.norm(x, name, train=train, epsilon=EPSILON, momentum=MOMENTUM)


MODELS = {"mobilenet_v2": Row(MobileNetV2, scaling="imagenet", top="global_avg_pool, dropout 0.2")}
