"""Checkpoints by Orbax: the latest states, to resume from, and the best variables, for use."""

import functools
import logging
import pathlib
import shutil

import jax

from fer_jax import integrity, saved_step
from fer_jax import steps as steps_lib
from fer_jax.errors import InputError, tells_full_disk
from fer_jax.runtime import processes

# Two of each kind: if one is corrupt, a run resumes from the one before, and finds the best one of that time.
KEPT = 2
logger = logging.getLogger("fer_jax")


class Checkpoints:
    """The checkpoints of a run, `<workdir>/checkpoints/{latest,best}/<step>`.

    `latest` has complete train states, `best` the variables of the best epoch so far. Saving runs in the background; an
    interrupted save leaves nothing that counts as a checkpoint. Everything is saved with a checksum, which is checked
    on reading; corruption that one of several processes finds counts for all of them. If the newest of `latest` is
    corrupt, all methods use the one before it and log this once; a corrupt `best` raises, because another epoch's
    variables would give other scores.

    The argument `like` of methods is a tree of `jax.ShapeDtypeStruct`s with shardings, or a function that returns it
    for the metadata of a checkpoint.
    """

    def __init__(self, workdir):
        self.workdir = workdir
        self._root = pathlib.Path(workdir).absolute() / "checkpoints"
        self._managers = {}
        self._corrupt = set()

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
        return sorted((step for step in steps if (kind, step) not in self._corrupt), reverse=True)

    def step(self, kind: str) -> int | None:
        """Returns the newest step of 'latest' or 'best'; None if nothing is saved."""
        return next(iter(self._steps(kind)), None)

    def save(self, kind: str, step: int, tree, meta: dict) -> None:
        """Saves a tree of arrays and a dict of JSON values under a step, replacing this step and later ones.

        Raises:
          InputError: the disk is full or cannot be written; earlier checkpoints are intact.
        """
        checksums = {"meta": integrity.json_checksum(meta), "arrays": integrity.checksums(tree)}
        meta = {**meta, saved_step.CHECKSUMS: checksums}
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
                self._corrupt.discard((kind, step))

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
        return self._newest(kind, lambda saved, like, checksums: None)[1]

    def restore(self, kind: str, like):
        """Returns (tree, meta) of the newest checkpoint of a kind; meta: see `meta`. kind: 'latest' or 'best'.

        like: None restores the tree as saved, on one device.

        Raises:
          InputError: nothing is saved, it is corrupt (the message says what to do), or it has other arrays.
        """
        return self._newest(kind, saved_step.SavedStep.read_tree, like)

    def restore_state(self, like):
        """Returns (state, meta) of the latest train state.

        Fields of the state without arrays may be missing from the checkpoint, so that earlier versions' can be read.
        Raises as `restore`.
        """

        def read(saved, like, checksums):
            return like.replace(**saved.read_tree(_present(vars(like), saved.fields()), checksums))

        return self._newest("latest", read, like)

    def restore_variables(self, kind: str, like):
        """Returns (variables, meta) of the newest checkpoint of a kind, without the optimizer of a train state.

        like: of {params, batch_stats}. Raises as `restore`.
        """

        def read(saved, like, checksums):
            stored, sharding = saved.fields(), jax.tree.leaves(like)[0].sharding
            others = {name: value for name, value in stored.items() if name not in like}
            others = steps_lib.with_sharding(others, sharding)
            fields = _present(like, stored)
            tree = saved.read_tree({**others, **fields}, checksums, of_the_model=fields)
            return {name: tree.get(name, {}) for name in like}

        return self._newest(kind, read, like)

    def _newest(self, kind, read, like=None):
        """Returns (read(a SavedStep, like, checksums of its arrays), meta) of the newest intact step."""
        steps = self._steps(kind)
        if not steps:
            raise InputError(
                f"no checkpoint in {self._root / kind}: train first, or give the workdir of a run that has one"
            )
        for step, before in zip(steps, [*steps[1:], None], strict=True):
            saved = saved_step.SavedStep(self._root / kind / str(step))
            try:
                meta, checksums = saved.read_meta()
                return read(saved, like(meta) if callable(like) else like, checksums), {**meta, "step": step}
            except integrity.Corrupt as error:
                what = f"the checkpoint {saved.folder} is corrupt ({error})"
                if kind == "latest" and before is not None:
                    logger.warning("%s: going back to the one before it, of step %d", what, before)
                    self._corrupt.add((kind, step))
                    continue
                if kind == "latest":
                    fix = "delete that folder, then train again"
                elif before is not None:
                    fix = f"delete that folder to use the previous best one, of step {before}, or use the latest one"
                else:
                    fix = "use the latest one (--checkpoint latest), or train again with another --workdir"
                raise InputError(f"{what}: {fix}") from error
        raise AssertionError  # the last step returns or raises

    def close(self) -> None:
        """Waits for saves in progress and closes the files."""
        self.wait()
        for manager in self._managers.values():
            manager.close()
        self._managers = {}


def _present(fields, stored):
    """Returns the fields that the checkpoint has or must have."""
    return {name: value for name, value in fields.items() if name in stored or jax.tree.leaves(value)}


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
