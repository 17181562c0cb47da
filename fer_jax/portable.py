"""Saves and loads a trained model as two files that need no workdir: weights as safetensors, and a JSON description.

NAME.safetensors   the parameters and statistics, `params/<layer>/<leaf>` and `batch_stats/<layer>/<leaf>`
NAME.json          the network, its classes, its input, its test-time views and temperature, its figures and its data
"""

import hashlib
import json
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from fer_jax import config as config_lib
from fer_jax import files, models
from fer_jax import views as views_lib
from fer_jax.errors import InputError

FORMAT = 1
SHIPPED = pathlib.Path(__file__).parent / "shipped"
DEFAULT = "small"
KEYS = ("format", "name", "model", "classes", "image_shape", "views", "temperature", "sha256")
FETCH_AGAIN = "fetch both files again from their source"


class Portable(NamedTuple):
    """A model loaded from its files.

    facts: the JSON; model: the linen module; variables: `params` and `batch_stats`, float32 on the host.
    """

    facts: dict
    model: object
    variables: dict


def names() -> tuple[str, ...]:
    """Returns the names of the models that ship with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))


def round_variables(variables) -> dict:
    """Returns variables as `save` stores them: kernels rounded to float16; vectors, which are small, unchanged."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(_dtype(leaf)).astype(np.float32), variables)


def _dtype(leaf):
    return np.float16 if leaf.ndim > 1 else np.float32


def save(path, variables, facts: dict) -> dict:
    """Writes a model as <path>.safetensors and <path>.json; returns the content of the JSON.

    path: without a suffix. variables: `params` and `batch_stats`. facts: the content of the JSON except `format` and
    `sha256`.
    """
    from safetensors import numpy as safetensors

    arrays = {name.replace(".", "/"): np.asarray(leaf) for name, leaf in config_lib.flat(variables).items()}
    stored = {name: leaf.astype(_dtype(leaf)) for name, leaf in arrays.items()}
    content = safetensors.save(stored, metadata={"format": str(FORMAT), "name": facts["name"]})
    facts = {"format": FORMAT, **facts, "sha256": hashlib.sha256(content).hexdigest()}
    with files.atomic_write(f"{path}.safetensors", "wb") as file:
        file.write(content)
    with files.atomic_write(f"{path}.json") as file:
        file.write(json.dumps(facts, indent=2) + "\n")
    return facts


def load(name_or_path) -> Portable:
    """Loads a shipped model by its name, or any model by its path, with or without the suffix.

    Raises:
      InputError: no such model; a file that is missing, corrupt or of another version; weights of another network.
    """
    place = _place(name_or_path)
    facts = _read_facts(place.with_suffix(".json"))
    path = place.with_suffix(".safetensors")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}): {FETCH_AGAIN}") from error
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise InputError(f"{path} is not the file that its .json describes (SHA-256 {facts['sha256']}): {FETCH_AGAIN}")
    views_lib.check(facts["views"])
    model = models.make(config_lib.from_dict({"model": facts["model"]}).model, len(facts["classes"]))
    variables = _fill(_expected(model, facts["image_shape"]), content, path)
    return Portable(facts, model, variables)


def _place(name_or_path):
    text = str(name_or_path)
    if text in names():
        return SHIPPED / text
    path = pathlib.Path(text).expanduser()
    if path.suffix in (".safetensors", ".json"):
        return path
    whole = path.with_name(f"{path.name}.safetensors")
    if whole.is_file():
        return whole
    raise InputError(
        f"there is no model '{text}': give the name of a shipped one ({', '.join(names()) or 'none'}), a .safetensors "
        "file, the workdir of a run or the folder of an ensemble"
    )


def _read_facts(path):
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: a model is a .safetensors file with its .json next to it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): {FETCH_AGAIN}") from error
    lacking = [key for key in KEYS if not isinstance(facts, dict) or key not in facts]
    if lacking:
        raise InputError(f"{path} does not describe a model: it has no {', '.join(lacking)}; {FETCH_AGAIN}")
    if facts["format"] != FORMAT:
        raise InputError(f"{path} has format {facts['format']}, and this version reads {FORMAT}: update fer-jax")
    return facts


def _expected(model, image_shape):
    """Returns {`params/<layer>/<leaf>`: shape}."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, *image_shape), np.uint8), train=False))
    return {name.replace(".", "/"): leaf.shape for name, leaf in config_lib.flat(shapes).items()}


def _fill(shapes, content, path):
    from safetensors import SafetensorError
    from safetensors import numpy as safetensors

    try:
        arrays = safetensors.load(content)
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file ({error}): {FETCH_AGAIN}") from error
    found = {name: array.shape for name, array in arrays.items()}
    if found != shapes:
        different = sorted(name for name in found | shapes if found.get(name) != shapes.get(name))
        raise InputError(f"{path} is not of the network in its .json: {', '.join(different[:3])} differ")
    variables = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        place = variables
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = array.astype(np.float32)
    return variables
