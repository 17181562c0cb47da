"""Explains predictions by heat maps over faces, computed by Grad-CAM or occlusion.

Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual explanations from deep networks via gradient-based localization")
weights the channels of the last map by the mean gradient of the class score with respect to each. The mean discards
where in the map a gradient was: under a head that flattens the map, cells may be hot that the score does not depend on
(Draelos and Carin 2020). Occlusion (Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks")
measures how much the class's probability drops when a patch is covered; it needs no map, but many more evaluations.
"""

import functools
import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fer_jax import ops
from fer_jax.errors import InputError
from fer_jax.models import average, dual_channel

BATCHES = (1, 8, 32)  # batches are padded to one of these sizes, so that few programs are compiled
OCCLUDED_BATCH = 128
MIN_CELLS = 6  # per side: a cell of a coarser map sees most of the face, so Grad-CAM does not localize
HEAT_SHARE = 0.7  # opacity of an overlay where the heat is 1
PATCH_PX, STRIDE_PX = 8, 4  # of occlusion
_COLLECTIONS = itertools.count()


class NoMapError(InputError):
    """A network has no map for Grad-CAM."""


class _Map(NamedTuple):
    """A call of a module's method that returns a map: its number, its module's path, and the map."""

    number: int
    path: tuple[str, ...]
    value: jax.ShapeDtypeStruct


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
      InputError: the network has no map (a NoMapError), or no such layer.
    """
    if isinstance(model, average.Average):
        parts = [_member(variables, number) for number in range(len(model.members))]
        members = zip(model.members, parts, strict=True)
        return rescale(np.mean([grad_cam(member, part, faces, labels, layer) for member, part in members], axis=0))
    cam_fn = _jit_cam(model, layer)
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
        cells = _count_cells(model, variables, jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8))
    except NoMapError:
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


def _member(variables, number):
    """Returns the variables of a member of an average."""
    return {kind: tree.get(f"members_{number}", {}) for kind, tree in variables.items()}


@functools.lru_cache(maxsize=16)
def _jit_cam(model, layer):
    return ops.jit(make_cam(model, layer))


def make_cam(model, layer=None):
    """Returns cam_fn(variables, faces [B, H, W, C], labels [B]) -> heat [B, H, W], not negative; see `grad_cam`.

    A function to transform by JAX; cam_fn raises InputError as `grad_cam` does.
    """

    def cam_fn(variables, faces, labels):
        maps = _find_maps(model, variables, faces, layer)

        def score_fn(nudges):
            logits, kept = _run(model, variables, faces, nudges)
            return (logits * nn.one_hot(labels, logits.shape[1])).sum(), kept

        nudges = {one.number: jnp.zeros(one.value.shape, one.value.dtype) for one in maps}
        grads, kept = jax.grad(score_fn, has_aux=True)(nudges)
        heat = jnp.zeros(faces.shape[:3])
        for one in maps:
            weights = grads[one.number].astype(jnp.float32).mean(axis=(1, 2))
            cam = nn.relu(jnp.einsum("bhwc,bc->bhw", kept[_name(one.number)].astype(jnp.float32), weights))
            cam = jax.image.resize(cam, heat.shape, "bilinear")
            heat += _put_back(cam, kept["centre"]) if "centre" in kept and one.path[:1] == ("region",) else cam
        return heat

    return cam_fn


def _put_back(heat, centre):
    """Moves the heat [B, H, W] of regions to their positions in the faces; centre: as in `dual_channel.sample`."""
    _, spread = jax.vjp(lambda face: dual_channel.sample(face, centre), jnp.zeros((*heat.shape, 1)))
    return spread(heat[..., None])[0][..., 0]


def _run(model, variables, faces, nudges):
    """Returns (logits [B, K], kept): kept has the outputs of the calls whose numbers are keys of `nudges`.

    A nudge of zeros is added to the output of its call, to get the gradient with respect to that output. The centres of
    a dual-channel network's regions are in `kept` too.
    """

    def on_output(number, module, method, out, keep_fn):
        if isinstance(module, dual_channel.DualChannel) and method == "find":
            keep_fn("centre", out)
        if number in nudges:
            out = out + nudges[number]
            keep_fn(_name(number), out)
        return out

    return _intercept(model, variables, faces, on_output)


def _name(number):
    return f"map_{number}"


def _intercept(model, variables, faces, on_output):
    """Applies a model and returns (logits [B, K], {name: kept array}).

    on_output(number of the call, module, method, output, keep_fn) returns the method's new output. keep_fn(name, array)
    keeps an array from inside transformations; it returns whether that worked, which it does not in a scan.
    """
    numbers = itertools.count()
    # A new name each time: with the same name, `nn.jit` would reuse an earlier trace, without interception.
    collection = f"explained_{next(_COLLECTIONS)}"

    def intercept(call, args, kwargs, context):
        def keep_fn(name, value):
            return context.module.sow(collection, name, value, reduce_fn=lambda _, new: new, init_fn=lambda: None)

        out = call(*args, **kwargs)
        return on_output(next(numbers), context.module, context.method_name, out, keep_fn)

    with nn.intercept_methods(intercept):
        logits, kept = model.apply(variables, faces, train=False, mutable=[collection])
    return logits, {path[-1]: value for path, value in traverse_util.flatten_dict(dict(kept)).items()}


def _count_cells(model, variables, faces):
    """Returns the shortest side of the maps of a network, or of an average's members.

    Raises:
      NoMapError: a network or member has no map.
    """
    if isinstance(model, average.Average):
        members = enumerate(model.members)
        return min(_count_cells(member, _member(variables, number), faces) for number, member in members)
    return min(min(one.value.shape[1:3]) for one in _find_maps(model, variables, faces, None))


def _list_maps(model, variables, faces):
    """Returns the `_Map`s of a network in the order of calls; outputs before the first kernel are still the picture."""
    maps, has_kernel = [], False

    def on_output(number, module, _, out, keep_fn):
        nonlocal has_kernel
        if _is_map(out, faces.shape) and keep_fn(_name(number), out):
            has_kernel |= module.has_variable("params", "kernel")
            if has_kernel:
                maps.append(_Map(number, module.path, jax.ShapeDtypeStruct(out.shape, out.dtype)))
        return out

    jax.eval_shape(lambda *inputs: _intercept(model, *inputs, on_output), variables, faces)
    return maps


def _find_maps(model, variables, faces, layer):
    """Returns the `_Map`s for Grad-CAM: the last one, or the last of both channels, or that of a layer."""
    maps = _list_maps(model, variables, faces)
    if layer is not None and maps:
        wanted = [one for one in maps if f"/{'/'.join(one.path)}".endswith(f"/{layer}")]
        if not wanted:
            names = dict.fromkeys("/".join(one.path) for one in maps if one.path)
            raise InputError(f"there is no layer '{layer}' that returns a map; known are {', '.join(names)}")
        return wanted[-1:]
    is_dual = isinstance(model, dual_channel.DualChannel)
    channels = [[one for one in maps if one.path[:1] == (name,)] for name in ("whole", "region")] if is_dual else [maps]
    if not all(channels):
        raise NoMapError(
            "Grad-CAM needs a map, the output of a convolution of more than 1x1 cells, and this network has none for "
            f"faces of {faces.shape[1]}x{faces.shape[2]} pixels: explain it by occlusion"
        )
    return [channel[-1] for channel in channels]


def _is_map(out, faces_shape):
    """Whether an output is [B, h, w, C] with several cells per side, and the face's aspect ratio to within a cell."""
    if not isinstance(out, jax.Array) or out.ndim != 4 or out.shape[0] != faces_shape[0] or min(out.shape[1:3]) < 2:
        return False
    (height, width), (rows, columns) = faces_shape[1:3], out.shape[1:3]
    return abs(rows * width - columns * height) < max(height, width)


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
