"""A closed-form continuous-time (CfC) network that reads a feature map cell by cell.

Hasani et al. 2022, "Closed-form continuous-time neural networks", Nature Machine Intelligence 4, 992-1003: the gated
form, in which the state x with the input I becomes, after time t,

    x(t) = sigmoid(-f t) * g + (1 - sigmoid(-f t)) * h,        f, g, h functions of x and I.

In the authors' implementation (github.com/raminmh/CfC, torch_cfc.py, neither `minimal` nor `no_gate`) and here one
hidden layer z feeds four dense layers, and f t is affine in t:

    z = lecun_tanh(W [I, x] + b)        with lecun_tanh(v) = 1.7159 tanh(0.666 v)
    g = tanh(W_g z + b_g)        h = tanh(W_h z + b_h)        f t = (W_a z + b_a) t + (W_b z + b_b)

R4 names CfC networks as a next step without saying where to use them; reading the cells of a map is our choice. Cells
are read row by row; t is the distance in cells from the previous one; the next layer gets the state after the last.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from fer_jax.models import layers


class Cell(layers.Layers):
    """One step: called with state [B, units], input [B, C] and elapsed time []; returns (new state, None) for a scan.

    The hidden layer has as many units as the state.
    """

    units: int = 0

    @nn.compact
    def __call__(self, state, x, elapsed):
        z = _lecun_tanh(self.dense(jnp.concatenate([x, state], axis=-1), "hidden", self.units))
        g, h = (jnp.tanh(self.dense(z, name, self.units)) for name in ("g", "h"))
        time_a, time_b = (self.dense(z, name, self.units) for name in ("time_a", "time_b"))
        gate = nn.sigmoid(time_a * elapsed + time_b)
        return (1 - gate) * g + gate * h, None


def read_map(x, units: int, name: str, *, dtype, kernel_init):
    """Reads a map [B, H, W, C] with a `Cell` called `name`, from a zero state; returns its last state [B, units].

    Call it inside a linen module's `@nn.compact` method. dtype and kernel_init: as in `layers.Layers`.
    """
    cells = x.reshape(x.shape[0], -1, x.shape[-1])
    scan = nn.scan(Cell, variable_broadcast="params", split_rngs={"params": False}, in_axes=(1, 0))
    read = scan(units=units, dtype=dtype, kernel_init=kernel_init, name=name)
    state, _ = read(jnp.zeros((x.shape[0], units), dtype), cells, jnp.asarray(distances(*x.shape[1:3]), dtype))
    return state


def distances(height: int, width: int) -> np.ndarray:
    """Returns [height * width], the distance of each cell from the previous one in reading order; the first is 1."""
    places = np.stack(np.divmod(np.arange(height * width), width), axis=-1)
    return np.concatenate([[1.0], np.hypot(*np.diff(places, axis=0).T)])


def _lecun_tanh(x):
    return 1.7159 * jnp.tanh(0.666 * x)
