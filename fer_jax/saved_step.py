"""Reads one saved step of a run, with its checksums verified."""

import functools
import re

import jax

from fer_jax import integrity
from fer_jax import steps as steps_lib
from fer_jax.errors import InputError

CHECKSUMS = "checksums"  # their key in a step's metadata; earlier versions wrote none
# Orbax's messages if arrays are present but are not those requested.
OF_ANOTHER_STRUCTURE = ("structures do not match", "is not compatible with the stored shape")
# Errors that are not the checkpoint's: memory, permissions, open files.
UNREADABLE = r"RESOURCE_EXHAUSTED|PERMISSION_DENIED|Permission denied|Too many open files"


class SavedStep:
    """A step that Orbax saved in `folder`: a tree of arrays and a dict of metadata.

    Methods raise `integrity.Corrupt`, in all processes of a training if in one.
    """

    def __init__(self, folder):
        self.folder = folder

    def read_meta(self):
        """Returns the metadata and the checksums of the arrays, None if an earlier version saved the step."""
        return integrity.agreed(self._read_meta)

    def _read_meta(self):
        meta = dict(self._restore("meta"))
        checksums = meta.pop(CHECKSUMS, None)
        if checksums is None:
            return meta, None
        try:
            is_intact, arrays = checksums["meta"] == integrity.json_checksum(meta), dict(checksums["arrays"])
        except (KeyError, TypeError, ValueError):
            is_intact = False
        if not is_intact:
            raise integrity.Corrupt("its metadata differ from those saved")
        return meta, arrays

    def read_tree(self, like, checksums, of_the_model=None):
        """Returns the tree of arrays.

        like: a tree of `jax.ShapeDtypeStruct`s with shardings; None restores it as saved, on one device. checksums: of
        `read_meta`. of_the_model: the part of `like` that decides whether the step is of another model; None: all.

        Raises:
          InputError: the step is intact, but of another model or version; or it cannot be read for want of memory,
            permissions or open files.
        """
        like = like or self._as_saved()
        if checksums is not None and like is not None:
            self._check_model(checksums, like if of_the_model is None else of_the_model, of_the_model is not None)
        restore = functools.partial(self._restore, "tree", like, compared=checksums is not None)
        tree = integrity.agreed(restore)
        if checksums is not None:
            integrity.agreed(functools.partial(integrity.check, tree, checksums))
        return tree

    def _check_model(self, checksums, wanted, is_part):
        """Rejects a step whose arrays are not the wanted ones; is_part: it may have further fields."""
        types = {name: integrity.array_type(leaf) for name, leaf in integrity.named(wanted)}
        saved = integrity.types(checksums)
        if is_part:
            saved = {name: text for name, text in saved.items() if name.partition("/")[0] in wanted}
        if types != saved:
            name = min(name for name in types | saved if types.get(name) != saved.get(name))
            raise self._other_model(f"{name}: {saved.get(name, 'nothing')} there, {types.get(name, 'nothing')} wanted")

    def fields(self) -> dict:
        """Returns the top level of the tree, with arrays as Orbax's metadata; {} if unreadable."""
        import orbax.checkpoint as ocp

        try:
            with ocp.StandardCheckpointer() as reader:
                return dict(reader.metadata(self.folder / "tree").item_metadata.tree)
        except Exception:  # a corrupt folder can raise anything; reading it reports the error
            return {}

    def _as_saved(self):
        """Returns the content as a `like`, without which checkpoints of several processes cannot be read."""
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return steps_lib.with_sharding(self.fields(), one) or None

    def _restore(self, item, like=None, *, compared=True):
        """Restores 'meta', or 'tree' into `like`; compared: whether its structure is known to be the requested one.

        The checkpoint manager is not used: it synchronizes all processes after reading, and one that finds the files
        corrupt would not arrive.
        """
        import orbax.checkpoint as ocp

        try:
            if item == "meta":
                return ocp.JsonCheckpointHandler().restore(self.folder / item, args=ocp.args.JsonRestore())
            return ocp.StandardCheckpointHandler().restore(self.folder / item, args=ocp.args.StandardRestore(like))
        except Exception as error:
            reason = str(error).strip().split("\n")[0].split(". ")[0][:200] or type(error).__name__
            if not compared and any(text in str(error) for text in OF_ANOTHER_STRUCTURE):
                raise self._other_model(reason) from error
            if isinstance(error, MemoryError) or re.search(UNREADABLE, str(error)):
                raise InputError(f"{self.folder} cannot be read ({reason}): fix that first") from error
            raise integrity.Corrupt(reason) from error

    def _other_model(self, reason):
        return InputError(
            f"the checkpoint {self.folder} is intact, but of another model or another version of fer_jax ({reason}): "
            "it is not changed; evaluate the run's best checkpoint, and train with another --workdir"
        )
