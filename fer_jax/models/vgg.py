"""VGG16 and VGG19 (Simonyan and Zisserman 2015), as in Keras."""

import functools

import flax.linen as nn

from fer_jax.models import layers
from fer_jax.models.backbone import Row


class VGG(layers.Layers):
    """The convolutions of a VGG; the maps are 1/32 of the input, with 512 channels."""

    convolutions: tuple[int, ...] = ()  # number in each of the five blocks

    @nn.compact
    def __call__(self, x, *, train: bool):
        for block, (count, filters) in enumerate(zip(self.convolutions, (64, 128, 256, 512, 512), strict=True), 1):
            for number in range(1, count + 1):
                x = nn.relu(self.conv(x, f"block{block}_conv{number}", filters, 3))
            x = layers.max_pool(x, 2, 2)
        return x


TOP = "flatten, dense 4096 relu as fc1, dense 4096 relu as fc2"
MODELS = {
    name: Row(functools.partial(VGG, convolutions=convolutions), scaling="caffe", top=TOP)
    for name, convolutions in {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}.items()
}
