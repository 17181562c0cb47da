"""Parameter paths, counts and the overview table."""

import re

import jax
import numpy as np


def count(tree) -> int:
    """Returns the number of values in all leaves (arrays or their shapes)."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def kernel_mask(tree):
    """Returns a tree of bools: True where a leaf is a kernel, which weight decay may shrink; biases and scales not."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", tree)


def overview(params, batch_stats) -> str:
    """Returns a table: a line a layer with its shapes and counts, then the totals Keras would print."""
    lines = [f"{'layer':<28}{'kernel':<20}{'parameters':>12}"]
    for layer, leaves in sorted(params.items(), key=lambda item: _natural(item[0])):
        shape = "x".join(map(str, leaves["kernel"].shape)) if "kernel" in leaves else ""
        lines.append(f"{layer:<28}{shape:<20}{count(leaves) + count(batch_stats.get(layer, {})):>12,}")
    trainable, stored = count(params), count(batch_stats)
    lines.append(f"total {trainable + stored:,}; trainable {trainable:,}; statistics {stored:,}")
    return "\n".join(lines)


def _natural(name):
    """Sorts conv2d_2 before conv2d_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)$", name)]
