"""StableHLO programs of trained networks, by `jax.export`: they run where JAX is, without this package."""

import datetime

import jax
import jax.numpy as jnp
from jax import export as jax_export

from fer_jax.exports import onnx_graph, onnx_trace

PLATFORMS = ("cpu", "cuda")
# JAX promises to read a program for six months: https://docs.jax.dev/en/latest/export/export.html
READABLE_DAYS = 180


def make(recognizer) -> tuple[bytes, dict]:
    """Returns (a serialized `jax.export.Exported` that computes `Recognizer.probs`, its facts).

    It is called with faces uint8 [B, H, W, C] for any B, on a CPU or an NVIDIA GPU, and returns float32 [B, K];
    preprocessing, views and temperature are inside. The facts include the day until which newer releases of JAX are
    sure to read it.
    """
    (batch,) = jax_export.symbolic_shape(onnx_graph.BATCH)
    shape = jax.ShapeDtypeStruct((batch, *recognizer.image_shape), jnp.uint8)
    with onnx_trace.plain_kernels():
        exported = jax_export.export(jax.jit(recognizer.calibrated_probs), platforms=PLATFORMS)(shape)
    today = datetime.datetime.now(datetime.UTC).date()
    facts = {
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
        "calling_convention_version": exported.calling_convention_version,
        "readable_until": (today + datetime.timedelta(days=READABLE_DAYS)).isoformat(),
    }
    return bytes(exported.serialize()), facts


def load(content: bytes):
    """Returns the function of a serialized program: faces uint8 [B, H, W, C] -> probabilities float32 [B, K]."""
    return jax_export.deserialize(bytearray(content)).call
