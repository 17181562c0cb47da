"""A model, a loss or an optimizer from a user's own Python file, named in the config as FILE.py:NAME.

A run records each file with its SHA-256 digest in run.json and keeps a copy, `<workdir>/sources/<8 digits>/<file>`, in
case the file is changed or deleted later. docs/extending.md specifies the objects.
"""

import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import sys
import traceback
import types

from fer_jax import files
from fer_jax.errors import InputError

SECTIONS = ("model", "loss", "optim")  # config sections whose field `name` may name a file
FORM = "FILE.py:NAME"
FOLDER = "sources"  # of a workdir
logger = logging.getLogger("fer_jax")


def names_file(name: str) -> bool:
    """Whether a name in the config refers to an object in a user's file."""
    return ".py:" in name or name.endswith(".py")


def load(name: str, field: str):
    """Returns the object FILE.py:NAME; a file is run once per process, and again if its text has changed.

    Args:
      name: FILE is relative to the current directory or absolute, and may begin with `~`.
      field: of the config, for messages, such as 'model.name'.

    Raises:
      InputError: no such file, a file that raises (with line and error), or no such name in it (with those it has).
    """
    path, attribute = _split(name, field)
    module = _run(path, _read(path, field), field)
    if attribute not in vars(module):
        raise InputError(f"{field}: {path} has no '{attribute}'; it has {', '.join(_public(module)) or 'no names'}")
    return vars(module)[attribute]


def digest(name: str, field: str) -> str:
    """Returns the SHA-256 digest, 64 hex digits, of the file in FILE.py:NAME. Raises as `load`."""
    return _digest(_read(_split(name, field)[0], field))


def wrong_kind(name: str, field: str, found, wanted: str) -> InputError:
    """Returns the error for an object of the wrong kind."""
    kind = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
    return InputError(f"{field}: {name} is {kind}; it must be {wanted} (docs/extending.md)")


@contextlib.contextmanager
def errors_of(name: str, field: str):
    """Converts exceptions from a user's object into an InputError with the file, the line and the error."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{field}: {name} fails, {_where(error, _split(name, field)[0])}") from error


def _split(name, field):
    """Returns (absolute path, name in the file)."""
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py") or not attribute.isidentifier():
        raise InputError(f"{field} is '{name}': give a file as {FORM}")
    return os.path.abspath(os.path.expanduser(file)), attribute


def _read(path, field):
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{field}: {path} cannot be read ({error.strerror}): give a Python file") from error


def _digest(text):
    return hashlib.sha256(text).hexdigest()


@functools.cache
def _run(path, text, field):
    """Runs a file's text as a module with a unique name, so that pickle and dataclasses find it; returns the module."""
    name = f"{pathlib.Path(path).stem}_{_digest(path.encode() + text)[:16]}"
    if name in sys.modules:  # loaded for another field
        return sys.modules[name]
    module = types.ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    try:
        exec(compile(text, path, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"{field}: {path} cannot be loaded, {_where(error, path)}") from error
    return module


def _where(error, path):
    """Returns 'line 3: ValueError: ...', with the file's last line in the error's traceback."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines = [error.lineno]
    text = error.msg if isinstance(error, SyntaxError) else str(error).strip().split("\n")[0]
    return (f"line {lines[-1]}: " if lines else "") + f"{type(error).__name__}: {text}".removesuffix(": ")


def _public(module):
    """Returns the public names defined in a file itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and not (isinstance(value, type | types.FunctionType) and value.__module__ != module.__name__)
    ]


def names_in(saved: dict) -> dict[str, str]:
    """Returns {field: FILE.py:NAME} of a config from `config.to_dict`.

    The files of an average's members have fields such as 'model.member_models.0.name'.
    """
    found = {}

    def note(field, name):
        found[field] = name
        return name

    _change_names(saved, note)
    return found


def record(saved: dict) -> dict:
    """Returns {field: {"file": absolute path, "digest": SHA-256}} of the files that a config names.

    Raises as `load`.
    """
    return {
        field: {"file": _split(name, field)[0], "digest": digest(name, field)}
        for field, name in names_in(saved).items()
    }


def differences(before: dict, now: dict) -> list[str]:
    """Returns one line per file whose text differs between two records: 'model.name: <file> has the digest ...'."""
    return [
        f"{field}: {now[field]['file']} has the digest {now[field]['digest']}, and it was {before[field]['digest']}"
        for field in sorted(before.keys() & now.keys())
        if before[field]["digest"] != now[field]["digest"]
    ]


def without_folders(saved: dict) -> dict:
    """Returns a config whose files are named without their folders, since digests distinguish files."""
    return _change_names(saved, lambda _, name: name.replace("\\", "/").rpartition("/")[2])


def keep(sources: dict, workdir) -> None:
    """Copies the files of a record into a workdir. Raises OSError if it cannot be written."""
    for source in sources.values():
        copy = _copy(source, workdir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(copy, "wb") as file:
            file.write(pathlib.Path(source["file"]).read_bytes())


def locate(saved: dict, sources: dict, workdir) -> dict:
    """Returns the config of a run with the present paths of its files.

    These are the original paths for unchanged files, else the copies in the workdir, which is logged.

    Args:
      saved: the config from `config.to_dict`.
      sources: what `record` returned when the run was started.
      workdir: of the run.

    Raises:
      InputError: neither place has a file with the recorded text.
    """

    def find(field, name):
        if field not in sources:
            return name
        source, attribute = sources[field], name.rpartition(":")[2]
        copy = _copy(source, workdir)
        state = _state(source["file"], source["digest"])
        if not state:
            return f"{source['file']}:{attribute}"
        state_of_copy = _state(copy, source["digest"])
        if state_of_copy:
            raise InputError(
                f"{field}: {source['file']} {state} since {workdir} was trained, and its copy {copy} {state_of_copy}: "
                f"restore the file with the SHA-256 digest {source['digest']} in one of these places"
            )
        _say_once(f"{source['file']} {state} since {workdir} was trained: its copy {copy} is used")
        return f"{copy}:{attribute}"

    return _change_names(saved, find)


def _copy(source, workdir):
    """Returns the path of the copy of a file, which has its digest, since two files may have the same name."""
    return pathlib.Path(workdir).absolute() / FOLDER / source["digest"][:8] / pathlib.Path(source["file"]).name


def _state(path, digest):
    """Returns the state of a file in words; '' if it still has the given digest."""
    try:
        return "" if _digest(pathlib.Path(path).read_bytes()) == digest else "has changed"
    except OSError:
        return "is gone"


@functools.cache
def _say_once(message):
    logger.info("%s", message)


def _change_names(saved, change):
    """Returns a config with each FILE.py:NAME replaced by `change(field, name)`."""

    def in_section(section, field):
        section = dict(section)
        if names_file(section.get("name", "")):
            section["name"] = change(f"{field}.name", section["name"])
        if section.get("member_models"):
            section["member_models"] = [
                in_section(member, f"{field}.member_models.{number}")
                for number, member in enumerate(section["member_models"])
            ]
        return section

    return {**saved, **{name: in_section(saved[name], name) for name in SECTIONS if name in saved}}
