"""Learning-rate schedules and optimizers: the config section to `(tx, lr_fn)`."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fer_jax import extensions, fields
from fer_jax import params as params_lib
from fer_jax.errors import InputError

SCHEDULES = ("constant", "exponential", "cosine")
ADAM_EPSILON = 1e-7  # Keras's, which the reports used


def check(optim) -> None:
    """Checks the section `optim` on its own.

    Raises:
      InputError: an unknown optimizer, number of one, or schedule, or a number out of its range.
    """
    fields.check(optim, "optim")
    if extensions.names_file(optim.name) and optim.args:
        raise InputError("optim.args is for the package's optimizers: write the numbers into your own function")
    args = read_args(optim)
    if averages(optim) and not 0 < args.get("b1", 0.5) < 1:
        raise InputError(f"optim.args: b1 of {optim.name} is {args['b1']}: give more than 0 and less than 1")
    if optim.schedule not in SCHEDULES:
        raise InputError(f"optim.schedule is '{optim.schedule}'; known are {', '.join(SCHEDULES)}")


def make_schedule(optim, *, steps_per_epoch: int, epochs: int):
    """Returns lr_fn(step) -> learning rate.

    Raises:
      InputError: a warm-up longer than the training.
    """
    peak = optim.learning_rate
    if optim.schedule == "constant":
        return optax.constant_schedule(peak)
    if optim.schedule == "exponential":
        return optax.exponential_decay(peak, optim.decay_steps, optim.decay_rate, staircase=True)
    warmup_steps = round(optim.warmup_epochs * steps_per_epoch)
    total_steps = steps_per_epoch * epochs
    if warmup_steps >= total_steps:
        raise InputError(
            f"optim.warmup_epochs is {optim.warmup_epochs}, but train.epochs is {epochs}: give fewer warm-up epochs"
        )
    return optax.warmup_cosine_decay_schedule(0.0 if warmup_steps else peak, peak, warmup_steps, total_steps)


def make(optim, *, steps_per_epoch: int, epochs: int):
    """Returns (tx, lr_fn): an optax transformation and the schedule that it follows.

    `tx.update(grads, state, params, lr_scale=1.0)`: lr_scale []: the plateau rule's factor on the rate.

    Raises:
      InputError: as `check` and `make_schedule` do, or a user's function that returns no gradient transformation.
    """
    check(optim)
    lr_fn = make_schedule(optim, steps_per_epoch=steps_per_epoch, epochs=epochs)
    rule = _find_rule(optim.name)
    args = read_args(optim)
    parts = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
    if rule.rate_first:
        parts += [scale_by_rate(lr_fn), rule.make(optim, **args)]
        if optim.weight_decay:
            parts.append(add_decayed_weights(lr_fn, optim.weight_decay))
    else:
        parts.append(rule.make(optim, **args))
        if optim.weight_decay:
            parts.append(optax.add_decayed_weights(optim.weight_decay, mask=params_lib.kernel_mask))
        parts.append(scale_by_rate(lr_fn))
    tx = optax.chain(*parts)
    return (rule.wrap(tx, lr_fn, **args) if rule.wrap else tx), lr_fn


def averages(optim) -> bool:
    """Whether the optimizer keeps an average of the parameters, at which they are evaluated; see `averaging`."""
    return _find_rule(optim.name).wrap is not None


def scale_by_rate(lr_fn):
    """Returns a transformation that multiplies updates by minus the learning rate, `lr_fn(step) * lr_scale`."""

    def update(updates, state, params=None, *, lr_scale=1.0, **_):
        del params
        rate = -lr_fn(state.count)
        updates = jax.tree.map(lambda u: (rate * u * lr_scale).astype(u.dtype), updates)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(_count_steps, update)


def add_decayed_weights(lr_fn, weight_decay: float):
    """Returns decoupled weight decay of kernels, `weight_decay` times the rate, as in Keras."""

    def update(updates, state, params, *, lr_scale=1.0, **_):
        shrink = weight_decay * lr_fn(state.count) * lr_scale
        mask = params_lib.kernel_mask(params)
        updates = jax.tree.map(lambda u, p, kernel: u - shrink * p if kernel else u, updates, params, mask)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(_count_steps, update)


def _count_steps(params):
    del params
    return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))


def scale_by_keras_adam(b1: float = 0.9, b2: float = 0.999, eps: float = ADAM_EPSILON):
    """Returns Adam (Kingma and Ba 2015) with epsilon where Keras has it: added before the second moment is corrected.

    This is the paper's "epsilon hat". optax adds it after the correction, by which a weight with a tiny gradient, 1e-7,
    moves at the full rate in the first steps, where Keras hardly moves it.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=zeros, nu=zeros)

    def update(updates, state, params=None):
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)
        count = optax.safe_increment(state.count)
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def _sgd(optim):
    return optax.trace(decay=optim.momentum, nesterov=optim.nesterov) if optim.momentum else optax.identity()


