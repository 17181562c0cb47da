"""Faster CPU kernels and compiler options for them; other backends use XLA's own.

`FER_JAX_CPU_PATH=off` in the environment makes CPUs use XLA's kernels and options too. Set it before the process
starts; programs that are already compiled do not change. Speeds and failed attempts: benchmarks/cpu_ops/.
"""

import functools
import os

import jax

from fer_jax import faulty_releases
from fer_jax.errors import InputError
from fer_jax.ops.convolution import conv
from fer_jax.ops.dropout import keep_mask
from fer_jax.ops.normalization import batch_norm
from fer_jax.ops.pooling import pool_2x2

__all__ = ["batch_norm", "compiler_options", "conv", "cpu_path", "jit", "keep_mask", "on_cpu", "pool_2x2"]

SWITCH = "FER_JAX_CPU_PATH"
CHOICES = ("on", "off")
FUSIONS = ("DOT", "REDUCE", "INDIVIDUAL_DOT")


def on_cpu() -> bool:
    """Whether arrays live on a CPU."""
    return jax.default_backend() == "cpu"


def cpu_path() -> bool:
    """Whether this process uses the kernels of this package: on a CPU, unless FER_JAX_CPU_PATH is off.

    Raises:
      InputError: FER_JAX_CPU_PATH is neither on nor off.
    """
    choice = os.environ.get(SWITCH, "on")
    if choice not in CHOICES:
        raise InputError(f"{SWITCH} is '{choice}'; known are {', '.join(CHOICES)}")
    return choice == "on" and on_cpu()


def jit(fun, *, options: dict | None = None, **settings):
    """`jax.jit` with the compiler options of this backend, which `options` override."""
    return jax.jit(fun, compiler_options=(compiler_options() or {}) | (options or {}) or None, **settings)


def compiler_options() -> dict | None:
    """Returns the compiler options that `jit` uses on this backend, or None."""
    return _supported_options() if cpu_path() else None


@functools.cache
def _supported_options():
    # Eigen instead of YNNPACK for single convolutions, since YNNPACK is slower for several of our shapes; and barriers
    # that last to code generation, since a producer fused into strided reads is recomputed at each of them.
    options = {
        faulty_releases.FUSION_FLAG: ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in FUSIONS),
        "xla_disable_hlo_passes": "cse_barrier_expander",
    }
    if faulty_releases.find_fault():
        options[faulty_releases.FUSION_FLAG] = faulty_releases.SAFE_FUSIONS
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # the options are experimental: another jaxlib may lack them
        return None
    return options
