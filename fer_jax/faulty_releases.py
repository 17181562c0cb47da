"""Releases of jaxlib that compute wrong results, and what the package does about them when it is imported.

Nothing here imports JAX: XLA reads its flags once, before it compiles for the first time.
"""

import importlib.metadata
import os
import sys

# jaxlib release -> where its fault is described
FAULTY = {"0.10.2": "https://github.com/jax-ml/jax/issues/39103"}
FUSION_FLAG = "xla_cpu_experimental_ynn_fusion_type"
# The kinds of fusion that the faulty releases compute correctly; REDUCE is the wrong one, and on by default.
SAFE_FUSIONS = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


def find_fault() -> str | None:
    """Returns where the fault of the installed jaxlib is described, None for a sound or an absent one."""
    try:
        return FAULTY.get(importlib.metadata.version("jaxlib"))
    except importlib.metadata.PackageNotFoundError:
        return None


def guard() -> None:
    """Has a faulty jaxlib compile by its sound kinds of fusion alone, through XLA_FLAGS.

    Raises:
      ImportError: it has compiled already, or XLA_FLAGS asks for another set of fusions.
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
