"""Dual-channel CNNs: one channel sees the whole face, the other a region that the network finds in the picture.

A next step named by R4: find a region of interest first, then extract features there at a higher resolution. How to
find it is our choice: a small CNN makes a heat map of the face, whose soft argmax is the centre of the region (Levine
et al. 2016, "End-to-end training of deep visuomotor policies"), and the region is sampled bilinearly (Jaderberg et al.
2015, "Spatial transformer networks"), so that where to look is learned from the loss alone.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from fer_jax.models import stack
from fer_jax.models.preprocess import Preprocess

NAMES = ("dual_channel_roi", "dual_channel_whole")
ZOOM = 2  # the region has 1 / ZOOM of the face's side, and as many pixels as the face
LOCATE = "conv 16, batch_norm, relu, max_pool, conv 32, batch_norm, relu, max_pool, conv 32, batch_norm, relu"


class DualChannel(nn.Module):
    """Called as a `backbone.Network`: uint8 faces [B, H, W, 1 or 3] to float32 logits [B, K].

    Attributes:
      preprocess: of the faces.
      whole, region: the channels, each a module [B, S, S, C] -> [B, h, w, F].
      head: of both channels' maps, concatenated, [B, h, w, 2F] -> [B, K].
      locate: [B, S, S, C] -> [B, g, g, D], the features of the heat map; None: `region` sees the whole face too, a
        baseline that shows what the closer look gains.
    """

    preprocess: Preprocess
    whole: nn.Module
    region: nn.Module
    head: nn.Module
    locate: nn.Module | None = None

    def setup(self):
        if self.locate is not None:
            # float32: bfloat16 would round the centre to a fifth of a pixel. Zeros: training starts in the middle.
            self.heat = nn.Dense(1, dtype=jnp.float32, kernel_init=nn.initializers.zeros)

    def __call__(self, image, *, train: bool):
        face = self.preprocess(image)
        seen = face if self.locate is None else sample(face, self.find(face, train=train))
        dtype = self.whole.dtype
        maps = [self.whole(face.astype(dtype), train=train), self.region(seen.astype(dtype), train=train)]
        return self.head(jnp.concatenate(maps, axis=-1), train=train)

    def find(self, face, *, train: bool):
        """Returns the centre (y, x) of the region, [B, 2], as fractions of the side.

        It is the mean position of the heat map's cells, weighted by the softmax of their heat. Only cells whose region
        is within the face count, so the region always is. face: [B, S, S, C], preprocessed.
        """
        heat = self.heat(self.locate(face.astype(self.locate.dtype), train=train))[..., 0]
        (rows, y), (columns, x) = (_inner(size) for size in heat.shape[1:])
        heat = heat[:, rows, columns]
        share = nn.softmax(heat.reshape(heat.shape[0], -1)).reshape(heat.shape)
        return jnp.stack([share.sum(2) @ y, share.sum(1) @ x], axis=-1)


def _inner(size):
    """Returns the cells of an axis whose region is within the face: (a slice, their positions in sides)."""
    places = (np.arange(size) + 0.5) / size
    inner = np.flatnonzero(abs(places - 0.5) <= 0.5 - 0.5 / ZOOM)
    return slice(inner[0], inner[-1] + 1), places[inner].astype(np.float32)


def sample(face, centre):
    """Samples the region of each face bilinearly at ZOOM times its resolution: [B, H, W, C], as the face.

    face: [B, H, W, C] float32; centre: (y, x) [B, 2], as fractions of the sides. Both get gradients. Points beyond the
    centres of the outermost pixels, by at most a quarter of a pixel, take the value there.
    """
    rows, columns = (_bilinear(centre[:, axis], face.shape[1 + axis]) for axis in (0, 1))
    return jnp.einsum("bih,bhwc,bjw->bijc", rows, face, columns, precision=lax.Precision.HIGHEST)


def _bilinear(centre, size):
    """Returns [B, points, pixels], the weight of each pixel of an axis in each point of the region."""
    steps = (jnp.arange(size) + 0.5) / ZOOM - size / (2 * ZOOM)  # from the region's centre, in pixels
    points = centre[:, None] * size - 0.5 + steps[None, :]
    points = jnp.clip(points, 0, size - 1)
    return nn.relu(1 - jnp.abs(points[:, :, None] - jnp.arange(size)[None, None, :]))


def make(model, classes: int, preprocess: Preprocess, common: dict) -> DualChannel:
    """Builds the network of the config section `model`, whose name is one of NAMES.

    `layers` specifies both channels up to their maps, each with separate weights; `head` follows on the maps of both.
    common: fields of `layers.Layers`.

    Raises:
      InputError: an invalid specification.
    """
    layers = stack.parse(model.layers, ends=False)
    locate = stack.Stack(layers=stack.parse(LOCATE, ends=False), **common) if model.name == "dual_channel_roi" else None
    return DualChannel(
        preprocess=preprocess,
        whole=stack.Stack(layers=layers, **common),
        region=stack.Stack(layers=layers, **common),
        head=stack.Stack(layers=stack.parse(model.head, "model.head"), classes=classes, **common),
        locate=locate,
    )
