"""Checkpoints: the latest states, to go on from, and the best variables, to use. Orbax writes both."""

import functools
import json
import logging
import pathlib
import re
import shutil
import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from fer_jax import steps as steps_lib
from fer_jax.errors import InputError, tells_full_disk
from fer_jax.runtime import processes

# Two of each kind: a run goes on from the one before a damaged one, and finds the best there was at that time.
KEPT = 2
CHECKSUMS = "checksums"  # their place in a checkpoint's meta data; earlier versions wrote none
# What Orbax says of arrays that are there but are not those that are asked for.
OF_ANOTHER_STRUCTURE = ("structures do not match", "is not compatible with the stored shape")
# What does not depend on the checkpoint: memory, rights, open files.
UNREADABLE = r"RESOURCE_EXHAUSTED|PERMISSION_DENIED|Permission denied|Too many open files"
logger = logging.getLogger("fer_jax")


class _Damaged(Exception):
    """What was read is not what was saved; its text says why."""


class Checkpoints:
    """The checkpoints of a run, `<workdir>/checkpoints/{latest,best}/<step>`.

    `latest` holds whole training states, `best` the variables of the best epoch so far. Saving goes on in the
    background; a save that was cut off leaves nothing that is taken for a checkpoint. Everything is saved with a
    checksum, which is compared when it is read. Where the newest of `latest` is damaged, all methods go on with the one
    before it and say so once; `best` is refused then, because another epoch's variables would give other scores.

    Where a method takes `like`, it is a tree of `jax.ShapeDtypeStruct`s with shardings, or a function that returns it
    for the meta data of a checkpoint.
    """

    def __init__(self, workdir):
        self.workdir = workdir
        self._root = pathlib.Path(workdir).absolute() / "checkpoints"
        self._managers = {}
        self._damaged = set()

    @functools.cached_property
    def _ocp(self):
        import orbax.checkpoint

        return orbax.checkpoint

    def _manager(self, kind):
        if kind not in self._managers:
            manager = self._managers[kind] = self._ocp.CheckpointManager(
                self._root / kind, options=self._ocp.CheckpointManagerOptions(max_to_keep=KEPT)
            )
            # Orbax would ask at each save, with other numbers than the training (`interrupts.Stop.asks`), and several
            # processes would then stop at different places.
            manager.reached_preemption = lambda step: False
        return self._managers[kind]

    def _steps(self, kind):
        """Returns the steps of a kind, newest first, but those that were found to be damaged."""
        if not (self._root / kind).is_dir():
            return []
        steps = self._manager(kind).all_steps()
        return sorted((step for step in steps if (kind, step) not in self._damaged), reverse=True)

    def step(self, kind: str) -> int | None:
        """Returns the newest step of 'latest' or 'best', None where there is none."""
        return next(iter(self._steps(kind)), None)

    def save(self, kind: str, step: int, tree, meta: dict) -> None:
        """Saves a tree of arrays and a dict of JSON values under a step, in the place of this step and later ones.

        Raises:
          InputError: the disk is full or cannot be written; what was saved before is intact.
        """
        meta = {**meta, CHECKSUMS: {"meta": _checksum_json(meta), "arrays": _checksums(tree)}}
        args = self._ocp.args.Composite(tree=self._ocp.args.StandardSave(tree), meta=self._ocp.args.JsonSave(meta))
        with _SaveErrors(self._root / kind, step):
            # One save at a time: several processes meet at barriers, which two saves at once would confuse.
            self.wait()
            self._delete(kind, step)  # Orbax does not save a step that is there, nor one before it
            self._manager(kind).save(step, args=args)

    def discard_after(self, step: int) -> None:
        """Deletes the checkpoints after a step from which a run goes on: they are of an attempt that was cut off.

        Raises as `save` does.
        """
        for kind in ("latest", "best"):
            if (self._root / kind).is_dir():
                with _SaveErrors(self._root / kind, step):
                    self._delete(kind, step + 1)

    def _delete(self, kind, first):
        for step in self._manager(kind).all_steps():
            if step >= first:
                self._manager(kind).delete(step)
                self._damaged.discard((kind, step))

    def save_state(self, state, meta: dict) -> None:
        """Saves a training state as the latest, under its step; fields without arrays are left out.

        Raises as `save` does.
        """
        fields = {name: value for name, value in vars(state).items() if jax.tree.leaves(value)}
        self.save("latest", int(state.step), fields, meta)

    def wait(self) -> None:
        """Waits until all that was given to `save` is on the disk. Raises as `save` does."""
        for kind, manager in self._managers.items():
            with _SaveErrors(self._root / kind, manager.latest_step()):
                manager.wait_until_finished()

    def meta(self, kind: str) -> dict:
        """Returns the dict that was saved with the newest checkpoint of a kind, and its `step`.

        Raises as `restore` does.
        """
        return self._newest(kind, lambda step, like, saved: None)[1]

    def restore(self, kind: str, like):
        """Returns (tree, meta) of the newest checkpoint of a kind; meta: as of `meta`. kind: 'latest' or 'best'.

        like: None gives the tree as it was saved, on one device.

        Raises:
          InputError: there is none, it is damaged (the message says what to do), or it holds other arrays.
        """

        def read(step, like, saved):
            return self._read(kind, step, like or self._as_saved(kind, step), saved)

        return self._newest(kind, read, like)

    def restore_state(self, like):
        """Returns (state, meta) of the latest training state.

        Fields of the state without arrays need not be in the checkpoint, so that an earlier version's can be read.
        Raises as `restore` does.
        """

        def read(step, like, saved):
            fields = _asked(vars(like), self._stored("latest", step))
            return like.replace(**self._read("latest", step, fields, saved))

        return self._newest("latest", read, like)

    def restore_variables(self, kind: str, like):
        """Returns (variables, meta) of the newest checkpoint of a kind, without the optimizer of a training state.

        like: of {params, batch_stats}. Raises as `restore` does.
        """

        def read(step, like, saved):
            stored, sharding = self._stored(kind, step), jax.tree.leaves(like)[0].sharding
            others = {name: value for name, value in stored.items() if name not in like}
            others = steps_lib.with_sharding(others, sharding)
            fields = _asked(like, stored)
            tree = self._read(kind, step, {**others, **fields}, saved, of_the_model=fields)
            return {name: tree.get(name, {}) for name in like}

        return self._newest(kind, read, like)

    def _newest(self, kind, read, like=None):
        """Returns (read(step, like, checksums of the arrays), meta) of the newest step that is whole."""
        steps = self._steps(kind)
        if not steps:
            raise InputError(
                f"no checkpoint in {self._root / kind}: train first, or give the workdir of a run that has one"
            )
        for step, before in zip(steps, [*steps[1:], None], strict=True):
            try:
                meta, saved = self._read_meta(kind, step)
                return read(step, like(meta) if callable(like) else like, saved), {**meta, "step": step}
            except _Damaged as error:
                what = f"the checkpoint {self._root / kind / str(step)} is damaged ({error})"
                if kind == "latest" and before is not None:
                    logger.warning("%s: going back to the one before it, of step %d", what, before)
                    self._damaged.add((kind, step))
                    continue
                if kind == "latest":
                    mend = "delete that folder, then train again"
                elif before is not None:
                    mend = f"delete that folder to use the best one before it, of step {before}, or use the latest one"
                else:
                    mend = "use the latest one (--checkpoint latest), or train again with another --workdir"
                raise InputError(f"{what}: {mend}") from error
        raise AssertionError  # the last step returns or raises

    def _read_meta(self, kind, step):
        """Returns a step's meta data and the checksums of its arrays, None where an earlier version saved them."""
        meta = dict(self._orbax(kind, step, meta=self._ocp.args.JsonRestore())["meta"])
        checksums = meta.pop(CHECKSUMS, None)
        if checksums is None:
            return meta, None
        try:
            whole, arrays = checksums["meta"] == _checksum_json(meta), dict(checksums["arrays"])
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise _Damaged("its meta data are not those that were saved")
        return meta, arrays

    def _read(self, kind, step, like, saved, of_the_model=None):
        """Returns the tree of a step.

        saved: its checksums. of_the_model: the part of `like` that says whether it is of another model; None: all.
        """
        if saved is not None and like is not None:
            part = like if of_the_model is None else of_the_model
            wanted = {name: _type(leaf) for name, leaf in _named(part)}
            there = {name: text.rpartition(" ")[0] for name, text in saved.items()}
            if of_the_model is not None:
                there = {name: text for name, text in there.items() if name.partition("/")[0] in part}
            if wanted != there:
                name = min(name for name in wanted | there if wanted.get(name) != there.get(name))
                differs = f"{name}: {there.get(name, 'nothing')} there, {wanted.get(name, 'nothing')} wanted"
                raise self._of_another_model(kind, step, differs)
        tree = self._orbax(kind, step, compared=saved is not None, tree=self._ocp.args.StandardRestore(like))["tree"]
        if saved is not None and (found := _checksums(tree)) != saved:
            changed = sorted(name for name in found | saved if found.get(name) != saved.get(name))
            raise _Damaged(f"not as they were saved: {', '.join(changed[:3])}{', ...' if changed[3:] else ''}")
        return tree

    def _stored(self, kind, step):
        """Returns the top of the tree that a checkpoint holds, its arrays as Orbax's metadata; {} where unreadable."""
        folder = self._root / kind / str(step) / "tree"
        try:
            with self._ocp.StandardCheckpointer() as reader:
                return dict(reader.metadata(folder).item_metadata.tree)
        except Exception:  # whatever a damaged folder leads to: reading it says what it is
            return {}

    def _as_saved(self, kind, step):
        """Returns what a checkpoint holds, as `like`; a checkpoint of several processes cannot be read without."""
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return steps_lib.with_sharding(self._stored(kind, step), one) or None

    def _orbax(self, kind, step, *, compared=True, **args):
        """Returns what Orbax reads of a step; compared: whether its structure was found to be the one asked for."""
        try:
            return self._manager(kind).restore(step, args=self._ocp.args.Composite(**args))
        except Exception as error:
            reason = str(error).strip().split("\n")[0].split(". ")[0][:200] or type(error).__name__
            if not compared and any(text in str(error) for text in OF_ANOTHER_STRUCTURE):
                raise self._of_another_model(kind, step, reason) from error
            if isinstance(error, MemoryError) or re.search(UNREADABLE, str(error)):
                raise InputError(
                    f"{self._root / kind / str(step)} cannot be read ({reason}): mend that first"
                ) from error
            raise _Damaged(reason) from error

    def _of_another_model(self, kind, step, reason):
        return InputError(
            f"the checkpoint {self._root / kind / str(step)} is whole, but of another model or another version of "
            f"fer_jax ({reason}): it is left as it is; evaluate the run's best checkpoint, and train with another "
            "--workdir"
        )

    def close(self) -> None:
        """Waits for what is being saved and lets go of the files."""
        self.wait()
        for manager in self._managers.values():
            manager.close()
        self._managers = {}


