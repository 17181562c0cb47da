"""Workarounds, applied on import, for releases of jaxlib that compute wrong results.

This module must not import JAX: XLA reads its flags once, before its first compilation.
"""

import importlib.metadata
import os
import sys

# jaxlib release -> URL of the bug report
FAULTY = {"0.10.2": "https://github.com/jax-ml/jax/issues/39103"}
FUSION_FLAG = "xla_cpu_experimental_ynn_fusion_type"
# The kinds of fusion that the faulty releases compute correctly; REDUCE is wrong, and on by default.
SAFE_FUSIONS = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


def find_fault() -> str | None:
    """Returns the URL of the bug report on the installed jaxlib; None if it is correct or not installed."""
    try:
        return FAULTY.get(importlib.metadata.version("jaxlib"))
    except importlib.metadata.PackageNotFoundError:
        return None


def guard() -> None:
    """Restricts a faulty jaxlib to the correct kinds of fusion, through XLA_FLAGS.

    Raises:
      ImportError: JAX has already compiled something, or XLA_FLAGS sets other kinds of fusion.
    """
    fault = find_fault()
    if fault is None:
        return
    flag, flags = f"--{FUSION_FLAG}={SAFE_FUSIONS}", os.environ.get("XLA_FLAGS", "")
    if flag in flags.split():
        return
    bridge = sys.modules.get("jax._src.xla_bridge")
    if FUSION_FLAG in flags or (bridge and bridge.backends_are_initialized()):
        raise ImportError(
            f"this release of jaxlib computes wrong sums on a CPU ({fault}): install another one, "
            "pip install 'jax!=0.10.2' 'jaxlib!=0.10.2', "
            f"or set XLA_FLAGS={flag} before Python starts"
        )
    os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
