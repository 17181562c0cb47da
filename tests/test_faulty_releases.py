"""What is compiled computes the right sums, and a release of jaxlib that does not is made safe or refused."""

import os
import subprocess
import sys

import pytest

from fer_jax import faulty_releases

# The program of https://github.com/jax-ml/jax/issues/39103: a product followed by a reduction. Row i is (i, 0, 0), so
# that its sum of squares is i squared. In a process of its own, since the other tests compile without optimizations.
PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from fer_jax import ops
m, i = jnp.eye(3), np.arange(36_864, dtype=np.float32)
rows = jnp.stack([jnp.asarray(i), jnp.zeros(len(i)), jnp.zeros(len(i))], axis=1)
jit = {"plain": jax.jit, "ours": ops.jit}[sys.argv[1]]
found = np.asarray(jit(jax.vmap(lambda r: jnp.sum((m @ r) ** 2)))(rows), np.float64)
print("wrong rows:", int((np.abs(found - i.astype(np.float64) ** 2) > 1e-5 * i.astype(np.float64) ** 2).sum()))
"""


@pytest.mark.parametrize("way", ["plain", "ours"])
def test_a_product_followed_by_a_reduction_is_right(way):
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "FER_JAX_CPU_PATH")}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=False, env=environment
    )
    assert ran.stdout == "wrong rows: 0\n", ran.stderr


@pytest.fixture
def faulty(monkeypatch):
    """A faulty jaxlib, and no flags."""
    monkeypatch.setattr(faulty_releases.importlib.metadata, "version", lambda name: "0.10.2")
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def test_a_faulty_release_gets_a_safe_flag_before_it_compiles(faulty, monkeypatch):
    monkeypatch.delitem(sys.modules, "jax._src.xla_bridge", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp")
    for _ in range(2):  # a second import adds nothing
        faulty_releases.guard()
        flag = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
        assert os.environ["XLA_FLAGS"].split() == ["--xla_dump_to=/tmp", flag]


def test_a_faulty_release_that_has_compiled_already_is_refused(faulty):
    import jax

    jax.devices()
    with pytest.raises(ImportError, match=r"wrong sums on a CPU.*39103.*pip install"):
        faulty_releases.guard()


def test_a_faulty_release_with_other_fusions_is_refused(faulty, monkeypatch):
    monkeypatch.delitem(sys.modules, "jax._src.xla_bridge", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE")
    with pytest.raises(ImportError, match="XLA_FLAGS"):
        faulty_releases.guard()


@pytest.mark.parametrize("release", ["0.10.1", "0.11.0", "0.12.0.1"])
def test_other_releases_keep_their_flags(release, monkeypatch):
    monkeypatch.setattr(faulty_releases.importlib.metadata, "version", lambda name: release)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    faulty_releases.guard()
    assert "XLA_FLAGS" not in os.environ
