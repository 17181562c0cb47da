"""Explains predictions by heat maps over faces, computed by Grad-CAM or occlusion.

Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual explanations from deep networks via gradient-based localization")
weights the channels of the last map by the mean gradient of the class score with respect to each. The mean discards
where in the map a gradient was: under a head that flattens the map, cells may be hot that the score does not depend on
(Draelos and Carin 2020). Occlusion (Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks")
measures how much the class's probability drops when a patch is covered; it needs no map, but many more evaluations.
"""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import cam, ops
from fer_jax.errors import InputError
from fer_jax.models import average

BATCHES = (1, 8, 32)  # batches are padded to one of these sizes, so that few programs are compiled
OCCLUDED_BATCH = 128
MIN_CELLS = 6  # per side: a cell of a coarser map sees most of the face, so Grad-CAM does not localize
HEAT_SHARE = 0.7  # opacity of an overlay where the heat is 1
PATCH_PX, STRIDE_PX = 8, 4  # of occlusion


def grad_cam(model, variables, faces, labels, layer=None):
    """Returns heat maps by Grad-CAM, float32 [N, H, W]: 1 at the hottest pixel of a face, 0 without evidence.

    The score is the class's logit. The map is the last one before the head, enlarged bilinearly. For a dual-channel
    network the heat of both channels is added, that of the region at the region's position. For an `average` it is the
    mean of the members' heat maps.

    Args:
      model: as in `inference.Trained`.
      variables: of the model.
      faces: uint8 [N, H, W, C].
      labels: [N], the class to explain for each face.
      layer: the name or path of a layer whose output to use instead, before any activation that is not a separate
        layer.

    Raises:
      InputError: the network has no map (a cam.NoMapError), or no such layer.
    """
    if isinstance(model, average.Average):
        parts = [cam.member_variables(variables, number) for number in range(len(model.members))]
        members = zip(model.members, parts, strict=True)
        return rescale(np.mean([grad_cam(member, part, faces, labels, layer) for member, part in members], axis=0))
    cam_fn = cam.jit_cam(model, layer)
    faces, labels = np.asarray(faces), np.asarray(labels)
    found = [np.zeros((0, *faces.shape[1:3]), np.float32)]
    for start in range(0, len(faces), BATCHES[-1]):
        chunk = faces[start : start + BATCHES[-1]], labels[start : start + BATCHES[-1]]
        size = next(size for size in BATCHES if size >= len(chunk[0]))
        found.append(np.asarray(cam_fn(variables, *_pad(size, *chunk)))[: len(chunk[0])])
    return rescale(np.concatenate(found))


def occlusion(model, variables, faces, labels, *, patch=PATCH_PX, stride=STRIDE_PX):
    """Returns how much covering each pixel lowers the probability of a class, float32 [N, H, W] in -1..1.

    A square of the face's mean colour slides over the face; a pixel gets the mean drop over the patches that cover it.
    It is negative where the covered pixels are evidence against the class.

    Args:
      model: as in `inference.Trained`.
      variables: of the model.
      faces: uint8 [N, H, W, C].
      labels: [N], the class to explain for each face.
      patch: the side of the square, in pixels.
      stride: the step in pixels; the last patch of a row or column touches the edge.

    Raises:
      InputError: the patch is larger than the face, or the stride leaves pixels uncovered.
    """
    faces, labels = np.asarray(faces), np.asarray(labels)
    height, width = faces.shape[1:3]
    if not 1 <= patch <= min(height, width):
        raise InputError(f"the patch has {patch} px: give 1 to {min(height, width)}, the side of the faces")
    if not 1 <= stride <= patch:
        raise InputError(f"the stride is {stride} px: give 1 to {patch}, the size of the patch, to cover every pixel")
    tops, lefts = (_starts(side, patch, stride) for side in (height, width))
    outside = (-patch, -patch)  # covers nothing, for the probability of the uncovered face
    corners = np.array([outside, *itertools.product(tops, lefts)], np.int32)
    rows, places = np.divmod(np.arange(len(faces) * len(corners)), len(corners))
    occluded_fn = _make_occluded(model, patch)
    probs = [np.zeros(0, np.float32)]
    for start in range(0, len(rows), OCCLUDED_BATCH):
        some, where = (part[start : start + OCCLUDED_BATCH] for part in (rows, places))
        chunk = _pad(OCCLUDED_BATCH, faces[some], labels[some], corners[where])
        probs.append(np.asarray(occluded_fn(variables, *chunk))[: len(some)])
    probs = np.concatenate(probs).reshape(len(faces), len(corners))
    drops = (probs[:, :1] - probs[:, 1:]).reshape(len(faces), len(tops), len(lefts))
    down, across = (_covered(starts, side, patch) for starts, side in ((tops, height), (lefts, width)))
    total = np.einsum("ntl,th,lw->nhw", drops, down, across)
    return (total / np.outer(down.sum(0), across.sum(0))).astype(np.float32)


