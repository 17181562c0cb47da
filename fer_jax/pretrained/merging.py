"""Matches a file's weights to a network's variables, strictly: every weight is loaded, new or refused."""

import dataclasses
from typing import NamedTuple

import numpy as np

from fer_jax import wording
from fer_jax.errors import InputError
from fer_jax.pretrained.naming import Weights

STATISTICS = ("mean", "var")
SHOWN_PROBLEMS = 3
SHOWN_LAYERS = 4  # of one kind; longer lists show their ends


class _Place(NamedTuple):
    scope: str
    name: str
    shapes: dict[str, tuple]
    required: bool

    @property
    def path(self):
        return f"{self.scope}/{self.name}" if self.scope else self.name


@dataclasses.dataclass(frozen=True)
class Merge:
    """The result of matching a file's weights to a network's variables.

    params, batch_stats: nested like the variables, with the loaded leaves only, float32. loaded, new: paths of leaves
    (`backbone/conv1_bn/scale`) taken from the file, and left at their initial values. refused: {layer or leaf of the
    file: why it was not loaded}. notes: remarks in words. facts: provenance of the file, recorded with a run.
    """

    params: dict
    batch_stats: dict
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    refused: dict[str, str]
    notes: tuple[str, ...] = ()
    facts: dict = dataclasses.field(default_factory=dict)

    def describe(self) -> str:
        """Returns the three lists as a few lines of text."""
        lines = [f"loaded: {_summary(self.loaded)}", f"new: {_summary(self.new)}"]
        reasons = {}
        for name, reason in self.refused.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f"refused: {_ends(names)} ({reason})" for reason, names in reasons.items()] or ["refused: nothing"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def merge(variables, weights: Weights) -> Merge:
    """Matches weights to the variables of a network by layer name.

    Args:
      variables: {params, batch_stats}, nested dicts of anything with a shape; layers are under `backbone` and `head`,
        or, in a network of plain layers, at the top level.
      weights: of a file, as returned by `read`. Layers of the backbone are matched first.

    Raises:
      InputError: the file is of another model: it lacks a leaf of the backbone (in a plain network, of any layer but
        the dense ones) or has it in another shape, or it has convolutions that the network lacks.
    """
    trees = {"params": {}, "batch_stats": {}}
    loaded, new, refused, notes, problems, taken, zeros = [], [], dict(weights.refused), [], [], set(), []
    for place in _places(variables):
        leaves = None if place.name in taken else weights.layers.get(place.name)
        fault = "it is not in the file" if leaves is None else _fault(place.shapes, leaves)
        paths = [f"{place.path}/{leaf}" for leaf in place.shapes]
        if leaves is not None:
            taken.add(place.name)
        if fault:
            if place.required:
                problems.append(f"{place.name}: {fault}")
            else:
                refused |= {f"{place.name}/{leaf}": fault for leaf in leaves or ()}
            new += paths
            continue
        if "bias" in place.shapes and "bias" not in leaves:
            leaves = {**leaves, "bias": np.zeros(place.shapes["bias"], np.float32)}
            zeros.append(place.path)
        for leaf, array in leaves.items():
            _put(trees, place, leaf, array)
        loaded += paths
    unknown = [name for name in weights.layers if name not in taken]
    stranger = "the model has no such layer"
    # Dense layers and norms may belong to another head; convolutions belong to a backbone.
    problems += [f"{name}: {stranger}" for name in unknown if len(_shape(weights.layers[name])) == 4]
    if problems:
        raise InputError(_of_another_model(weights, problems))
    if zeros:
        notes.append(f"the file has no biases for {_ends(zeros)}: they are zero, which is the same function")
    refused |= {f"{name}/{leaf}": stranger for name in unknown for leaf in weights.layers[name]}
    return Merge(trees["params"], trees["batch_stats"], tuple(loaded), tuple(new), refused, tuple(notes))


def _places(variables):
    """Yields every layer of the variables, those of the backbone first."""
    params, stats = (variables.get(name, {}) for name in ("params", "batch_stats"))
    scopes = dict.fromkeys(["backbone", *params, *stats]) if "backbone" in params else [""]
    for scope in scopes:
        ours, theirs = (tree.get(scope, {}) if scope else tree for tree in (params, stats))
        for name in dict.fromkeys([*ours, *theirs]):
            leaves = {**ours.get(name, {}), **theirs.get(name, {})}
            shapes = {leaf: tuple(value.shape) for leaf, value in leaves.items()}
            dense = len(shapes.get("kernel", ())) == 2
            yield _Place(scope, name, shapes, required=scope == "backbone" or (not scope and not dense))


def _fault(shapes, leaves):
    """Returns why a layer of a file does not fit; '' if it does."""
    # A missing bias of a convolution is a bias of 0.
    missing = [leaf for leaf in shapes if leaf not in leaves and (leaf != "bias" or "kernel" not in leaves)]
    if missing:
        return f"the file has no {' and '.join(missing)} for it"
    extra = [leaf for leaf in leaves if leaf not in shapes]
    if extra:
        return f"the file has {' and '.join(extra)} for it, the model does not"
    for leaf, array in leaves.items():
        if array.shape != shapes[leaf]:
            if leaf == "kernel" and array.ndim == 2 and array.shape[0] == shapes[leaf][0]:
                return f"{array.shape[1]} classes or units in the file, {shapes[leaf][1]} in the model"
            return f"shape {array.shape} in the file, {shapes[leaf]} in the model"
    return ""


def _put(trees, place, leaf, array):
    tree = trees["batch_stats" if leaf in STATISTICS else "params"]
    for key in (place.scope, place.name) if place.scope else (place.name,):
        tree = tree.setdefault(key, {})
    tree[leaf] = array


def _shape(leaves):
    return leaves["kernel"].shape if "kernel" in leaves else ()


def _of_another_model(weights, problems):
    shown = "; ".join(problems[:SHOWN_PROBLEMS])
    more = (
        f" and {wording.count(len(problems) - SHOWN_PROBLEMS, 'more layer')}" if len(problems) > SHOWN_PROBLEMS else ""
    )
    text = f"{weights.path} is a weight file of another model: {shown}{more}"
    if weights.models:
        text += f". Its layers are those of {' or '.join(weights.models)}"
    return text


def _summary(paths):
    if not paths:
        return "nothing"
    layers = list(dict.fromkeys(path.rpartition("/")[0] for path in paths))
    return f"{wording.count(len(paths), 'array')} of {wording.count(len(layers), 'layer')}: {_ends(layers)}"


def _ends(names):
    names = list(names)
    if len(names) <= SHOWN_LAYERS:
        return ", ".join(names)
    return f"{', '.join(names[:2])} ... {names[-1]} ({len(names)})"
