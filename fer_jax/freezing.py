"""Training phases: which parameters are trained when, in one phase, or first the head and then more (fine-tuning)."""

import dataclasses
import functools

import jax

from fer_jax import models, optim, steps
from fer_jax import params as params_lib
from fer_jax.errors import InputError
from fer_jax.runtime import remat

FROZEN_STATISTICS = ("stored", "updated")
BACKBONE = "backbone/"


@dataclasses.dataclass(frozen=True)
class PhasePlan:
    """Consecutive epochs with the same set of trained parameters.

    config: of the run, with this phase's learning rate. first_epoch, last_epoch: from 1, both included. image_shape: of
    a face, (H, W, C). frozen: paths of the frozen layers; backbone_frozen: whether all of the backbone is frozen, with
    its statistics, so that its features never change.
    """

    config: object
    first_epoch: int
    last_epoch: int
    image_shape: tuple[int, int, int]
    model: object
    frozen: frozenset[str]
    backbone_frozen: bool


@dataclasses.dataclass(frozen=True)
class Phase(PhasePlan):
    """A phase of a training, with its optimizer.

    first_step: steps taken before it.
    """

    first_step: int
    tx: object
    lr_fn: object

    @functools.cached_property
    def abstract(self) -> steps.TrainState:
        """The train state as shapes, on all devices."""
        return steps.abstract_state(self, steps.make_shardings()[1])

    @property
    def shardings(self) -> steps.TrainState:
        """The shardings of the train state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

    @property
    def learning_rate(self) -> float:
        """The peak of the schedule."""
        return self.config.optim.learning_rate


def make_phases(config, classes: int, *, image_shape, steps_per_epoch: int) -> tuple[Phase, ...]:
    """Builds the phases of a run, without computing anything; image_shape: of a face, (H, W, C).

    Raises:
      InputError: anything invalid in the sections `model` and `optim`, or in `train.rematerialize`.
    """
    remat.check(config.train.rematerialize)
    phases = []
    for plan in make_plans(config, classes, image_shape=image_shape):
        epochs = plan.last_epoch - plan.first_epoch + 1
        tx, lr_fn = optim.make(plan.config.optim, steps_per_epoch=steps_per_epoch, epochs=epochs)
        first_step = (plan.first_epoch - 1) * steps_per_epoch
        phase = Phase(**vars(plan), first_step=first_step, tx=tx, lr_fn=lr_fn)
        _ = phase.abstract  # raises if the network cannot be traced
        phases.append(phase)
    return tuple(phases)


def make_plans(config, classes: int, *, image_shape) -> tuple[PhasePlan, ...]:
    """Returns the phases without optimizers. Raises as `make_phases`."""
    tune, epochs = config.optim.fine_tune, config.train.epochs
    plain = models.make(config.model, classes)
    params = steps.init_variables.eval_shape(plain, jax.random.key(0), image_shape)["params"]
    frozen = frozen_layers(config.optim, config.model.name, params)
    make_plan = functools.partial(_make_plan, classes=classes, image_shape=image_shape, params=params)
    if not tune.after_epochs:
        return (make_plan(config, frozen, epochs=(1, epochs)),)
    if not 0 < tune.after_epochs < epochs:
        raise InputError(
            f"optim.fine_tune.after_epochs is {tune.after_epochs} of train.epochs {epochs}: give 1 to {epochs - 1}"
        )
    if not frozen:
        raise InputError("optim.fine_tune has nothing to unfreeze: set optim.freeze, for instance ('backbone',)")
    still = frozen_before(tune.unfreeze_from, config.model.name, params) | params_lib.select(params, tune.freeze)
    second = config.copy_and_resolve_references()
    second.optim.learning_rate = tune.learning_rate
    return (
        make_plan(config, frozen, epochs=(1, tune.after_epochs)),
        make_plan(second, still, epochs=(tune.after_epochs + 1, epochs)),
    )


def _make_plan(config, frozen, *, classes, image_shape, params, epochs):
    has_backbone = models.has_backbone(config.model.name)
    backbone = {path for path in params_lib.layers(params) if has_backbone and path.startswith(BACKBONE)}
    keeps = config.optim.frozen_statistics == "stored"
    backbone_frozen = bool(backbone) and keeps and backbone <= frozen
    model = models.make(config.model, classes, stored=frozen if keeps else frozenset(), backbone_frozen=backbone_frozen)
    return PhasePlan(config, *epochs, image_shape, model, frozen, backbone_frozen)


def phase_of(phases, meta: dict) -> int:
    """Returns the number of the phase (or plan) in which a checkpoint with this `meta` was saved."""
    if "phase" in meta:
        return meta["phase"]
    return next(i for i, phase in enumerate(phases) if meta["epoch"] <= phase.last_epoch)  # of an earlier version


def frozen_layers(section, model: str, params: dict) -> frozenset[str]:
    """Returns the paths of the layers that `optim.freeze` and `optim.freeze_first_layers` freeze; () for none.

    Args:
      section: the config section `optim`.
      model: the name of the network, for Keras's layer numbers.
      params: its parameters, or their shapes.

    Raises:
      InputError: a pattern without a match, a network without Keras's layer numbers, or nothing left to train.
    """
    if section.frozen_statistics not in FROZEN_STATISTICS:
        raise InputError(
            f"optim.frozen_statistics is '{section.frozen_statistics}'; known are {', '.join(FROZEN_STATISTICS)}"
        )
    frozen = params_lib.select(params, section.freeze)
    if section.freeze_first_layers:
        frozen |= _first_layers(section.freeze_first_layers, model) & params_lib.layers(params).keys()
    if frozen == params_lib.layers(params).keys():
        raise InputError("optim.freeze freezes every layer: leave one to train, for instance the head")
    return frozen


def _first_layers(count, model):
    layers = models.layer_order(model)
    if not layers or layers[0].number is None:
        raise InputError(f"optim.freeze_first_layers: Keras has no network '{model}': use optim.freeze")
    first = {BACKBONE + layer.name for layer in layers if layer.number < count}
    if not first:
        raise InputError(f"optim.freeze_first_layers is {count}: the first layer with weights is {layers[0].number}")
    return first


def frozen_before(name: str, model: str, params: dict) -> frozenset[str]:
    """Returns the paths of a backbone's layers before the named one in Keras's order; '' freezes nothing.

    Raises:
      InputError: the backbone has no such layer.
    """
    if not name:
        return frozenset()
    names = [layer.name for layer in models.layer_order(model) if BACKBONE + layer.name in params_lib.layers(params)]
    if name not in names:
        some = ", ".join([*names[:3], "...", *names[-3:]]) if names else "none: this network has no Keras order"
        raise InputError(f"optim.fine_tune.unfreeze_from: {model} has no layer '{name}' with weights; it has {some}")
    return frozenset(BACKBONE + before for before in names[: names.index(name)])
