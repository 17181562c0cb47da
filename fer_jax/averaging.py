"""Variables averaged over the steps of training, which usually predict better than those of the last step."""

import jax
import jax.numpy as jnp
import optax

from fer_jax import optim
from fer_jax import params as params_lib

WARMUP_STEPS = 10


def make(phase):
    """Returns average_fn(state) -> {params, batch_stats}, what a step makes of `state.average`; None for no average.

    phase: a `freezing.Phase`. With `train.ema_decay` it is an exponential moving average, with the optimizer
    `schedule_free` the sequence x of that optimizer, with the current running statistics.
    """
    if optim.averages(phase.config.optim):
        return lambda state: {"params": schedule_free_params(state, phase.frozen), "batch_stats": state.batch_stats}
    decay = phase.config.train.ema_decay
    return (lambda state: move(state.average, state.variables, state.step, decay)) if decay else None


def move(average, variables, step, decay: float):
    """Moves an exponential moving average towards variables by 1 - min(decay, (1 + t) / (10 + t)).

    step: t [] int, steps taken. The second term forgets the initial variables in a short training (that of
    TensorFlow's ExponentialMovingAverage with num_updates).
    """
    kept = jnp.minimum(decay, (1.0 + step) / (WARMUP_STEPS + step))
    return jax.tree.map(lambda mean, value: mean + (1 - kept).astype(mean.dtype) * (value - mean), average, variables)


def schedule_free_params(state, frozen):
    """Returns the parameters x at which schedule-free training is evaluated (Defazio et al. 2024)."""
    trained, frozen_params = params_lib.split(state.params, frozen)
    is_state = lambda node: isinstance(node, optax.contrib.ScheduleFreeState)  # noqa: E731
    own = next(node for node in jax.tree.leaves(state.opt_state, is_leaf=is_state) if is_state(node))
    return params_lib.join(frozen_params, optax.contrib.schedule_free_eval_params(own, trained))


def restart(phase, state):
    """Returns the state from which a later phase starts: with `schedule_free` at its average, else unchanged."""
    if not optim.averages(phase.config.optim):
        return state
    return state.replace(params=jax.tree.map(jnp.copy, state.average["params"]))
