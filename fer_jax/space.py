"""The search space, specified in text: the values of each parameter, and the config for a choice of values.

A line is `<name> <kind> <values>`:

  width choice 32 64 128                one of these
  optim.learning_rate log 1e-4 1e-2     a number, uniform in its logarithm
  rate float 0.1 0.6                    a number, uniform
  units int 64 512 64                   an integer, uniform, in steps of the third value (default 1)

A name that is a field of the config sets that field; any other name must appear in braces in `model.layers` or
`model.head`, as in "conv {width} relu, dropout {rate}".
"""

import dataclasses
import math
import re

from fer_jax import config as config_lib
from fer_jax.errors import InputError

KINDS = ("choice", "log", "float", "int")
TEXTS = ("model.layers", "model.head")
PLACE = re.compile(r"\{([\w.]+)\}")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One dimension; values: the alternatives of a choice, else (low, high), and for int the step."""

    name: str
    kind: str
    values: tuple

    def suggest(self, trial):
        """Returns the value chosen by an Optuna trial."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.values)
        if self.kind == "int":
            low, high, step = self.values
            return trial.suggest_int(self.name, low, high, step=step)
        return trial.suggest_float(self.name, *self.values, log=self.kind == "log")


def parse(section) -> tuple[dict[str, Parameter], dict]:
    """Reads the config's section `search`; returns ({name: parameter}, {name: value of the first trial}).

    Raises:
      InputError: an invalid line, a duplicate name, or a start outside the space.
    """
    found = {}
    for line in section.space:
        parameter = _parse_line(line)
        if parameter.name in found:
            raise InputError(f"search.space names '{parameter.name}' twice")
        found[parameter.name] = parameter
    start = {}
    for line in section.start:
        name, _, text = line.partition(" ")
        if name not in found:
            raise InputError(f"search.start: '{line}' is not in the space; known are {', '.join(found)}")
        start[name] = _read(found[name], text, f"search.start: '{line}'")
    return found, start


def _parse_line(line):
    name, kind, *words = [*line.split(), "", ""]
    words = [word for word in words if word]
    where = f"search.space: '{line}'"
    if kind not in KINDS or not words:
        raise InputError(f"{where} is not '<name> <kind> <values>'; known kinds are {', '.join(KINDS)}")
    values = tuple(map(_value, words))
    if kind == "choice":
        if len(set(values)) < len(values):
            raise InputError(f"{where} has a choice twice")
        return Parameter(name, kind, values)
    if kind == "int":
        values = (*values, 1)[:3] if len(values) < 4 else values
    if not all(map(_is_number, values)) or len(values) != (3 if kind == "int" else 2) or values[0] >= values[1]:
        raise InputError(
            f"{where} needs a low and a higher number" + (", and may have a step" if kind == "int" else "")
        )
    if kind == "int":
        if not all(isinstance(value, int) for value in values) or values[2] < 1:
            raise InputError(f"{where} needs integers, and a step of 1 or more")
        low, high, step = values
        values = (low, high - (high - low) % step, step)
    if kind == "log" and values[0] <= 0:
        raise InputError(f"{where}: the logarithm needs positive numbers")
    return Parameter(name, kind, values)


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read(parameter, text, where):
    value = _value(text.strip())
    if parameter.kind == "choice":
        inside = value in parameter.values
    else:
        inside = _is_number(value) and parameter.values[0] <= value <= parameter.values[1]
    if inside and parameter.kind == "int":
        inside = isinstance(value, int) and (value - parameter.values[0]) % parameter.values[2] == 0
    if not inside:
        raise InputError(f"{where} is outside '{parameter.name} {parameter.kind} {parameter.values}'")
    return value


def _value(word):
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return {"True": True, "False": False}.get(word, word)


def _word(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def names_in(config) -> set[str]:
    """Returns the names in braces of the config's layers."""
    flat = config_lib.flat(config_lib.to_dict(config))
    return set().union(*(PLACE.findall(flat[name]) for name in TEXTS))


def check(config, space) -> None:
    """Raises InputError if a parameter is unused or does not fit its field, or the layers name an unknown one."""
    fields, used = config_lib.flat(config_lib.to_dict(config)), names_in(config)
    idle = [name for name in space if name not in fields and name not in used]
    if idle:
        raise InputError(f"search.space: {', '.join(idle)} is neither a field nor in braces in the layers")
    missing = sorted(used - set(space))
    if missing:
        raise InputError(f"the layers name {', '.join(missing)} in braces, which search.space does not have")
    trial = config_lib.from_dict(config_lib.to_dict(config))
    for name, parameter in space.items():
        for value in parameter.values[: None if parameter.kind == "choice" else 2] if name in fields else ():
            try:
                trial.update_from_flattened_dict({name: value})
            except (TypeError, ValueError) as error:
                raise InputError(f"search.space: '{name}' cannot be {value!r}: {error}") from error


def fill(config, values: dict):
    """Returns the config of a trial: with the values set, and without the search."""
    trial = config_lib.from_dict(config_lib.to_dict(config))
    fields = config_lib.flat(config_lib.to_dict(config))
    for name in TEXTS:
        trial.update_from_flattened_dict({name: PLACE.sub(lambda found: _word(values[found[1]]), fields[name])})
    trial.update_from_flattened_dict({name: value for name, value in values.items() if name in fields})
    trial.search = config_lib.get_default().search
    return trial
