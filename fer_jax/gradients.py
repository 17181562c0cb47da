"""Ways of taking gradients: of a batch in parts, and at a point of larger loss nearby (SAM).

A grad_fn is (trained, frozen_params, state, batch, part=None) -> (gradients, (batch_stats, sums)).
"""

import jax
import jax.numpy as jnp
import optax


def in_parts(grad_fn, parts):
    """Returns grad_fn computed on so many parts of the batch, one after another, and added: less memory.

    grad_fn: (trained, frozen_params, state, batch, number of the part) -> (gradients, (statistics, sums)). A part's
    gradients count by its share of the batch's real faces.
    """

    def accumulate(trained, frozen_params, state, batch):
        # Each device's parts have its own faces.
        batch = jax.tree.map(lambda rows: jnp.swapaxes(rows.reshape(-1, parts, *rows.shape[1:]), 0, 1), batch)
        count = jnp.maximum(jnp.sum(batch["mask"]), 1)

        def add(carry, number, piece):
            grads, batch_stats, sums = carry
            now = state.replace(batch_stats=batch_stats)
            more, (batch_stats, some) = grad_fn(trained, frozen_params, now, piece, number)
            share = jnp.sum(piece["mask"]) / count
            grads = jax.tree.map(lambda total, one: total + share * one, grads, more)
            return grads, batch_stats, jax.tree.map(jnp.add, sums, some)

        first = jax.tree.map(lambda rows: rows[0], batch)
        _, (_, sums) = jax.eval_shape(grad_fn, trained, frozen_params, state, first, 0)
        grads, sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (trained, sums))
        grads, batch_stats, sums = _fold(add, (grads, state.batch_stats, sums), batch, parts)
        return grads, (batch_stats, sums)

    return accumulate


def _fold(add, carry, batch, parts):
    """Returns what add(carry, number, piece) makes of all parts of a batch [parts, ...], one after another."""
    if jax.default_backend() != "cpu":
        return jax.lax.scan(lambda carry, part: (add(carry, *part), None), carry, (jnp.arange(parts), batch))[0]
    # XLA:CPU runs convolutions in a loop tens of times slower; the barrier keeps the parts apart, for their memory.
    for number in range(parts):
        piece = jax.tree.map(lambda rows, number=number: rows[number], batch)
        carry = add(*jax.lax.optimization_barrier((carry, jnp.int32(number), piece)))
    return carry


def sharpness_aware(grad_fn, radius: float):
    """Returns grad_fn taken at trained + radius g / |g|, the nearby point of largest loss (Foret et al. 2021, SAM).

    g is the gradient at `trained`, |g| its norm over all parameters. A step costs two gradients, with the same
    dropout. Statistics and sums are those of the first, at the parameters themselves.
    """

    def at_neighbour(trained, *args):
        grads, aux = grad_fn(trained, *args)
        scale = radius / jnp.maximum(optax.tree.norm(grads), 1e-12)
        neighbour = jax.tree.map(lambda leaf, grad: leaf + (scale * grad).astype(leaf.dtype), trained, grads)
        return grad_fn(neighbour, *args)[0], aux

    return at_neighbour
