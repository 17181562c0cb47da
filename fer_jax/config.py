"""The config of a run: the default one, those of files, and those that were saved with runs.

A file in `configs/` starts from `get_default()` and changes what its system changes; `--config.section.field=value`
on the command line changes it again. A name that is not in `fields.FIELDS` is refused. A wheel holds `configs/` as
`fer_jax/configs/`.
"""

import contextlib
import difflib
import hashlib
import importlib.util
import inspect
import json
import pathlib

from ml_collections import config_dict

from fer_jax import fields
from fer_jax.errors import InputError

FORM = "give a config as NAME, FILE.py, NAME:VARIANT or FILE.py:VARIANT"
# Fields that earlier versions had and that a saved config may still hold: they no longer choose anything.
RETIRED = ("model.cpu_path", "log.tensorboard")
# Fields for the places of files and for display: they cannot change a result, so a run may be resumed
# with other values.
FIELDS_WITHOUT_EFFECT = (
    "data.path",
    "data.votes_path",
    "data.cache_dir",
    "train.keep_compiled",
    "train.shard_optimizer",
    "train.checkpoint_every_steps",
    "log",
)


def get_default() -> config_dict.ConfigDict:
    """Returns the default run: R1's model 2 on the drawn faces, or on `data.path` where it is given."""
    config = config_dict.ConfigDict(fields.defaults())
    config.lock()
    return config


def load(name) -> config_dict.ConfigDict:
    """Returns the config of a name or file, or of one of its variants: "lean", "cnn:model_2", "mine/net.py:wide".

    Raises:
      InputError: a name that no config has, a file that does not exist, raises or has no `get_config`; a variant that
        it does not know.
    """
    name, _, variant_name = str(name).partition(":")
    path = find(name)
    args, get_config = [variant_name] if variant_name else [], getattr(load_module(path), "get_config", None)
    if get_config is None:
        raise InputError(f"{path} has no get_config(): see docs/training.md for one")
    try:
        inspect.signature(get_config).bind(*args)
    except TypeError:
        fix = f"leave ':{variant_name}' out" if args else "name one, as FILE:VARIANT"
        raise InputError(f"{path} has {'no' if args else 'only'} variants: {fix}") from None
    with _naming(path):
        config = get_config(*args)
        config.lock()
        return config


def find(name: str) -> pathlib.Path:
    """Returns the file of a config: a path to a .py file, or the name of one in ./configs or of the package's own.

    Raises:
      InputError: neither; the message lists the names that are known.
    """
    if name.endswith(".py"):
        if pathlib.Path(name).is_file():
            return pathlib.Path(name)
        stem = pathlib.Path(name).stem
        hint = f"; the package has one of that name: --config {stem}" if stem in known() else f": {FORM}"
        raise InputError(f"{name} not found{hint}")
    if name not in known():
        near = difflib.get_close_matches(pathlib.Path(name).stem, known(), 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no config is named '{name}': {hint}{FORM}; known are {', '.join(sorted(known()))}")
    return known()[name]


def known() -> dict[str, pathlib.Path]:
    """Returns {name: file} of the configs in ./configs and of the package's own; the former win."""
    inside = pathlib.Path(__file__).parent / "configs"
    folders = (inside if inside.is_dir() else inside.parents[1] / "configs", pathlib.Path("configs"))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("[!_]*.py"))}


def load_module(path):
    """Returns the module of a config file. Raises InputError if the file does not exist, or raises."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} not found: {FORM}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with _naming(path):
        spec.loader.exec_module(module)
    return module


def load_neighbour(file: str, name: str):
    """Returns the module of the config `name` in the folder of the config `file`. Raises as `load_module` does."""
    return load_module(pathlib.Path(file).with_name(f"{name}.py"))


@contextlib.contextmanager
def _naming(path):
    """Turns what the code of a config file raises into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def to_dict(config) -> dict:
    """Returns the config as nested dicts of JSON values (tuples become lists)."""
    return json.loads(config.to_json())


def from_dict(saved: dict) -> config_dict.ConfigDict:
    """Returns the config that `to_dict` came from.

    Raises:
      InputError: a field that this version does not know, or one of another type.
    """
    config = get_default()
    known = flat(to_dict(config))
    given = {name: value for name, value in flat(saved).items() if name not in RETIRED}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(
            f"the saved config has fields that this version of fer_jax does not know: {', '.join(unknown)}"
        )
    with config.unlocked():
        try:
            config.update_from_flattened_dict(
                {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"the saved config has a field of another type: {error}") from error
    return config


def result_fields(saved: dict, prefix: str = "") -> dict:
    """Returns a saved config without the fields that cannot change a result."""
    kept = {}
    for name, value in saved.items():
        if not (prefix + name).startswith(FIELDS_WITHOUT_EFFECT):
            kept[name] = result_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else value
    return kept


def differences(old: dict, new: dict) -> list[str]:
    """Returns a line for each field that can change a result and differs: 'optim.learning_rate: 0.001, now 0.01'."""
    old, new = flat(result_fields(old)), flat(result_fields(new))
    return [
        f"{name}: {old.get(name, 'absent')!r}, now {new.get(name, 'absent')!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def digest(config) -> str:
    """Returns 8 hex digits that change with every field that can change a result."""
    kept = result_fields(to_dict(config))
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def flat(tree: dict, prefix: str = "") -> dict:
    """Returns the leaves of a nested dict as {'section.field': value}."""
    leaves = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def variant(name: str, known: dict):
    """Returns known[name]. Raises InputError that lists the variants of a config file if the name is not one."""
    if name not in known:
        raise InputError(f"unknown variant '{name}' of this config; known are {', '.join(known)}")
    return known[name]
