"""Compiles train steps, with the state donated, and runs one or several per dispatch."""

import jax
import jax.numpy as jnp

from fer_jax import ops


def jit_steps(train_step, feeder, *, shardings, options: dict | None = None) -> "TrainSteps":
    """Compiles train steps for the chunks of a feeder.

    Args:
      train_step: (state, batch, constants) -> (state, sums); the sums are any tree of arrays.
      feeder: makes a batch inside the program, `feeder.batch(arrays, item)`.
      shardings: of the state, and of the sums.
      options: compiler options of this step in addition to those of `ops.jit`.

    Returns:
      train_steps(state, constants, chunk) -> (state, sums over the steps of the chunk). The input state is donated: its
      memory is reused for the returned one. constants: arrays that steps read, those of the feeder as `feeder`; they
      are arguments of the program, so they are neither compiled into it nor saved.
    """

    def one(state, constants, item):
        return train_step(state, feeder.batch(constants["feeder"], item), constants)

    def several(state, constants, items):
        first = jax.tree.map(lambda rows: rows[0], items)
        _, sums = jax.eval_shape(one, state, constants, first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)

        def add(carry, item):
            state, total = carry
            state, sums = one(state, constants, item)
            return (state, jax.tree.map(jnp.add, total, sums)), None

        return jax.lax.scan(add, (state, zeros), items)[0]

    jitted = [ops.jit(fun, options=options, donate_argnums=0, out_shardings=shardings) for fun in (one, several)]
    return TrainSteps(*jitted)


class TrainSteps:
    """See `jit_steps`; one program per length of chunk, compiled at the first chunk of that length."""

    def __init__(self, one, several):
        self._one, self._several, self._programs = one, several, {}

    def __call__(self, state, constants, chunk):
        program = self._programs.get(chunk.steps)
        if program is None:
            jitted = self._one if chunk.steps == 1 else self._several
            program = jitted.lower(state, constants, chunk.items).compile()
            self._programs[chunk.steps] = program
        return program(state, constants, chunk.items)

    @property
    def program(self) -> jax.stages.Compiled:
        """The first compiled program."""
        return next(iter(self._programs.values()))
