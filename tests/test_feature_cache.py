import dataclasses
import importlib.metadata
import pathlib

import jax
import numpy as np
import pytest
import tiny

from fer_jax import datasets, feature_cache, models
from fer_jax.runtime import compile_cache


@pytest.fixture
def network(tmp_path):
    return models.make(tiny.make_config(tmp_path).model, 7)


def draw_faces(count, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 48, 48, 1), dtype=np.uint8)
    return datasets.Faces(images, rng.integers(0, 7, count).astype(np.int32))


def init(network, seed=0):
    return network.init(jax.random.key(seed), np.zeros((1, 48, 48, 1), np.uint8), train=False)


def cached(network, variables, faces, folder, make_shardings):
    return feature_cache.cached(network, variables, faces, batch_size=4, shardings=make_shardings(2), cache_dir=folder)


def files(folder):
    return sorted(folder.glob("features/*"))


def test_features_are_what_the_head_sees_and_keep_labels_and_targets(network, tmp_path, make_shardings):
    targets = np.random.default_rng(1).dirichlet(np.ones(7), 10).astype(np.float32)
    faces = dataclasses.replace(draw_faces(10), targets=targets)  # 10 faces: the last batch of 4 is padded
    variables = init(network)
    features = cached(network, variables, faces, tmp_path, make_shardings)
    whole = network.apply(variables, faces.images, train=False)
    halves = network.apply(variables, features.images, train=False, method=feature_cache.FORWARD)
    assert features.images.shape == (10, 6)
    np.testing.assert_array_equal(features.labels, faces.labels)
    np.testing.assert_array_equal(features.targets, targets)
    np.testing.assert_allclose(halves, whole, rtol=1e-5, atol=1e-6)


def test_the_same_faces_and_weights_are_computed_once(network, tmp_path, make_shardings, monkeypatch):
    faces, variables = draw_faces(6), init(network)
    first = cached(network, variables, faces, tmp_path, make_shardings)
    monkeypatch.setattr(feature_cache, "_compute", lambda *_, **__: pytest.fail("computed again"))
    again = cached(network, variables, faces, tmp_path, make_shardings)
    np.testing.assert_array_equal(first.images, again.images)
    assert len(files(tmp_path)) == 1
    # The head is no part of what they depend on.
    variables = {**variables, "params": {**variables["params"], "head": init(network, 1)["params"]["head"]}}
    cached(network, variables, faces, tmp_path, make_shardings)


@pytest.mark.parametrize(
    "change",
    ["faces", "weights", "statistics", "size", "dtype", "scaling", "pooling", "file", "jax", "source", "cpu path"],
)
def test_whatever_changes_features_changes_their_file(network, tmp_path, make_shardings, monkeypatch, change):
    faces, variables, other = draw_faces(6), init(network), network
    cached(network, variables, faces, tmp_path, make_shardings)
    section = tiny.make_config(tmp_path).model
    if change == "faces":
        faces = draw_faces(6, seed=1)
    elif change == "weights":
        variables = init(network, 1)
    elif change == "jax":
        monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name} 99")
    elif change == "source":
        monkeypatch.setattr(compile_cache, "source_digest", lambda *folders: f"another {folders}")
    elif change == "file":
        text = pathlib.Path(tiny.__file__).read_text()
        (tmp_path / "tiny.py").write_text(text.replace('"top_conv", 6, 3, strides=2', '"top_conv", 6, 3, strides=1'))
        section.name = f"{tmp_path / 'tiny.py'}:TINY"
        other = models.make(section, 7)
    elif change == "cpu path":
        monkeypatch.setenv("FER_JAX_CPU_PATH", "off")
    elif change == "statistics":
        variables = {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf + 1, variables["batch_stats"])}
    else:
        fields = {"size": {"size_px": 40}, "dtype": {"dtype": "bfloat16"}, "scaling": {"scaling": "unit"}}
        section.update(fields.get(change, {"head": "flatten, dense 8"}))
        other = models.make(section, 7)
    cached(other, variables, faces, tmp_path, make_shardings)
    assert len(files(tmp_path)) == 2


def test_a_computation_that_breaks_off_leaves_no_file(network, tmp_path, make_shardings, monkeypatch):
    def breaks(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fer_jax.runtime.timing.Progress.update", breaks)
        with pytest.raises(KeyboardInterrupt):
            cached(network, init(network), draw_faces(6), tmp_path, make_shardings)
    assert files(tmp_path) == []


def test_without_room_the_features_are_not_kept_and_it_is_said(network, tmp_path, make_shardings, monkeypatch, caplog):
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert cached(network, init(network), draw_faces(6), tmp_path, make_shardings) is None
    assert "set data.cache_dir to a folder on another disk" in caplog.text
