"""Finds a user's faces by content: a table (CSV), packed faces or class folders, also inside archives."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib

from fer_jax import pictures
from fer_jax.datasets import class_folders, mosaics, stores, tables
from fer_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the faces are.

    name: 'fer2013' or 'class_folders'; path: a file or folder on disk; inside: archives within it, from the
    outside in; table: the CSV within the last of them ('' where `path` is the CSV itself); mosaic: the picture of a
    packed table, of which `path` and `inside` are the folder or archive; tree: the class folders, None for a table;
    others: further candidates, which are not used.
    """

    name: str
    path: pathlib.Path
    inside: tuple[str, ...] = ()
    table: str = ""
    mosaic: str = ""
    tree: class_folders.Tree | None = None
    others: tuple[str, ...] = ()

    @property
    def label(self):
        """The source as messages name it."""
        place = self.tree.folder if self.tree else self.table
        if self.path.is_dir():
            return str(self.path / place)
        return " > ".join([str(self.path), *self.inside] + ([place] if place else []))

    @contextlib.contextmanager
    def open_table(self):
        """Opens the CSV; yields a binary stream."""
        if not self.table:
            with stores.reading(self.label):
                stream = open(self.path, "rb")  # noqa: SIM115
            with stream:
                yield stream
            return
        with stores.open_store(self.path, self.inside) as store:
            with stores.reading(self.label):
                stream = store.open(self.table)
            with stream:
                yield stream

    def table_bytes(self):
        """Returns the size of the CSV, None inside an archive."""
        return None if self.table else self.path.stat().st_size

    def open_store(self):
        """Opens the folder or archive that holds the class folders or packed faces; yields a Store."""
        return stores.open_store(self.path, self.inside)

    def signature(self, *more) -> str:
        """Returns 16 hex digits of the paths, sizes and times of the source's files and of `more` files."""
        files = [str(self.path)]
        if self.path.is_dir():
            names = [file for _, _, file in self.tree.files()] if self.tree else [self.table, self.mosaic]
            files = [os.path.join(self.path, name) for name in names]
        stats = []
        for file in (*files, *more):
            with stores.reading(file):
                stat = os.stat(file)
            stats.append((stat.st_size, stat.st_mtime_ns))
        place = [str(self.path.absolute()), self.inside, self.table, self.tree and self.tree.folder]
        return hashlib.sha256(json.dumps([place, files, more, stats]).encode()).hexdigest()[:16]


def find(path, *, name="auto") -> Source:
    """Finds the faces at `path`, a file or a folder; a folder is looked at with one level of subfolders.

    Tables come before class folders, these before archives, and within each kind the order is by depth and
    name. With `name` 'class_folders' tables do not count, with 'fer2013' other class folders do not. Raises
    InputError if nothing fits, with what was seen.
    """
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise InputError(f"data.path: {path} does not exist.")
    misses = []
    searchable = path.is_dir() or _is_archive(path)
    source = _search(path, (), name, misses) if searchable else _table(path, name)
    if source is None:
        raise InputError(_nothing_found(path, name, misses))
    if source.tree is not None:
        source.tree.check(source.label)
    return source


def _is_archive(path):
    with stores.reading(str(path)), open(path, "rb") as stream:
        return bool(stores.sniff(stream.read(512)))


def _table(path, name):
    with stores.reading(str(path)), open(path, "rb") as stream:
        head = stream.read(512)
    if tables.columns(head) is None:
        raise InputError(f"{path}: {tables.wrong_header(head)}")
    if name == "class_folders":
        raise InputError(f"{path} is a FER-2013 table, not class folders: set --config.data.name=fer2013.")
    return Source("fer2013", path)


def _search(path, inside, name, misses):
    """Returns the first Source in a folder or archive, or None; what nearly fits is added to `misses`."""
    on_disk = path.is_dir()
    with stores.open_store(path, inside) as store:
        found, archives = _sort_files(store, name, misses)
        # Listing a compressed tar means unpacking all of it, which is not needed once its table is found.
        trees = [] if found and isinstance(store, stores.TarStore) else _trees(store, name, misses)
    others = (*found, *(tree.folder or "class folders" for tree in trees))[1:] + tuple(archives)
    if found:
        table, mosaic = next(iter(found.items()))
        if on_disk and not mosaic:
            return Source("fer2013", path / table, others=others)
        return Source("fer2013", path, inside, table=table, mosaic=mosaic, others=others)
    if trees:
        is_fer2013 = name != "class_folders" and trees[0].is_fer2013()
        return Source("fer2013" if is_fer2013 else "class_folders", path, inside, tree=trees[0], others=others)
    # The copies in use are nested no deeper than a zip around a tar.gz.
    for position, archive in enumerate(() if inside else archives):
        place = (path / archive, ()) if on_disk else (path, (*inside, archive))
        source = _search(*place, name, misses)
        if source is not None:
            others = source.others + tuple(archives[position + 1 :])
            return dataclasses.replace(source, others=others)
    return None


def _sort_files(store, name, misses):
    """Returns ({table: its mosaic or ''}, archives): the files at the top and one level down, by their first bytes."""
    found, archives = {}, []
    for file in store.files_to_depth_two():
        if file.lower().endswith(pictures.PICTURE_SUFFIXES):
            continue
        head = store.head(file)
        if stores.sniff(head):
            archives.append(file)
        elif tables.columns(head) is None and not (mosaic := mosaics.picture_of(store, file, head)):
            if file.lower().endswith(".csv"):
                misses.append(f"{store.label}: {file}: {tables.wrong_header(head)}")
        elif name == "class_folders":
            misses.append(f"{store.label}: {file}: a FER-2013 table, not class folders.")
        else:
            found[file] = "" if tables.columns(head) else mosaic
            if isinstance(store, stores.TarStore):
                break
    return found, archives


def _trees(store, name, misses):
    trees = class_folders.find(store)
    if not trees and (folder := class_folders.lone_class(store)):
        misses.append(f"{store.label}: {folder}: pictures in one folder; there must be a folder for each class.")
    if name == "fer2013":
        for tree in trees:
            if not tree.is_fer2013():
                misses.append(f"{store.label}: {tree.why_not_fer2013()}")
        trees = [tree for tree in trees if tree.is_fer2013()]
    return trees


def _nothing_found(path, name, misses):
    wanted = {
        "fer2013": f"FER-2013: a table with the header {tables.ACCEPTED_HEADERS}, packed faces "
        f"({mosaics.TABLE} and {mosaics.PICTURE}), class folders with its file names (Training_0.jpg ...), or a zip or "
        "tar of any of them",
        "class_folders": "class folders: <class>/* or train/<class>/*, also val and test",
    }
    wanted["auto"] = f"{wanted['fer2013']}; or {wanted['class_folders']}"
    seen = "".join(f"\n  {miss}" for miss in misses[:20])
    return f"data.path: {path} holds no {wanted[name]}." + (f" Seen:{seen}" if seen else "")
