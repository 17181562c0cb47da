"""Operations that XLA is slow at on a CPU, done another way there; on a GPU or a TPU they are XLA's own.

Speeds and what was tried: experiments/cpu_ops/.
"""

import functools

import jax

from fer_jax.ops.convolution import conv
from fer_jax.ops.dropout import keep_mask
from fer_jax.ops.normalization import batch_norm
from fer_jax.ops.pooling import pool_2x2

__all__ = ["batch_norm", "compiler_options", "conv", "keep_mask", "on_cpu", "pool_2x2"]

# Single convolutions by Eigen instead of YNNPACK, which loses by several of our shapes; and barriers that hold until
# the code is made, since a producer that is fused into strided reads is computed again at each of them.
_CPU_COMPILER_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": ",".join(
        f"LIBRARY_FUSION_TYPE_{kind}" for kind in ("DOT", "REDUCE", "INDIVIDUAL_DOT")
    ),
    "xla_disable_hlo_passes": "cse_barrier_expander",
}


def on_cpu() -> bool:
    """Whether the operations of this package are for this backend."""
    return jax.default_backend() == "cpu"


def compiler_options(enabled: bool = True) -> dict | None:
    """Returns what `jax.jit(..., compiler_options=)` should be given on this backend; None where that is nothing."""
    return _supported_options() if enabled and on_cpu() else None


@functools.cache
def _supported_options():
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_COMPILER_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:  # experimental options: another jaxlib may not know them
        return None
    return _CPU_COMPILER_OPTIONS
