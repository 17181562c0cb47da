"""Checksums of saved arrays, and agreement of all processes on whether what they read is corrupt."""

import json
import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils


class Corrupt(Exception):
    """The content read is not what was saved; the text says why."""


def gather(flag: bool) -> np.ndarray:
    """Returns a flag of every process, [processes]."""
    return multihost_utils.process_allgather(np.asarray(flag)) if jax.process_count() > 1 else np.asarray([flag])


def agreed(read):
    """Returns read(), unless it raises Corrupt in any process: then all of them raise it.

    The processes meet here. If read itself meets the others, it must raise Corrupt only after that.
    """
    found = corrupt = None
    try:
        found = read()
    except Corrupt as error:
        corrupt = error
    flags = gather(corrupt is not None)
    if corrupt is None and flags.any():
        corrupt = Corrupt(f"process {int(np.argmax(flags))} cannot use what it reads of it")
    if corrupt is not None:
        raise corrupt
    return found


def checksums(tree) -> dict[str, str]:
    """Returns one line per array, by name: type, shape and CRC-32; 70 MiB take 17 ms."""

    def checksum(leaf):
        array = np.ascontiguousarray(_to_host(leaf))
        return f"{array_type(leaf)} {zlib.crc32(array.reshape(-1).view(np.uint8)):08x}"

    return {name: checksum(leaf) for name, leaf in named(tree)}


def json_checksum(values: dict) -> str:
    """Returns the CRC-32 of a dict of JSON values."""
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def check(tree, saved: dict[str, str]) -> None:
    """Raises Corrupt if the arrays of a tree do not match their saved checksums."""
    if (found := checksums(tree)) != saved:
        changed = sorted(name for name in found | saved if found.get(name) != saved.get(name))
        raise Corrupt(f"changed since saving: {', '.join(changed[:3])}{', ...' if changed[3:] else ''}")


def types(saved: dict[str, str]) -> dict[str, str]:
    """Returns the types and shapes in checksums, in the form of `array_type`, by name."""
    return {name: text.rpartition(" ")[0] for name, text in saved.items()}


def array_type(array) -> str:
    """Returns the type and shape of an array, such as 'float32[3,3]'."""
    return f"{np.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"


def named(tree) -> list:
    """Returns (name, leaf) pairs, with the same names as in a tree that Orbax reads without its classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _to_host(leaf):
    """Gathers an array on the host, including the parts of other processes."""
    if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
        return jax.device_get(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)