METHODS = {"grad_cam": grad_cam, "occlusion": lambda *args: rescale(occlusion(*args))}


def choose(model, variables, image_shape, method="auto"):
    """Returns the method for a network, of METHODS; 'auto' is Grad-CAM if the map is fine enough, else occlusion.

    image_shape: of the faces, (H, W, C). The network is only traced.

    Raises:
      InputError: an unknown method, or Grad-CAM for a network without maps.
    """
    if method not in ("auto", *METHODS):
        raise InputError(f"unknown method '{method}'; known are auto, {', '.join(METHODS)}")
    if method == "occlusion":
        return method
    try:
        cells = cam.count_cells(model, variables, jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8))
    except cam.NoMapError:
        if method == "auto":
            return "occlusion"
        raise
    return "occlusion" if method == "auto" and cells < MIN_CELLS else "grad_cam"


def overlay(face, heat):
    """Returns a face overlaid with heat in a perceptually uniform colour map, uint8 [H, W, 3].

    Pixels without heat do not change. face: uint8 [H, W, 1 or 3]; heat: [h, w] in 0..1, resized bilinearly to the face.
    """
    from PIL import Image

    face = np.asarray(face)
    if heat.shape != face.shape[:2]:
        size = (face.shape[1], face.shape[0])
        heat = np.asarray(Image.fromarray(np.asarray(heat, np.float32)).resize(size, Image.Resampling.BILINEAR))
    heat = np.clip(heat, 0, 1)[..., None]
    table = colours()
    colour = 255 * table[np.minimum((heat[..., 0] * len(table)).astype(int), len(table) - 1)]
    share = HEAT_SHARE * heat
    return np.rint((1 - share) * face + share * colour).astype(np.uint8)


def colours() -> np.ndarray:
    """Returns the colour map of overlays, RGB in 0..1, [256, 3], from no heat to the most."""
    import matplotlib

    return matplotlib.colormaps["inferno"](np.arange(256))[:, :3]


def rescale(heat):
    """Clips negative heat of maps [N, H, W] to 0 and scales each to a maximum of 1, if it has any positive heat."""
    heat = heat.clip(0)
    top = heat.max(axis=(1, 2), keepdims=True)
    return (heat / (top + (top == 0))).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _make_occluded(model, patch):
    """Returns occluded_fn(variables, faces [B, H, W, C], labels [B], corners (y, x) [B, 2]) -> probabilities [B]."""

    def occluded_fn(variables, faces, labels, corners):
        places = [jnp.arange(side)[None, :] - corners[:, axis, None] for axis, side in enumerate(faces.shape[1:3])]
        down, across = ((place >= 0) & (place < patch) for place in places)
        hidden = (down[:, :, None] & across[:, None, :])[..., None]
        mean = jnp.rint(faces.astype(jnp.float32).mean(axis=(1, 2), keepdims=True)).astype(faces.dtype)
        logits = model.apply(variables, jnp.where(hidden, mean, faces), train=False)
        return jnp.take_along_axis(nn.softmax(logits), labels[:, None], axis=1)[:, 0]

    return ops.jit(occluded_fn)


def _starts(side, patch, stride):
    """Returns the start positions of patches on a side."""
    return sorted({*range(0, side - patch, stride), side - patch})


def _covered(starts, side, patch):
    """Returns [starts, side], 1 inside a patch."""
    places = np.arange(side) - np.asarray(starts)[:, None]
    return ((places >= 0) & (places < patch)).astype(np.float32)


def _pad(size, *arrays):
    """Pads arrays to `size` rows by repeating the last one."""
    return [np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)]) for array in arrays]
