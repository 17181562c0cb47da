"""Exported ONNX models compute in onnxruntime what JAX computes."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax

import fer_jax
from fer_jax import config as config_lib
from fer_jax import explain, faces, models
from fer_jax.errors import InputError
from fer_jax.exports import onnx_graph, onnx_models, onnx_trace
from fer_jax.recognizer import Member, Recognizer

CLASSES = tuple("abcdefg")
MAPS = "conv 8 relu, max_pool, conv 8 relu, max_pool, conv 8 relu, max_pool"
SECTIONS = {
    "pools": {"layers": "conv 8 5x5 valid relu, avg_pool, batch_norm, leaky_relu 0.1, max_pool, flatten, dense 9 relu"},
    "cfc": {"layers": f"{MAPS}, cfc 16"},
    "bfloat16": {"layers": f"{MAPS}, flatten", "dtype": "bfloat16"},
    "dual_channel_roi": {"name": "dual_channel_roi", "layers": MAPS, "head": "global_avg_pool"},
    "dual_channel_whole": {"name": "dual_channel_whole", "layers": MAPS, "head": "global_avg_pool"},
}


def draw_faces(count=5, shape=(48, 48, 1)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def vary(variables):
    """Returns variables in which no two are alike, as after training."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + rng.uniform(0, 0.1, leaf.shape).astype(np.float32), variables)


def make(section, **options):
    """Returns a recognizer of a network of the config section `model`."""
    model = models.make(config_lib.from_dict({"model": {"name": "cnn", "channels": 1} | section}).model, len(CLASSES))
    variables = vary(model.init(jax.random.key(0), draw_faces(1), train=False))
    return Recognizer("drawn", [Member(model, variables, CLASSES)], (48, 48, 1), **options)


def run(model, **inputs):
    return onnx_models.session(model, threads=1).run(None, inputs)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_network_of_ours_exports_as_jax_computes_it(name):
    recognizer = make(SECTIONS[name], temperature=1.3)
    (probs,) = run(onnx_models.classifier(recognizer), faces=draw_faces())
    np.testing.assert_allclose(probs, recognizer.probs(draw_faces()), atol=2e-2 if name == "bfloat16" else 1e-5)


@pytest.mark.parametrize("views", onnx_models.EXPORTED_VIEWS)
def test_views_and_temperature_are_inside_for_any_batch(views):
    recognizer = fer_jax.load(views=views)
    model = onnx_models.classifier(recognizer)
    expected = recognizer.probs(draw_faces(7))
    for count in (1, 7):
        (probs,) = run(model, faces=draw_faces(7)[:count])
        np.testing.assert_allclose(probs, expected[:count], atol=1e-5)
    (facts,) = (json.loads(one.value) for one in model.metadata_props)
    assert facts["classes"] == list(recognizer.classes)
    assert facts["views"] == views


def test_an_ensemble_exports_with_its_weights_and_order_of_classes():
    one, other = make(SECTIONS["pools"]), make(SECTIONS["cfc"])
    members = [one.members[0]._replace(weight=0.75), other.members[0]._replace(weight=0.25, classes=CLASSES[::-1])]
    both = Recognizer("both", members, (48, 48, 1))
    (probs,) = run(onnx_models.classifier(both), faces=draw_faces())
    expected = 0.75 * one.probs(draw_faces()) + 0.25 * other.probs(draw_faces())[:, ::-1]
    np.testing.assert_allclose(probs, expected, atol=1e-5)


def test_batch_normalization_becomes_part_of_the_convolutions():
    operators = [node.op_type for node in onnx_models.classifier(fer_jax.load(views="none")).graph.node]
    last = len(operators) - operators[::-1].index("Conv")
    assert set(operators[operators.index("Conv") : last]) == {"Conv", "Relu", "MaxPool"}


def test_heat_maps_are_those_of_grad_cam():
    recognizer = make({"layers": "conv 8 relu, max_pool, conv 8 relu, max_pool, conv 8 relu, global_avg_pool"})
    faces, labels = draw_faces(), np.arange(5, dtype=np.int32)
    (heat,) = run(onnx_models.heat_map(recognizer), faces=faces, labels=labels)
    expected = explain.grad_cam(recognizer.members[0].model, recognizer.variables[0], faces, labels)
    np.testing.assert_allclose(heat, expected, atol=1e-4)
    assert heat.max() == pytest.approx(1)


def test_a_recognizer_that_explains_by_occlusion_has_no_heat_map():
    with pytest.raises(InputError, match="occlusion"):
        onnx_models.heat_map(fer_jax.load())


def test_ten_crops_are_refused():
    with pytest.raises(InputError, match="ten_crop"):
        onnx_models.classifier(fer_jax.load(views="ten_crop"))


def test_the_detector_has_the_outputs_of_jax():
    try:
        detector = faces.make_detector("blazeface")
    except InputError as error:
        pytest.skip(str(error))
    pictures = draw_faces(2, (128, 128, 3))
    for found, expected in zip(run(onnx_models.detector(), pictures=pictures), detector.outputs(pictures), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)
    with pytest.raises(InputError, match="lbp"):
        onnx_models.detector("lbp")


