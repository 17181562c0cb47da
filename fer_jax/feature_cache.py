"""Caches the features of a frozen backbone on disk.

They replace the images of the faces, so feeders and steps work unchanged.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import logging
import pathlib
import shutil

import jax
import numpy as np
from jax.experimental import multihost_utils

from fer_jax import feeders, files, ops
from fer_jax.runtime import compile_cache
from fer_jax.runtime.timing import Progress

SOURCE, LIBRARIES = ("models", "ops"), ("jax", "jaxlib", "flax")  # code that the features depend on
LOAD, COMPUTE, NO_ROOM = range(3)  # what a process can do: load or compute the features, or neither for lack of space
FORWARD = "classify"  # the network's method for features
logger = logging.getLogger("fer_jax")


def digest(tree) -> str:
    """Returns 16 hex digits that depend on every value, shape and name in a nested dict of arrays."""
    hashed = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.ascontiguousarray(jax.device_get(leaf))
        hashed.update(f"{jax.tree_util.keystr(path)}{values.dtype}{values.shape}".encode())
        hashed.update(values.data)
    return hashed.hexdigest()[:16]


def cached(network, variables, faces, *, batch_size: int, shardings, cache_dir):
    """Returns `faces` with their images replaced by the features [N, ...] float32 of a frozen backbone.

    Args:
      network: a `models.Network`.
      variables: its variables.
      faces: uint8 [N, H, W, C] images with labels.
      batch_size: faces at a time.
      shardings: (batch, replicated).
      cache_dir: where features are stored, in a file named by a digest of all they depend on: the backbone's weights,
        the faces, the layers before and after the backbone, and the code and libraries that compute them.

    Returns:
      The faces, or None if the disk has too little space for their features.
    """
    extract = ops.jit(
        lambda variables, image: network.apply(variables, image, train=False, method="features"),
        out_shardings=shardings[1],
    )
    backbone = {kind: {"backbone": tree.get("backbone", {})} for kind, tree in variables.items()}
    key = digest([backbone, faces.images])
    around = (
        network.preprocess,
        type(network.backbone).__name__,
        network.backbone.dtype,
        network.neck.layers,
        network.source,
        compile_cache.source_digest(*SOURCE),
        ops.cpu_path(),
        jax.default_backend(),
        *map(importlib.metadata.version, LIBRARIES),
    )
    made_by = hashlib.sha256(repr(around).encode()).hexdigest()[:8]
    path = pathlib.Path(cache_dir).expanduser() / "features" / f"{key}-{made_by}.npy"
    shape = jax.eval_shape(extract, variables, faces.images[:batch_size]).shape
    shape = (len(faces), *shape[1:])
    step = _agreed(path, 4 * int(np.prod(shape)))
    if step == NO_ROOM:
        return None
    if step == COMPUTE:
        _compute(
            functools.partial(extract, variables),
            feeders.padded_batches(faces, batch_size, shardings[0]),
            path,
            shape=shape,
            batch_size=batch_size,
        )
    logger.info("features: %s float32 in %s", "x".join(map(str, shape)), path)
    return dataclasses.replace(faces, images=np.load(path, mmap_mode="r"))


def _agreed(path, needed_bytes):
    """Returns what all processes do, the maximum of their cases: disks may differ, but computing is collective."""
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    mine = LOAD if path.exists() else COMPUTE if free >= needed_bytes + 2**28 else NO_ROOM
    agreed = int(np.max(multihost_utils.process_allgather(np.asarray(mine)))) if jax.process_count() > 1 else mine
    if agreed == NO_ROOM:
        logger.warning(
            "the features need %s MiB and %s has %s MiB free%s: they are recomputed at each step (make room, or set "
            "data.cache_dir to a folder on another disk)",
            *(f"{needed_bytes / 2**20:,.0f}", path.parent, f"{free / 2**20:,.0f}"),
            "" if mine == NO_ROOM else ", but another process's folder has too little",
        )
    return agreed


def _compute(extract, batches, path, *, shape, batch_size):
    """Computes the features and writes them atomically."""
    steps = -(-shape[0] // batch_size)
    progress = Progress("features", steps=steps, batch_size=batch_size)
    with contextlib.closing(progress), files.replacing(path) as temporary:
        kept = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        for step, batch in enumerate(batches):
            part = slice(step * batch_size, min((step + 1) * batch_size, shape[0]))
            kept[part] = np.asarray(extract(batch["image"]))[: part.stop - part.start]
            progress.update(step + 1)
        kept.flush()
