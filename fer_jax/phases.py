"""What is trained when: one phase, or the head first and then more (fine-tuning)."""

import dataclasses
import functools

import jax

from fer_jax import models, optim, steps
from fer_jax import params as params_lib
from fer_jax.errors import InputError
from fer_jax.runtime import remat


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one set of trained parameters and one optimizer.

    first_epoch, last_epoch: from 1, both included; first_step: steps taken before it. frozen: paths of the layers that
    are held; backbone_frozen: all of the backbone is, with its statistics, so its features never change.
    learning_rate: the peak of lr_fn.
    abstract: the training state as shapes.
    """

    first_epoch: int
    last_epoch: int
    first_step: int
    model: object
    frozen: frozenset[str]
    backbone_frozen: bool
    tx: object
    lr_fn: object
    learning_rate: float
    abstract: steps.TrainState


def make(config, classes: int, *, image_shape, steps_per_epoch: int) -> tuple[Phase, ...]:
    """Builds the phases of a run, without computing anything; image_shape: of a face, (H, W, C).

    Raises:
      InputError: whatever in the sections `model` and `optim`, or in `train.rematerialize`, cannot work.
    """
    remat.check(config.train.rematerialize)
    section, tune, epochs = config.optim, config.optim.fine_tune, config.train.epochs
    plain = models.make(config.model, classes)
    params = steps.init_variables.eval_shape(plain, jax.random.key(0), image_shape)["params"]
    frozen = optim.frozen_layers(section, config.model.name, params)
    build = functools.partial(
        _phase, config, classes, image_shape=image_shape, steps_per_epoch=steps_per_epoch, params=params
    )
    if not tune.after_epochs:
        return (build(section, frozen, epochs=(1, epochs)),)
    if not 0 < tune.after_epochs < epochs:
        raise InputError(
            f"optim.fine_tune.after_epochs is {tune.after_epochs} of train.epochs {epochs}: give 1 to {epochs - 1}"
        )
    if not frozen:
        raise InputError("optim.fine_tune has nothing to unfreeze: set optim.freeze, for instance ('backbone',)")
    if tune.learning_rate <= 0:
        raise InputError(f"optim.fine_tune.learning_rate is {tune.learning_rate}: give more than 0")
    still = optim.frozen_before(tune.unfreeze_from, config.model.name, params) | params_lib.select(params, tune.freeze)
    second = section.copy_and_resolve_references()
    second.learning_rate = tune.learning_rate
    return (
        build(section, frozen, epochs=(1, tune.after_epochs)),
        build(second, still, epochs=(tune.after_epochs + 1, epochs)),
    )


def _phase(config, classes, section, frozen, *, epochs, image_shape, steps_per_epoch, params):
    first, last = epochs
    backbone = {path for path in params_lib.layers(params) if path.startswith(optim.BACKBONE)}
    keeps = section.frozen_statistics == "stored"
    backbone_frozen = bool(backbone) and keeps and backbone <= frozen
    model = models.make(config.model, classes, stored=frozen if keeps else frozenset(), backbone_frozen=backbone_frozen)
    tx, lr_fn = optim.make(section, steps_per_epoch=steps_per_epoch, epochs=last - first + 1)
    abstract = steps.abstract_state(model, tx, image_shape, steps.make_shardings()[1], frozen)
    first_step = (first - 1) * steps_per_epoch
    return Phase(first, last, first_step, model, frozen, backbone_frozen, tx, lr_fn, section.learning_rate, abstract)


def of_epoch(phases: tuple[Phase, ...], epoch: int) -> Phase:
    """Returns the phase that an epoch belongs to; before the first epoch that is the first phase."""
    return next(phase for phase in phases if epoch <= phase.last_epoch)