def _named(tree):
    """Returns (name, leaf) pairs, named alike in a tree that Orbax reads without knowing its classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _asked(fields, stored):
    """Returns the fields that a checkpoint has or must have."""
    return {name: value for name, value in fields.items() if name in stored or jax.tree.leaves(value)}


def _type(array):
    return f"{np.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"


def _checksums(tree) -> dict[str, str]:
    """Returns a line an array, by name: type, shape and CRC-32; 70 MiB take 17 ms."""

    def checksum(leaf):
        array = np.ascontiguousarray(_whole(leaf))
        return f"{_type(leaf)} {zlib.crc32(array.reshape(-1).view(np.uint8)):08x}"

    return {name: checksum(leaf) for name, leaf in _named(tree)}


def _whole(leaf):
    """Returns an array on the host, of which other processes may hold parts."""
    if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
        return jax.device_get(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)


def _checksum_json(meta: dict) -> str:
    return f"{zlib.crc32(json.dumps(meta, sort_keys=True).encode()):08x}"


class _SaveErrors:
    """Turns what a failed save raises into one message."""

    def __init__(self, folder, step):
        self._folder, self._step = folder, step

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if not isinstance(error, Exception) or isinstance(error, InputError) or processes.is_lost(error):
            return
        text, full = str(error), tells_full_disk(error, wrapped=True)
        mend = "make room" if full else "mend that"
        reason = "no space left on the disk" if full else text.strip().split("\n")[0][:200]
        raise InputError(
            f"could not save checkpoint {self._step} in {self._folder}: {reason}; {mend} and run the same command "
            "again: earlier checkpoints are intact and the run goes on from the last of them"
        ) from error


def check_space(workdir, state_bytes: int) -> None:
    """Raises InputError before work starts if the checkpoints of a run cannot fit on the disk of its workdir."""
    needed_bytes = state_bytes * (2 * KEPT + 1)  # both kinds, and the one that is being written
    folder = pathlib.Path(workdir).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InputError(
            f"{workdir}: the checkpoints need {needed_bytes / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free: "
            "make room, or give a --workdir on another disk"
        )
