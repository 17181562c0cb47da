"""Checkpoints by Orbax: the latest states, to resume from, and the best variables, for use."""

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

# Two of each kind: if one is corrupt, a run resumes from the one before, and finds the best one of that time.
KEPT = 2
CHECKSUMS = "checksums"  # their key in a checkpoint's meta data; earlier versions wrote none
# Orbax's messages if arrays are present but are not those requested.
OF_ANOTHER_STRUCTURE = ("structures do not match", "is not compatible with the stored shape")
# Errors that are not the checkpoint's: memory, permissions, open files.
UNREADABLE = r"RESOURCE_EXHAUSTED|PERMISSION_DENIED|Permission denied|Too many open files"
logger = logging.getLogger("fer_jax")


class _Damaged(Exception):
    """The content read is not what was saved; the text says why."""


class Checkpoints:
    """The checkpoints of a run, `<workdir>/checkpoints/{latest,best}/<step>`.

    `latest` has complete train states, `best` the variables of the best epoch so far. Saving runs in the background; an
    interrupted save leaves nothing that counts as a checkpoint. Everything is saved with a checksum, which is checked
    on reading; corruption that one of several processes finds counts for all of them. If the newest of `latest` is
    corrupt, all methods use the one before it and log this once; a corrupt `best` raises, because another epoch's
    variables would give other scores.

    The argument `like` of methods is a tree of `jax.ShapeDtypeStruct`s with shardings, or a function that returns it
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
            # Orbax would ask at each save, with other step numbers than training (`interrupts.Stop.asks`), and the
            # processes would stop at different steps.
            manager.reached_preemption = lambda step: False
        return self._managers[kind]

    def _steps(self, kind):
        """Returns the steps of a kind, newest first, without those found to be corrupt."""
        if not (self._root / kind).is_dir():
            return []
        steps = self._manager(kind).all_steps()
        return sorted((step for step in steps if (kind, step) not in self._damaged), reverse=True)

    def step(self, kind: str) -> int | None:
        """Returns the newest step of 'latest' or 'best'; None if nothing is saved."""
        return next(iter(self._steps(kind)), None)

    def save(self, kind: str, step: int, tree, meta: dict) -> None:
        """Saves a tree of arrays and a dict of JSON values under a step, replacing this step and later ones.

        Raises:
          InputError: the disk is full or cannot be written; earlier checkpoints are intact.
        """
        meta = {**meta, CHECKSUMS: {"meta": _checksum_json(meta), "arrays": _checksums(tree)}}
        args = self._ocp.args.Composite(tree=self._ocp.args.StandardSave(tree), meta=self._ocp.args.JsonSave(meta))
        with _SaveErrors(self._root / kind, step):
            # One save at a time: processes synchronize at barriers, which two concurrent saves would mix up.
            self.wait()
            self._delete(kind, step)  # Orbax does not save a step that exists, or an earlier one
            self._manager(kind).save(step, args=args)

    def discard_after(self, step: int) -> None:
        """Deletes the checkpoints after the step that a run resumes from: they are from an interrupted attempt.

        Raises as `save`.
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
        """Saves a train state as the latest, under its step; fields without arrays are omitted.

        Raises as `save`.
        """
        fields = {name: value for name, value in vars(state).items() if jax.tree.leaves(value)}
        self.save("latest", int(state.step), fields, meta)

    def wait(self) -> None:
        """Waits until everything passed to `save` is on disk. Raises as `save`."""
        for kind, manager in self._managers.items():
            with _SaveErrors(self._root / kind, manager.latest_step()):
                manager.wait_until_finished()

    def meta(self, kind: str) -> dict:
        """Returns the dict saved with the newest checkpoint of a kind, and its `step`.

        Raises as `restore`.
        """
        return self._newest(kind, lambda step, like, saved: None)[1]

    def restore(self, kind: str, like):
        """Returns (tree, meta) of the newest checkpoint of a kind; meta: see `meta`. kind: 'latest' or 'best'.

        like: None restores the tree as saved, on one device.

        Raises:
          InputError: nothing is saved, it is corrupt (the message says what to do), or it has other arrays.
        """

        def read(step, like, saved):
            return self._read(kind, step, like or self._as_saved(kind, step), saved)

        return self._newest(kind, read, like)

    def restore_state(self, like):
        """Returns (state, meta) of the latest train state.

        Fields of the state without arrays may be missing from the checkpoint, so that earlier versions' can be read.
        Raises as `restore`.
        """

        def read(step, like, saved):
            fields = _asked(vars(like), self._stored("latest", step))
            return like.replace(**self._read("latest", step, fields, saved))

        return self._newest("latest", read, like)

    def restore_variables(self, kind: str, like):
        """Returns (variables, meta) of the newest checkpoint of a kind, without the optimizer of a train state.

        like: of {params, batch_stats}. Raises as `restore`.
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
        """Returns (read(step, like, checksums of the arrays), meta) of the newest intact step."""
        steps = self._steps(kind)
        if not steps:
            raise InputError(
                f"no checkpoint in {self._root / kind}: train first, or give the workdir of a run that has one"
            )
        for step, before in zip(steps, [*steps[1:], None], strict=True):
            try:
                meta, saved = _agreed(functools.partial(self._read_meta, kind, step))
                return read(step, like(meta) if callable(like) else like, saved), {**meta, "step": step}
            except _Damaged as error:
                what = f"the checkpoint {self._root / kind / str(step)} is corrupt ({error})"
                if kind == "latest" and before is not None:
                    logger.warning("%s: going back to the one before it, of step %d", what, before)
                    self._damaged.add((kind, step))
                    continue
                if kind == "latest":
                    fix = "delete that folder, then train again"
                elif before is not None:
                    fix = f"delete that folder to use the previous best one, of step {before}, or use the latest one"
                else:
                    fix = "use the latest one (--checkpoint latest), or train again with another --workdir"
                raise InputError(f"{what}: {fix}") from error
        raise AssertionError  # the last step returns or raises

    def _read_meta(self, kind, step):
        """Returns a step's meta data and the checksums of its arrays, None if an earlier version saved it."""
        meta = dict(self._orbax(kind, step, "meta"))
        checksums = meta.pop(CHECKSUMS, None)
        if checksums is None:
            return meta, None
        try:
            whole, arrays = checksums["meta"] == _checksum_json(meta), dict(checksums["arrays"])
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise _Damaged("its meta data differ from those saved")
        return meta, arrays

    def _read(self, kind, step, like, saved, of_the_model=None):
        """Returns the tree of a step.

        saved: its checksums. of_the_model: the part of `like` that decides whether it is of another model; None: all.
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
        tree = _agreed(functools.partial(self._orbax, kind, step, "tree", like, compared=saved is not None))
        if saved is not None:
            _agreed(functools.partial(_compare, tree, saved))
        return tree

    def _stored(self, kind, step):
        """Returns the top level of a checkpoint's tree, with arrays as Orbax's metadata; {} if unreadable."""
        folder = self._root / kind / str(step) / "tree"
        try:
            with self._ocp.StandardCheckpointer() as reader:
                return dict(reader.metadata(folder).item_metadata.tree)
        except Exception:  # a corrupt folder can raise anything; reading it reports the error
            return {}

    def _as_saved(self, kind, step):
        """Returns a checkpoint's content as a `like`, without which checkpoints of several processes cannot be read."""
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return steps_lib.with_sharding(self._stored(kind, step), one) or None

    def _orbax(self, kind, step, item, like=None, *, compared=True):
        """Reads a step with Orbax; compared: whether its structure is known to be the requested one.

        item: 'tree', which is read into `like`, or 'meta'. The manager is not used: it synchronises all processes after
        reading, and one that finds the files corrupt would not arrive.
        """
        folder, ocp = self._root / kind / str(step) / item, self._ocp
        try:
            if item == "meta":
                return ocp.JsonCheckpointHandler().restore(folder, args=ocp.args.JsonRestore())
            return ocp.StandardCheckpointHandler().restore(folder, args=ocp.args.StandardRestore(like))
        except Exception as error:
            reason = str(error).strip().split("\n")[0].split(". ")[0][:200] or type(error).__name__
            if not compared and any(text in str(error) for text in OF_ANOTHER_STRUCTURE):
                raise self._of_another_model(kind, step, reason) from error
            if isinstance(error, MemoryError) or re.search(UNREADABLE, str(error)):
                raise InputError(
                    f"{self._root / kind / str(step)} cannot be read ({reason}): fix that first"
                ) from error
            raise _Damaged(reason) from error

    def _of_another_model(self, kind, step, reason):
        return InputError(
            f"the checkpoint {self._root / kind / str(step)} is intact, but of another model or another version of "
            f"fer_jax ({reason}): it is not changed; evaluate the run's best checkpoint, and train with another "
            "--workdir"
        )

    def close(self) -> None:
        """Waits for saves in progress and closes the files."""
        self.wait()
        for manager in self._managers.values():
            manager.close()
        self._managers = {}


