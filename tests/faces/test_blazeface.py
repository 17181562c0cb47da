"""BlazeFace in linen against LiteRT on the same files; anchors, decoding, and batches of any size."""

import numpy as np
import pytest
from PIL import Image

from fer_jax import faces
from fer_jax.faces import blazeface, networks, tflite_file

NAMES = tuple(networks.SPECS)
EQUAL = {"atol": 1e-3, "rtol": 0}


@pytest.fixture(scope="module")
def inputs():
    """Makes uint8 pictures for a network: noise, a photograph of a face, and one of none."""

    def make(size_px, count=3):
        import skimage.data

        noise = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), np.uint8)
        photographs = [Image.fromarray(picture) for picture in (skimage.data.astronaut(), skimage.data.coffee())]
        first = [noise, *(np.asarray(picture.resize((size_px, size_px))) for picture in photographs)]
        return np.array((first * (count // 3 + 1))[:count])

    return make


@pytest.mark.full
@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.full) for name in NAMES[1:])])
def test_outputs_are_those_of_litert(name, weights, detector, inputs):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    reference = interpreter.Interpreter(str(weights(name)), num_threads=1)
    reference.allocate_tensors()
    places = {row["shape"][-1]: row["index"] for row in reference.get_output_details()}
    images = inputs(networks.SPECS[name].size_px)
    regressors, logits = detector(name).outputs(images)
    for image, numbers, logit in zip(images, regressors, logits, strict=True):
        reference.set_tensor(reference.get_input_details()[0]["index"], image[None] / np.float32(127.5) - 1)
        reference.invoke()
        np.testing.assert_allclose(numbers, reference.get_tensor(places[16])[0], **EQUAL)
        wanted = reference.get_tensor(places[1])[0, :, 0]
        np.testing.assert_allclose(np.clip(logit, -100, 100), np.clip(wanted, -100, 100), **EQUAL)  # as MediaPipe does


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_of_the_file_is_used(name, weights):
    import jax

    spec = networks.SPECS[name]
    image = np.zeros((1, spec.size_px, spec.size_px, 3), np.uint8)
    expected = jax.eval_shape(spec.network().init, jax.random.key(0), image)["params"]
    found = tflite_file.read(weights(name))
    assert jax.tree.map(np.shape, found) == jax.tree.map(lambda leaf: leaf.shape, dict(expected))


@pytest.mark.parametrize("name", NAMES)
def test_anchors_are_the_middles_of_cells(name):
    spec = networks.SPECS[name]
    anchors = blazeface.anchors(spec)
    assert len(anchors) == {"blazeface": 896, "blazeface:back": 896, "blazeface:full": 2304}[name]
    start = 0
    for cells, count in spec.grids:
        grid = anchors[start : start + cells * cells * count].reshape(cells, cells, count, 2)
        start += cells * cells * count
        side = spec.size_px / cells
        assert (grid == grid[:, :, :1]).all()
        np.testing.assert_allclose(grid[0, :, 0, 0], side / 2 + side * np.arange(cells))
        np.testing.assert_allclose(grid[:, 0, 0, 1], side / 2 + side * np.arange(cells))
    assert start == len(anchors)


def test_decoding_by_hand():
    raw = np.zeros((2, 16), np.float32)
    raw[0, :6] = (3, -2, 10, 20, -4, 5)  # the middle of the box, its size, the first point
    raw[1, 14:] = (7, 8)  # the last point
    numbers = blazeface.decode(raw, np.array([[100.0, 50.0], [12.0, 14.0]]))
    np.testing.assert_allclose(numbers[0, :6], (98, 38, 108, 58, 96, 55))
    np.testing.assert_allclose(numbers[0, 6:], [100, 50] * 5)
    np.testing.assert_allclose(numbers[1], [12, 14] * 7 + [19, 22])


@pytest.mark.full
@pytest.mark.parametrize("sizes", [blazeface.BATCHES, blazeface.BATCHES_ON_CPU])
def test_a_batch_of_any_size_gives_the_same_and_compiles_a_program_a_size(weights, inputs, monkeypatch, sizes):
    weights("blazeface")
    monkeypatch.setattr(blazeface, "BATCHES_ON_CPU", sizes)
    found = faces.make_detector("blazeface")
    images = inputs(found.spec.size_px, 43)
    alone = [found.outputs(image[None]) for image in images[:3]]
    expected = [np.concatenate([alone[number % 3][part] for number in range(43)]) for part in (0, 1)]
    for count in (1, 2, 5, 8, 9, 31, 32, 33, 41, 43):
        for part, wanted in zip(found.outputs(images[:count]), expected, strict=True):
            assert len(part) == count
            np.testing.assert_allclose(part, wanted[:count], **EQUAL)
    assert found.traces == len(sizes)
