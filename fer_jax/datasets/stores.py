"""Folders, zip, tar and compressed files behind one interface: a tree of names whose files can be opened.

Names are relative and use `/`. What operating systems leave behind (`__MACOSX`, hidden files) is not listed.
"""

import abc
import bz2
import contextlib
import csv
import gzip
import lzma
import pathlib
import posixpath
import tarfile
import zipfile
import zlib

from fer_jax.errors import InputError

# The first bytes of a compressed file, and what unpacks it.
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, csv.Error)
_DAMAGE += (UnicodeDecodeError,)  # zipfile: a name that is not the UTF-8 that it says it is


@contextlib.contextmanager
def reading(label):
    """Turns the errors of a corrupt, unreadable or missing file into one InputError that names it."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{label}: there is no such file.") from error
    except IsADirectoryError as error:
        raise InputError(f"{label} is a folder: give a file.") from error
    except PermissionError as error:
        raise InputError(f"{label} cannot be read: permission denied.") from error
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__)[:200]  # zipfile quotes names of up to 64 KiB
        raise InputError(
            f"{label} cannot be read ({reason}). It may be corrupt or incomplete: download or copy it again."
        ) from error
    except (NotImplementedError, RuntimeError) as error:  # zipfile: unknown compression, encryption
        raise InputError(f"{label} cannot be unpacked ({str(error)[:200]}). Unpack it and give the folder.") from error


def sniff(head: bytes) -> str:
    """Returns 'zip', 'tar', 'compressed' or '' for a file that begins with `head`, its first 512 bytes."""
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return "zip"
    if head.startswith(tuple(_COMPRESSED)):
        return "compressed"
    return "tar" if head[257:262] == b"ustar" else ""


def _clean(name):
    """Returns the name of an archive's member relative to the archive's top, and not above it."""
    return posixpath.normpath(f"/{name}").lstrip("/")


def _is_junk(name):
    return name.startswith(".") or name == "__MACOSX"


class Store(abc.ABC):
    """A tree of files; `label` is how messages name it."""

    label: str

    @abc.abstractmethod
    def list(self, folder=""):
        """Returns (folder names, file names) directly inside `folder`, both sorted."""

    @abc.abstractmethod
    def open(self, name):
        """Returns file `name` as a binary stream."""

    def files_to_depth_two(self):
        """Yields the files at the top, then those one level of folders down."""
        folders, files = self.list()
        yield from files
        for folder in folders:
            yield from (posixpath.join(folder, name) for name in self.list(folder)[1])

    def in_storage_order(self, names):
        """Returns `names` in the order in which they are cheapest to open."""
        return names

    def head(self, name, *, size=512):
        """Returns the first `size` bytes of file `name`."""
        with reading(f"{self.label}: {name}"), self.open(name) as stream:
            return stream.read(size)


class FolderStore(Store):
    """A folder on disk."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.label = str(root)

    def list(self, folder=""):
        """See Store.list; raises InputError for an unreadable folder."""
        folders, files = [], []
        with reading(str(self.root / folder)):
            for entry in (self.root / folder).iterdir():
                if not _is_junk(entry.name):
                    (folders if entry.is_dir() else files).append(entry.name)
        return sorted(folders), sorted(files)

    def open(self, name):
        """See Store.open."""
        return open(self.root / name, "rb")


class _Archive(Store):
    """An archive with an index of names, made when first needed."""

    def __init__(self, label):
        self.label = label
        self._members = None
        self._tree = {}

    @abc.abstractmethod
    def _index(self):
        """Returns {name: member} of the files."""

    def _load(self):
        if self._members is not None:
            return
        with reading(self.label):
            members = {_clean(name): member for name, member in self._index().items()}
        self._members = {n: m for n, m in members.items() if n and not any(map(_is_junk, n.split("/")))}
        for name in self._members:
            parent, base = posixpath.split(name)
            self._tree.setdefault(parent, (set(), set()))[1].add(base)
            while parent:
                parent, base = posixpath.split(parent)
                self._tree.setdefault(parent, (set(), set()))[0].add(base)

    def list(self, folder=""):
        """See Store.list."""
        self._load()
        folders, files = self._tree.get(folder, ((), ()))
        return sorted(folders), sorted(files)


class ZipStore(_Archive):
    """A zip file, on disk or inside another archive."""

    def __init__(self, stream, label):
        super().__init__(label)
        with reading(label):
            self._zip = zipfile.ZipFile(stream)

    def _index(self):
        return {info.filename: info for info in self._zip.infolist() if not info.is_dir()}

    def open(self, name):
        """See Store.open."""
        self._load()
        return self._zip.open(self._members[name])


class TarStore(_Archive):
    """A tar file, also compressed, on disk or inside another archive."""

    def __init__(self, stream, label):
        super().__init__(label)
        with reading(label):
            self._tar = tarfile.open(fileobj=stream, mode="r:*")  # noqa: SIM115

    def _index(self):
        return {member.name: member for member in self._tar.getmembers() if member.isfile()}

    def files_to_depth_two(self):
        """See Store.files_to_depth_two; in the archive's order, since a compressed tar has no index."""
        with reading(self.label):
            for member in self._tar:
                parts = _clean(member.name).split("/")
                if member.isfile() and len(parts) <= 2 and not any(map(_is_junk, parts)):
                    yield "/".join(parts)

    def open(self, name):
        """See Store.open; files are cheapest in the archive's order."""
        member = self._members[name] if self._members is not None else self._find(name)
        return self._tar.extractfile(member)

    def in_storage_order(self, names):
        """See Store.in_storage_order: going back in a compressed tar means unpacking it again."""
        self._load()
        return sorted(names, key=lambda name: self._members[name].offset)

    def _find(self, name):
        # Not getmember: it would first read the archive to its end.
        return next(member for member in self._tar if _clean(member.name) == name)


class CompressedStore(Store):
    """One file, compressed by gzip, bzip2 or xz; its name is that of the compressed one, without its ending."""

    def __init__(self, stream, label, name, unpack):
        self.label = label
        self._stream, self._name, self._unpack = stream, posixpath.splitext(name)[0], unpack

    def list(self, folder=""):
        """See Store.list."""
        return [], [] if folder else [self._name]

    def open(self, name):
        """See Store.open."""
        self._stream.seek(0)
        return self._unpack(self._stream)


@contextlib.contextmanager
def open_store(path, inside=()):
    """Opens the folder or archive `path`, and from there the archives `inside` each other; yields a Store."""
    path = pathlib.Path(path)
    if path.is_dir():
        yield FolderStore(path)
        return
    with contextlib.ExitStack() as stack:
        with reading(str(path)):
            stream = stack.enter_context(open(path, "rb"))
        store = _open_archive(stream, str(path), path.name)
        for name in inside:
            label = f"{store.label} > {name}"
            with reading(label):
                stream = stack.enter_context(store.open(name))
            store = _open_archive(stream, label, posixpath.basename(name))
        yield store


def _open_archive(stream, label, name):
    with reading(label):
        head = stream.read(512)
        kind = sniff(head)
        stream.seek(0)
    if not kind:
        raise InputError(f"{label} is neither a zip nor a tar file.")
    if kind == "compressed":
        unpack = next(unpack for start, unpack in _COMPRESSED.items() if head.startswith(start))
        if not _holds_tar(unpack, stream, label):
            return CompressedStore(stream, label, name, unpack)
    return (ZipStore if kind == "zip" else TarStore)(stream, label)


def _holds_tar(unpack, stream, label):
    with reading(label), unpack(stream) as unpacked:
        head = unpacked.read(512)
    stream.seek(0)
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
