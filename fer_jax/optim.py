"""Learning-rate schedules and optimizers: the config section to `(tx, lr_fn)`."""

import optax

from fer_jax import params as params_lib
from fer_jax.errors import InputError

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "exponential", "cosine")
ADAM_EPSILON = 1e-7  # Keras's, which the reports used; optax's own default is 1e-8


def make_schedule(optim, *, steps_per_epoch: int, epochs: int):
    """Returns lr_fn(step) -> learning rate.

    Raises:
      InputError: an unknown schedule, or a warm-up that is longer than the training.
    """
    peak = optim.learning_rate
    if optim.schedule == "constant":
        return optax.constant_schedule(peak)
    if optim.schedule == "exponential":
        return optax.exponential_decay(peak, optim.decay_steps, optim.decay_rate, staircase=True)
    if optim.schedule == "cosine":
        warmup_steps = round(optim.warmup_epochs * steps_per_epoch)
        total_steps = steps_per_epoch * epochs
        if warmup_steps >= total_steps:
            raise InputError(
                f"optim.warmup_epochs is {optim.warmup_epochs}, but train.epochs is {epochs}: give fewer warm-up epochs"
            )
        return optax.warmup_cosine_decay_schedule(0.0 if warmup_steps else peak, peak, warmup_steps, total_steps)
    raise InputError(f"optim.schedule is '{optim.schedule}'; known are {', '.join(SCHEDULES)}")


def make(optim, *, steps_per_epoch: int, epochs: int):
    """Returns (tx, lr_fn): an optax transformation and the schedule that it follows.

    Raises:
      InputError: an unknown optimizer or schedule.
    """
    lr_fn = make_schedule(optim, steps_per_epoch=steps_per_epoch, epochs=epochs)
    if optim.name == "adam":
        rule = optax.scale_by_adam(eps=ADAM_EPSILON)
    elif optim.name == "sgd":
        rule = optax.trace(decay=optim.momentum, nesterov=optim.nesterov)
    else:
        raise InputError(f"optim.name is '{optim.name}'; known are {', '.join(OPTIMIZERS)}")
    parts = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
    parts.append(rule)
    if optim.weight_decay:
        parts.append(optax.add_decayed_weights(optim.weight_decay, mask=params_lib.kernel_mask))
    parts.append(optax.scale_by_learning_rate(lr_fn))
    return optax.chain(*parts), lr_fn