def strided(x):
    return lax.conv_general_dilated(
        x, jnp.full((3, 2, 4, 3), 0.1).at[0].set(0.2), (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def counted(state, row):
    return state * 0.5 + row, state.sum(axis=-1)


# what JAX computes of x [batch, 6, 5, 4]
FUNCTIONS = {
    "strided convolution": strided,
    "flipped": lambda x: strided(x)[:, :, ::-1],
    "every second row": lambda x: strided(x)[:, 1::2],
    "every second cell": lambda x: strided(x)[:, ::2, 1::2],
    "one row": lambda x: x[:, 2],
    "sums over one axis of a map": lambda x: strided(x).sum(axis=2) - x.max(axis=3).min(axis=1)[:, :1, None],
    "padded": lambda x: jnp.pad(strided(x), ((0, 0), (1, 2), (0, 0), (3, 0)), constant_values=2.0),
    "joined after a convolution": lambda x: jnp.concatenate([strided(x), strided(-x)], axis=3),
    "transposed twice": lambda x: jnp.swapaxes(jnp.swapaxes(strided(x), 1, 3).reshape(x.shape[0], -1, 5), 1, 2),
    "broadcast": lambda x: x + jnp.arange(5.0)[None, None, :, None] * x.mean(axis=(1, 2), keepdims=True),
    "product over two axes": lambda x: jnp.einsum("bhwc,bkc->bhwk", x, x[:, 0]),
    "scan backwards": lambda x: lax.scan(counted, x[:, 0], jnp.moveaxis(x, 1, 0)[1:], reverse=True)[1],
    "conditions": lambda x: jnp.where((x > 0) & ~(x != jnp.round(x)), jnp.clip(x, -1, 1), -(x**3) / jnp.expm1(1.0)),
    "largest": lambda x: jnp.argmax(x, axis=-1),
    "means of cells": lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("batch", [1, 3])
def test_operations_compute_what_jax_computes(name, batch):
    fn = FUNCTIONS[name]
    x = np.random.default_rng(2).normal(size=(batch, 6, 5, 4)).astype(np.float32)
    model = onnx_trace.convert(fn, {"x": ((None, 6, 5, 4), np.float32)}, ["y"])
    (y,) = run(model, x=x)
    np.testing.assert_allclose(y, jax.jit(fn)(x), rtol=1e-4, atol=1e-5)


def wide(x):
    return jnp.swapaxes(jnp.broadcast_to(jnp.arange(4.0), (x.shape[0], 6, 4)), 1, 2) + x[:, 0, 0, :, None]


def one_dimensional(x):
    kernel = jnp.full((3, 4, 2), 0.1)
    return 2 * lax.conv_general_dilated(x[:, 0], kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))


@pytest.mark.parametrize("fn", [wide, one_dimensional, lambda x: lax.reduce_sum(x, ()) + 1])
def test_rare_forms_compute_what_jax_computes(fn):
    x = np.random.default_rng(2).normal(size=(3, 6, 5, 4)).astype(np.float32)
    (y,) = run(onnx_trace.convert(fn, {"x": ((None, 6, 5, 4), np.float32)}, ["y"]), x=x)
    np.testing.assert_allclose(y, jax.jit(fn)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: jnp.cumsum(x, axis=1), "'cumsum'"),
        (lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), "away from zero"),
        (lambda x: jnp.take(x, np.array([0, 5]), axis=1, mode="fill"), "beyond an axis"),
        (lambda x: (x.astype(np.int32) & 3).astype(np.float32), "'and' of integers"),
        (lambda x: lax.reduce(x, 1.0, lambda a, b: a * b + 1, (1,)), "'reduce'"),
        (lambda x: x - x.mean(axis=0), "cannot be converted"),
        (lambda x: jnp.stack([x, x], axis=1)[:, [0, 1], [0, 2]], "single elements"),
    ],
)
def test_what_has_no_counterpart_is_named(fn, message):
    with pytest.raises(onnx_graph.UnsupportedError, match=message):
        onnx_trace.convert(fn, {"x": ((None, 3), np.float32)}, ["y"])


WITHOUT_JAX = """
import sys
sys.modules |= dict.fromkeys(("jax", "flax", "fer_jax"))
import numpy as np, onnxruntime
probs, = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"faces": np.load(sys.argv[2])})
np.save(sys.argv[3], probs)
"""


def test_a_file_runs_where_jax_cannot_be_imported(tmp_path):
    recognizer, faces = fer_jax.load(), draw_faces(3)
    onnx.save(onnx_models.classifier(recognizer), tmp_path / "model.onnx")
    np.save(tmp_path / "faces.npy", faces)
    names = [str(tmp_path / name) for name in ("model.onnx", "faces.npy", "probs.npy")]
    subprocess.run([sys.executable, "-c", WITHOUT_JAX, *names], check=True, timeout=120)
    np.testing.assert_allclose(np.load(names[2]), recognizer.probs(faces), atol=1e-5)
