"""Deterministic test-time augmentation: averages the probabilities of mirrored, shifted or cropped views of a face.

Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1, averages over
ten crops of 7/8 of the side: four corners and the centre, mirrored too. Here a crop is enlarged to the full face.
"""

from fer_jax.errors import InputError

SHIFT_SHARE = 1 / 24  # of the side: 2 px of 48, where FER-2013's faces are registered to about that
CROP_SHARE = 7 / 8  # of the side
_CROSS = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))
_CORNERS = ((0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
# name -> its views: whether the face is mirrored, and its shifts down and to the right in units of SHIFT_SHARE, or the
# edges at which it is cropped
VIEWS = {
    "none": ((False, 0, 0),),
    "flip": ((False, 0, 0), (True, 0, 0)),
    "flip_shifts": tuple((mirrored, *shift) for mirrored in (False, True) for shift in _CROSS),
    "ten_crop": tuple((mirrored, *corner) for mirrored in (False, True) for corner in _CORNERS),
}


def check(name: str) -> None:
    """Raises InputError if there are no views of this name."""
    if name not in VIEWS:
        raise InputError(f"unknown views '{name}'; known are {', '.join(VIEWS)}")


def make_views(name: str, images):
    """Returns the views [V, B, H, W, C] of images [B, H, W, C]; shifts repeat the edge.

    Raises:
      InputError: as `check`.
    """
    import jax.numpy as jnp

    check(name)
    if name == "ten_crop":
        return jnp.stack([_crop(images, *view) for view in VIEWS[name]])
    height, width = images.shape[1:3]
    down, right = (max(1, round(side * SHIFT_SHARE)) for side in (height, width))
    # Not jnp.pad, which slices the batch axis too: exports have a batch of any size.
    padded = jnp.concatenate([*[images[:, :1]] * down, images, *[images[:, -1:]] * down], axis=1)
    padded = jnp.concatenate([*[padded[:, :, :1]] * right, padded, *[padded[:, :, -1:]] * right], axis=2)
    found = []
    for mirrored, y, x in VIEWS[name]:
        top, left = down - y * down, right - x * right
        view = padded[:, top : top + height, left : left + width]
        found.append(view[:, :, ::-1] if mirrored else view)
    return jnp.stack(found)


def _crop(images, mirrored, below, right):
    """Returns a crop of images [B, H, H, C] at an edge of theirs (-1, 0 or 1 each way), enlarged as training crops."""
    import numpy as np

    from fer_jax import augment

    size_px = images.shape[1]
    policy = augment.Policy(crop_px=round(CROP_SHARE * size_px), flip_horizontal=float(mirrored))
    uniform = np.full((len(images), augment.DRAWS), 0.5, np.float32)
    uniform[:, augment.CROP_DRAWS] = (1 + right) / 2, (1 + below) / 2
    return augment.apply(policy, images, augment.parameters(policy, uniform, size_px))


def make_logits(apply_fn, name: str, *, at_once: bool = False):
    """Returns logits_fn(images [B, H, W, C]) -> [B, K]: the logarithm of the mean probabilities of the views.

    apply_fn: images [B, H, W, C] -> logits [B, K]; with 'none' it is returned unchanged. at_once: compute all views as
    one batch, without a loop, which takes V times the memory.

    Raises:
      InputError: as `check`.
    """
    import jax
    import jax.numpy as jnp

    check(name)
    if len(VIEWS[name]) == 1:
        return apply_fn

    def logits_fn(images):
        views = make_views(name, images)
        if at_once:
            logits = apply_fn(views.reshape(-1, *images.shape[1:]))
            logits = logits.reshape(len(VIEWS[name]), -1, logits.shape[-1])
        else:
            logits = jax.lax.map(apply_fn, views)  # the program contains the network once
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(len(logits))

    return logits_fn