def _muon(optim, ns_steps: int = 5, adam_b1: float = 0.9, adam_b2: float = 0.999):
    """Muon (Jordan et al. 2024) for kernels, where one of a convolution is a matrix [H W C, F]; Adam for the rest."""

    def matrices(params):
        return jax.tree.map(
            lambda leaf: (
                optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,))
                if leaf.ndim > 1
                else None
            ),
            params,
        )

    return optax.contrib.muon(
        -1.0,  # it multiplies by minus its rate, and this module has its own
        beta=optim.momentum,
        nesterov=optim.nesterov,
        muon_weight_dimension_numbers=matrices,
        **{"ns_steps": ns_steps, "adam_b1": adam_b1, "adam_b2": adam_b2},
    )


def _schedule_free(optim, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_lr_power: float = 2.0):
    """Adam without momentum: `_average` takes its place."""
    del b1, weight_lr_power
    return optax.scale_by_adam(b1=0.0, b2=b2, eps=eps)


def _average(tx, lr_fn, **args):
    """Wraps a whole optimizer in schedule-free averaging (Defazio et al. 2024); optax has its numbers' defaults."""
    return optax.contrib.schedule_free(tx, lr_fn, **{k: v for k, v in args.items() if k in ("b1", "weight_lr_power")})


class Rule(NamedTuple):
    """An optimizer between clipping and weight decay.

    make: (the config's section `optim`, and by name the numbers of `optim.args`) -> the transformation that turns
    gradients into directions; the step is minus the learning rate times these. rate_first: it is given steps in place
    of gradients. wrap: (the whole optimizer, lr_fn, the numbers of `optim.args`) -> the optimizer that averages.
    """

    make: Callable
    rate_first: bool = False
    wrap: Callable | None = None


# optim.name -> its rule
OPTIMIZERS = {
    "adam": Rule(lambda optim, b1=0.9, b2=0.999, eps=ADAM_EPSILON: scale_by_keras_adam(b1, b2, eps)),
    # Loshchilov and Hutter 2019, as in optax and PyTorch: another place and size of epsilon than Keras's.
    "adamw": Rule(lambda optim, b1=0.9, b2=0.999, eps=1e-8: optax.scale_by_adam(b1, b2, eps)),
    "lion": Rule(lambda optim, b2=0.99: optax.scale_by_lion(optim.momentum, b2)),  # Chen et al. 2023
    "muon": Rule(_muon),
    "schedule_free": Rule(_schedule_free, wrap=_average),
    # Keras keeps the rate inside the velocity, so that a cut does not act on the steps that were taken before it.
    "sgd": Rule(_sgd, rate_first=True),
}


def read_args(optim) -> dict:
    """Returns the numbers of `optim.args` by their names.

    Raises:
      InputError: a text that is no list of name=number, or a name that the optimizer does not have.
    """
    known = inspect.signature(_find_rule(optim.name).make).parameters
    known = {name: one.default for name, one in known.items() if one.default is not one.empty}
    args = {}
    for part in filter(None, (part.strip() for part in optim.args.split(","))):
        name, _, number = (word.strip() for word in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"optim.args has {part!r}: give name=number, separated by commas, as 'b2=0.95, eps=1e-6'")
        if name not in known:
            there = ", ".join(f"{name} ({default})" for name, default in known.items()) or "none"
            raise InputError(f"optim.args: {optim.name} has no number '{name}'; it has {there}")
        args[name] = type(known[name])(value)
    return args


def _find_rule(name):
    if extensions.names_file(name):
        return Rule(functools.partial(_from_file, name))
    if name not in OPTIMIZERS:
        raise InputError(f"optim.name is '{name}'; known are {', '.join(OPTIMIZERS)}, or {extensions.FORM}")
    return OPTIMIZERS[name]


def _from_file(name, optim):
    """Returns the transformation that a user's function makes."""
    field, wanted = "optim.name", "a function (section) -> optax.GradientTransformation, as optax.scale_by_lion is one"
    make_direction = extensions.load(name, field)
    if not callable(make_direction):
        raise extensions.wrong_kind(name, field, make_direction, wanted)
    with extensions.errors_of(name, field):
        direction = make_direction(optim)
    if not isinstance(direction, optax.GradientTransformation):
        raise InputError(f"{field}: {name} returns a {type(direction).__name__}; it must be {wanted}")
    if _descends(direction):
        raise InputError(
            f"{field}: {name} returns steps against the gradient, and the package multiplies by minus the rate itself: "
            "return the transformation without its rate, as optax.scale_by_lion() in place of optax.lion(rate)"
        )
    return direction


def _descends(direction):
    """Says whether a first step points against a gradient of ones; False where only the network's own layers tell."""
    ones = {"layer": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    try:
        updates, _ = direction.update(ones, direction.init(ones), ones)
    except Exception:
        return False
    return all(float(leaf.sum()) < 0 for leaf in jax.tree.leaves(updates))
