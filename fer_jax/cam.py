"""Grad-CAM of a network: the maps among its outputs, and how the score of a class depends on them.

Flax's method interception finds the maps and keeps them, so networks need no code for it.
"""

import functools
import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from fer_jax import ops
from fer_jax.errors import InputError
from fer_jax.models import average, dual_channel

_COLLECTIONS = itertools.count()


class NoMapError(InputError):
    """A network has no map for Grad-CAM."""


class _Map(NamedTuple):
    """A call of a module's method that returns a map: its number, its module's path, and the map."""

    number: int
    path: tuple[str, ...]
    value: jax.ShapeDtypeStruct


def member_variables(variables, number):
    """Returns the variables of a member of an average."""
    return {kind: tree.get(f"members_{number}", {}) for kind, tree in variables.items()}


@functools.lru_cache(maxsize=16)
def jit_cam(model, layer):
    """Returns the compiled function of `make_cam`."""
    return ops.jit(make_cam(model, layer))


def make_cam(model, layer=None):
    """Returns cam_fn(variables, faces [B, H, W, C], labels [B]) -> heat [B, H, W], not negative.

    A function to transform by JAX. layer: as in `explain.grad_cam`; cam_fn raises the same InputErrors.
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


def count_cells(model, variables, faces):
    """Returns the shortest side of the maps of a network, or of an average's members.

    Raises:
      NoMapError: a network or member has no map.
    """
    if isinstance(model, average.Average):
        members = enumerate(model.members)
        return min(count_cells(member, member_variables(variables, number), faces) for number, member in members)
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
