"""Checkpoints: the latest states, to go on from, and the best variables, to use. Orbax writes both."""

import errno
import functools
import logging
import pathlib
import re
import shutil

import jax

from fer_jax.errors import InputError

# Two, so that a damaged one can be deleted and the run goes on from the one before.
KEPT_LATEST = 2
# What Orbax says of arrays that are there but are not those that are asked for.
OF_ANOTHER_STRUCTURE = ("structures do not match", "is not compatible with the stored shape")
logger = logging.getLogger("fer_jax")


class Checkpoints:
    """The checkpoints of a run, `<workdir>/checkpoints/{latest,best}/<step>`.

    `latest` holds whole training states, `best` the variables of the best epoch so far. Saving goes on in the
    background; a save that was cut off leaves nothing that is taken for a checkpoint.
    """

    def __init__(self, workdir):
        self.workdir = workdir
        self._root = pathlib.Path(workdir).absolute() / "checkpoints"
        self._managers = {}

    @functools.cached_property
    def _ocp(self):
        import orbax.checkpoint

        return orbax.checkpoint

    def _manager(self, kind):
        if kind not in self._managers:
            kept = KEPT_LATEST if kind == "latest" else 1
            self._managers[kind] = self._ocp.CheckpointManager(
                self._root / kind, options=self._ocp.CheckpointManagerOptions(max_to_keep=kept)
            )
        return self._managers[kind]

    def step(self, kind: str) -> int | None:
        """Returns the newest step of 'latest' or 'best', None where there is none."""
        if not (self._root / kind).is_dir():
            return None
        return self._manager(kind).latest_step()

    def save(self, kind: str, step: int, tree, meta: dict) -> None:
        """Saves a tree of arrays and a dict of JSON values under a step.

        Raises:
          InputError: the disk is full or cannot be written; what was saved before is intact.
        """
        args = self._ocp.args.Composite(tree=self._ocp.args.StandardSave(tree), meta=self._ocp.args.JsonSave(meta))
        with _SaveErrors(self._root / kind, step):
            # One save at a time: several processes meet at barriers, which two saves at once would confuse.
            self.wait()
            self._manager(kind).save(step, args=args)

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
        """Returns the dict that was saved with the newest checkpoint of a kind. Raises as `restore` does."""
        return self._restore(kind, meta=self._ocp.args.JsonRestore())["meta"]

    def restore(self, kind: str, like):
        """Returns (tree, meta) of the newest checkpoint of a kind.

        Args:
          kind: 'latest' or 'best'.
          like: the tree as `jax.ShapeDtypeStruct`s with shardings.

        Raises:
          InputError: there is none, it is damaged (the message names the folder to delete), or it holds other arrays.
        """
        restored = self._restore(kind, tree=self._ocp.args.StandardRestore(like), meta=self._ocp.args.JsonRestore())
        return restored["tree"], restored["meta"]

    def restore_state(self, like):
        """Returns (state, meta) of the latest training state; like: the state as `jax.ShapeDtypeStruct`s.

        Fields of the state without arrays need not be in the checkpoint, so that an earlier version's can be read.
        Raises as `restore` does.
        """
        stored = self._stored("latest")
        fields = {name: value for name, value in vars(like).items() if name in stored or jax.tree.leaves(value)}
        tree, meta = self.restore("latest", fields)
        return like.replace(**tree), meta

    def restore_variables(self, kind: str, like: dict):
        """Returns (variables, meta) of the newest checkpoint of a kind, without the optimizer of a training state.

        like: {params, batch_stats} as `jax.ShapeDtypeStruct`s with shardings. Raises as `restore` does.
        """
        stored, sharding = self._stored(kind), jax.tree.leaves(like)[0].sharding
        others = {name: value for name, value in stored.items() if name not in like}
        others = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), others)
        fields = {name: value for name, value in like.items() if name in stored or jax.tree.leaves(value)}
        tree, meta = self.restore(kind, {**others, **fields})
        return {name: tree.get(name, {}) for name in like}, meta

    def _stored(self, kind):
        """Returns the top of the tree that a checkpoint holds, its arrays as Orbax's metadata; {} where unreadable."""
        folder = self._root / kind / str(self.step(kind)) / "tree"
        try:
            with self._ocp.StandardCheckpointer() as reader:
                return dict(reader.metadata(folder).item_metadata.tree)
        except Exception:  # whatever a damaged folder leads to: `restore` says what it is
            return {}

    def _restore(self, kind, **args):
        step = self.step(kind)
        if step is None:
            raise InputError(
                f"no checkpoint in {self._root / kind}: train first, or give the workdir of a run that has one"
            )
        folder = self._root / kind / str(step)
        try:
            return self._manager(kind).restore(step, args=self._ocp.args.Composite(**args))
        except Exception as error:
            reason = str(error).strip().split("\n")[0].split(". ")[0][:200]
            if any(text in str(error) for text in OF_ANOTHER_STRUCTURE):
                raise InputError(
                    f"the checkpoint {folder} is whole, but of another model or another version of fer_jax ({reason}): "
                    "it is left as it is; evaluate the run's best checkpoint, and train with another --workdir"
                ) from error
            others = sorted(s for s in self._manager(kind).all_steps() if s != step)
            mend = f"the run goes on from step {others[-1]}" if others else "then train again"
            raise InputError(f"the checkpoint {folder} is damaged ({reason}): delete that folder, {mend}") from error

    def close(self) -> None:
        """Waits for what is being saved and lets go of the files."""
        self.wait()
        for manager in self._managers.values():
            manager.close()
        self._managers = {}


class _SaveErrors:
    """Turns what a failed save raises into one message."""

    def __init__(self, folder, step):
        self._folder, self._step = folder, step

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None or not isinstance(error, Exception):
            return
        text = str(error)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or re.search(
            r"No space left|File too large|RESOURCE_EXHAUSTED|Disk quota", text
        )
        mend = "make room" if full else "mend that"
        reason = "no space left on the disk" if full else text.strip().split("\n")[0][:200]
        raise InputError(
            f"could not save checkpoint {self._step} in {self._folder}: {reason}; {mend} and run the same command "
            "again: earlier checkpoints are intact and the run goes on from the last of them"
        ) from error


def check_space(workdir, needed_bytes: int) -> None:
    """Raises InputError before work starts if the checkpoints of a run cannot fit on the disk of its workdir."""
    folder = pathlib.Path(workdir).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InputError(
            f"{workdir}: the checkpoints need {needed_bytes / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free: "
            "make room, or give a --workdir on another disk"
        )