def _gather(flag: bool) -> np.ndarray:
    """Returns a flag of every process, [processes]."""
    return multihost_utils.process_allgather(np.asarray(flag)) if jax.process_count() > 1 else np.asarray([flag])


def _agreed(read):
    """Returns read() where no process finds damage; raises _Damaged in all of them where one does.

    The processes meet here: read may meet the others, if all that raises _Damaged comes after that.
    """
    found = damage = None
    try:
        found = read()
    except _Damaged as error:
        damage = error
    flags = _gather(damage is not None)
    if damage is None and flags.any():
        damage = _Damaged(f"process {int(np.argmax(flags))} cannot use what it reads of it")
    if damage is not None:
        raise damage
    return found


def _compare(tree, saved):
    """Raises _Damaged where the arrays of a tree do not have their checksums."""
    if (found := _checksums(tree)) != saved:
        changed = sorted(name for name in found | saved if found.get(name) != saved.get(name))
        raise _Damaged(f"changed since saving: {', '.join(changed[:3])}{', ...' if changed[3:] else ''}")


def _named(tree):
    """Returns (name, leaf) pairs, with the same names as in a tree that Orbax reads without its classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _asked(fields, stored):
    """Returns the fields that the checkpoint has or must have."""
    return {name: value for name, value in fields.items() if name in stored or jax.tree.leaves(value)}


def _type(array):
    return f"{np.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"


def _checksums(tree) -> dict[str, str]:
    """Returns one line per array, by name: type, shape and CRC-32; 70 MiB take 17 ms."""

    def checksum(leaf):
        array = np.ascontiguousarray(_whole(leaf))
        return f"{_type(leaf)} {zlib.crc32(array.reshape(-1).view(np.uint8)):08x}"

    return {name: checksum(leaf) for name, leaf in _named(tree)}


def _whole(leaf):
    """Gathers an array on the host, including the parts of other processes."""
    if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
        return jax.device_get(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)


def _checksum_json(meta: dict) -> str:
    return f"{zlib.crc32(json.dumps(meta, sort_keys=True).encode()):08x}"


class _SaveErrors:
    """Converts the exceptions of a failed save into one message."""

    def __init__(self, folder, step):
        self._folder, self._step = folder, step

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if not isinstance(error, Exception) or isinstance(error, InputError) or processes.is_lost(error):
            return
        text, full = str(error), tells_full_disk(error, wrapped=True)
        fix = "make room" if full else "fix that"
        reason = "no space left on the disk" if full else text.strip().split("\n")[0][:200]
        raise InputError(
            f"could not save checkpoint {self._step} in {self._folder}: {reason}; {fix} and rerun the same command: "
            "earlier checkpoints are intact, and the run resumes from the last of them"
        ) from error


def check_space(workdir, state_bytes: int) -> None:
    """Raises InputError before work starts if the checkpoints of a run cannot fit on the disk of its workdir."""
    needed_bytes = state_bytes * (2 * KEPT + 1)  # both kinds, and one being written
    folder = pathlib.Path(workdir).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InputError(
            f"{workdir}: the checkpoints need {needed_bytes / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free: "
            "make room, or give a --workdir on another disk"
        )
