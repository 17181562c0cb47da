"""Parameter trees: paths, frozen layers, counts and the overview table."""

import re

import jax
import numpy as np

from fer_jax import wording
from fer_jax.errors import InputError

SHOWN_LAYERS = 30  # of one scope; larger scopes get one line


def count(tree) -> int:
    """Returns the number of values in all leaves (arrays or their shapes)."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def kernel_mask(tree):
    """Returns a tree of bools: True for kernels, to which weight decay applies, False for biases and scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", tree)


def layers(tree: dict, scope: str = "") -> dict:
    """Returns {path of a layer, such as `backbone/conv1_bn`: its leaves}; a leaf next to layers counts as a layer."""
    found = {}
    for name, below in tree.items():
        path = f"{scope}{name}"
        if not isinstance(below, dict):
            found[path] = {name: below}
            continue
        is_layer = not any(isinstance(value, dict) for value in below.values())
        found |= {path: below} if is_layer else layers(below, path + "/")
    return found


def select(tree: dict, patterns) -> frozenset[str]:
    """Returns the paths of the layers whose full path, or a scope of it, matches one of the regular expressions.

    Raises:
      InputError: an invalid regular expression, or one that matches nothing.
    """
    paths = list(layers(tree))
    chosen = set()
    for pattern in patterns:
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise InputError(f"optim.freeze: {pattern!r} is not a regular expression ({error})") from error
        hits = {path for path in paths if any(regex.fullmatch(prefix) for prefix in _prefixes(path))}
        if not hits:
            some = ", ".join([*sorted({path.split("/")[0] for path in paths if "/" in path}), *paths[:3]])
            raise InputError(f"optim.freeze: {pattern!r} matches no layer; layers are, for instance, {some}")
        chosen |= hits
    return frozenset(chosen)


def _prefixes(path):
    parts = path.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def split(tree: dict, frozen: frozenset[str], scope: str = "") -> tuple[dict, dict]:
    """Returns (the tree without the frozen layers, the frozen layers); `join` is the inverse."""
    trained, frozen_part = {}, {}
    for name, below in tree.items():
        path = f"{scope}{name}"
        if path in frozen:
            frozen_part[name] = below
        elif isinstance(below, dict) and any(isinstance(value, dict) for value in below.values()):
            trained_below, frozen_below = split(below, frozen, path + "/")
            trained |= {name: trained_below} if trained_below else {}
            frozen_part |= {name: frozen_below} if frozen_below else {}
        else:
            trained[name] = below
    return trained, frozen_part


def join(tree: dict, other: dict) -> dict:
    """Merges two nested dicts; leaves of `other` take precedence."""
    joined = dict(tree)
    for name, value in other.items():
        both = isinstance(value, dict) and isinstance(joined.get(name), dict)
        joined[name] = join(joined[name], value) if both else value
    return joined


def overview(params: dict, batch_stats: dict, frozen: frozenset[str] = frozenset()) -> str:
    """Returns a table: one line per layer with its shapes and counts, then totals as Keras prints them.

    A scope of many layers is summed up in one line.
    """
    lines = [f"{'layer':<28}{'kernel':<20}{'parameters':>12}"]
    rows, statistics = layers(params), layers(batch_stats)
    scopes = {}
    for path in sorted(rows, key=_natural):
        scopes.setdefault(path.rpartition("/")[0], []).append(path)
    for scope, paths in scopes.items():
        if len(paths) > SHOWN_LAYERS:
            total = sum(count(rows[path]) + count(statistics.get(path, {})) for path in paths)
            lines.append(f"{scope or 'all':<28}{f'({len(paths)} layers)':<20}{total:>12,}")
            continue
        for path in paths:
            leaves = rows[path]
            shape = "x".join(map(str, leaves["kernel"].shape)) if "kernel" in leaves else ""
            note = " frozen" if path in frozen else ""
            lines.append(f"{path:<28}{shape:<20}{count(leaves) + count(statistics.get(path, {})):>12,}{note}")
    trainable, frozen_part = (count(part) for part in split(params, frozen))
    stored = count(batch_stats)
    totals = f"total {trainable + frozen_part + stored:,}; trainable {trainable:,}; statistics {stored:,}"
    lines.append(totals + (f"; frozen {frozen_part:,} in {wording.count(len(frozen), 'layer')}" if frozen else ""))
    return "\n".join(lines)


def _natural(name):
    """Sorts conv2d_2 before conv2d_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
