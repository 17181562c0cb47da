"""One augmentation policy and its geometry: a single fused affine map a face, parameters drawn once.

Both feeders draw the same parameters from the same uniform numbers; only who resamples the pixels differs.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import fields
from fer_jax.errors import InputError

DRAWS = 17  # uniform numbers that one face uses, whatever the policy: switching one part leaves the others' draws
CROP_DRAWS = slice(7, 9)  # of these, those that place a crop: 0 is the left or upper edge, 1 the right or lower
ERASE_MIN_SHARE = 0.02  # Zhong et al. 2020, as are the ratios
ERASE_MAX_RATIO = 1 / 0.3
FILLS = ("edge", "zero")
VIEW_VALUES = 4096 * 48 * 48  # values of the faces that are changed in one call: 4,096 faces of FER-2013


@dataclasses.dataclass(frozen=True)
class Policy:
    """What may happen to a face. The fields are those of the config section `augment`, with their units there."""

    flip_horizontal: float = 0.0
    flip_alternating: bool = False
    flip_vertical: float = 0.0
    rotate_degrees: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    shear_degrees: float = 0.0
    crop_px: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0
    erase_max_share: float = 0.33
    fill: str = "edge"

    @property
    def moves(self) -> bool:
        """Whether the policy moves pixels."""
        names = (
            "flip_horizontal",
            "flip_vertical",
            "rotate_degrees",
            "shift",
            "zoom",
            "shear_degrees",
            "crop_px",
        )
        return any(getattr(self, name) for name in names)

    @property
    def tones(self) -> bool:
        """Whether the policy changes brightness or contrast."""
        return bool(self.brightness or self.contrast)

    @property
    def active(self) -> bool:
        """Whether the policy does anything."""
        return self.moves or self.tones or bool(self.erase)


def make(augment, size_px: int) -> Policy:
    """Builds the policy of the config section `augment` for faces of a side of `size_px`.

    Raises:
      InputError: a number out of its range, an unknown fill, or fields that do not go together.
    """
    fields.check(augment, "augment")
    if augment.fill not in FILLS:
        raise InputError(f"augment.fill is '{augment.fill}'; known are {', '.join(FILLS)}")
    names = [field.name for field in dataclasses.fields(Policy)]
    policy = Policy(**{name: augment[name] for name in names})
    if policy.flip_alternating and (policy.flip_horizontal != 0.5 or augment.fixed_views):
        raise InputError(
            "augment.flip_alternating flips half of the faces in each epoch: set augment.flip_horizontal to 0.5 and "
            "augment.fixed_views to 0"
        )
    if augment.fixed_views and not policy.active:
        raise InputError("augment.fixed_views needs a change to make: set another field of augment, as rotate_degrees")
    if policy.crop_px > size_px:
        raise InputError(f"augment.crop_px is {policy.crop_px}, more than the face's {size_px} pixels")
    return policy


def draw(policy: Policy, key, step, faces, epochs):
    """Draws the uniform numbers of a step's faces, [B, DRAWS] float32 in [0, 1); see `parameters`.

    key, step: what they depend on. faces [B] int: positions in the training split; epochs [B] int: in which epoch each
    is shown. With `flip_alternating` a face's flip depends on these two alone (Jordan 2024, "94% on CIFAR-10 in 3.29
    seconds"): chosen by chance in the first epoch, the other way in every second one.
    """
    uniform = jax.random.uniform(jax.random.fold_in(key, step), (len(faces), DRAWS))
    if not policy.flip_alternating:
        return uniform
    of_face = jax.vmap(lambda face: jax.random.bits(jax.random.fold_in(key, -1 - face)))(faces)
    flipped = (of_face + epochs.astype(of_face.dtype)) % 2
    return uniform.at[:, 0].set(1.0 - flipped)


def parameters(policy: Policy, uniform, size_px: int) -> dict:
    """Turns uniform numbers into what happens to each face.

    Args:
      policy: the policy.
      uniform: [B, DRAWS] float32 in [0, 1), NumPy or JAX; the result is of the same library.
      size_px: the side of the faces.

    Returns:
      `affine` [B, 6] float32 (a, b, c, d, e, f): the pixel at column x and row y of the result is read at column
      a x + b y + c and row d x + e y + f of the source; `tone` [B, 2]: contrast factor, added grey (0..255 range);
      `box` [B, 5]: first row, first column, end row, end column, grey of the erased rectangle (empty where none is).
    """
    xp = jnp if isinstance(uniform, jax.Array) else np
    draw = [uniform[:, i] for i in range(DRAWS)]
    spread = [2 * d - 1 for d in draw]
    return {
        "affine": _affine(policy, draw, spread, size_px, xp),
        "tone": xp.stack([1 + policy.contrast * spread[10], 255 * policy.brightness * spread[9]], axis=1),
        "box": _box(policy, draw, size_px, xp),
    }


def _affine(policy, draw, spread, size_px, xp):
    angle = math.radians(policy.rotate_degrees) * spread[2]
    slant = xp.tan(math.radians(policy.shear_degrees) * spread[6])
    scale = 1 / (1 + policy.zoom * spread[5])
    side = (policy.crop_px or size_px) / size_px
    across = xp.where(draw[0] < policy.flip_horizontal, -scale, scale) * side
    down = xp.where(draw[1] < policy.flip_vertical, -scale, scale) * side
    cos, sin = xp.cos(angle), xp.sin(angle)
    # rotation . shear . scale-and-flip, about the centre of the face
    a, b = cos * across, (cos * slant - sin) * down
    d, e = sin * across, (sin * slant + cos) * down
    centre, room = (size_px - 1) / 2, (size_px - (policy.crop_px or size_px)) / 2
    right = centre + policy.shift * size_px * spread[3] + room * spread[7]
    below = centre + policy.shift * size_px * spread[4] + room * spread[8]
    rows = [a, b, right - (a + b) * centre, d, e, below - (d + e) * centre]
    return xp.stack(rows, axis=1).astype(xp.float32)


def _box(policy, draw, size_px, xp):
    area = size_px**2 * (ERASE_MIN_SHARE + (policy.erase_max_share - ERASE_MIN_SHARE) * draw[12])
    ratio = xp.exp(math.log(ERASE_MAX_RATIO) * (2 * draw[13] - 1))
    height = xp.minimum(xp.round(xp.sqrt(area * ratio)), size_px)
    width = xp.minimum(xp.round(xp.sqrt(area / ratio)), size_px)
    happens = draw[11] < policy.erase
    top = xp.floor(draw[14] * (size_px - height + 1))
    left = xp.floor(draw[15] * (size_px - width + 1))
    grey = xp.floor(draw[16] * 256)
    edges = [top, left, xp.where(happens, top + height, top), xp.where(happens, left + width, left), grey]
    return xp.stack(edges, axis=1).astype(xp.float32)


def apply(policy: Policy, images, chosen: dict):
    """Changes faces on the accelerator.

    Args:
      policy: the policy; parts that it does not use cost nothing.
      images: uint8 [B, H, W, C], grey or RGB. All channels of a face are changed alike: moved by one map, scaled
        about one mean, that of all their values, and erased to one grey.
      chosen: what `parameters` returned, as JAX arrays.

    Returns:
      uint8 [B, H, W, C].
    """
    if not policy.active:
        return images
    x = jnp.moveaxis(images, -1, 1).astype(jnp.float32)
    if policy.moves:
        x = _resample(x, chosen["affine"], policy.fill)
    if policy.tones:
        # Channel by channel first: the mean of a grey face is then rounded as it would be without a channel.
        mean = jnp.mean(jnp.mean(x, axis=(2, 3), keepdims=True), axis=1, keepdims=True)
        factor, added = (chosen["tone"][:, i, None, None, None] for i in range(2))
        x = (x - mean) * factor + mean + added
    if policy.erase:
        top, left, bottom, right, grey = (chosen["box"][:, i, None, None, None] for i in range(5))
        row, column = jnp.arange(x.shape[2])[None, None, :, None], jnp.arange(x.shape[3])[None, None, None, :]
        x = jnp.where((row >= top) & (row < bottom) & (column >= left) & (column < right), grey, x)
    return jnp.moveaxis(jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8), 1, -1)


def _resample(x, affine, fill):
    """Reads x [B, C, H, W] at the affine images of its pixels, bilinearly."""
    *_, height, width = x.shape
    a, b, c, d, e, f = (affine[:, i, None, None] for i in range(6))
    row, column = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    u, v = a * column + b * row + c, d * column + e * row + f
    if fill == "edge":
        u, v = jnp.clip(u, 0, width - 1), jnp.clip(v, 0, height - 1)
    left, top = jnp.floor(u), jnp.floor(v)
    flat = x.reshape(*x.shape[:2], -1)

    def read(column, row):
        inside = ((column >= 0) & (column < width) & (row >= 0) & (row < height))[:, None]
        place = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        values = jnp.take_along_axis(flat, place.astype(jnp.int32).reshape(x.shape[0], 1, -1), axis=2)
        return jnp.where(inside, values.reshape(x.shape), 0.0)

    across, down = (u - left)[:, None], (v - top)[:, None]
    upper = read(left, top) * (1 - across) + read(left + 1, top) * across
    lower = read(left, top + 1) * (1 - across) + read(left + 1, top + 1) * across
    return upper * (1 - down) + lower * down


def fixed_views(policy: Policy, images, key, views: int, faces=None):
    """Returns uint8 [views N, H, W, C]: each face of `images` [N, H, W, C] changed `views` times, view after view.

    An enlarged training set, as R3's; view v of face i depends on (key, v, i) alone. faces [M]: the positions of those
    that are wanted, [views M, H, W, C] then; None: all.
    """
    size_px, changed, count = images.shape[1], [], len(images)
    faces = slice(None) if faces is None else np.asarray(faces)
    images = images[faces]
    at_once = max(1, VIEW_VALUES // int(np.prod(images.shape[1:])))
    change = jax.jit(lambda images, uniform: apply(policy, images, parameters(policy, uniform, size_px)))
    for view in range(views):
        uniform = jax.random.uniform(jax.random.fold_in(key, view), (count, DRAWS))[faces]
        for start in range(0, len(images), at_once):
            part = slice(start, start + at_once)
            changed.append(np.asarray(change(images[part], uniform[part])))
    return np.concatenate(changed)
