"""Model files: what is exported of a run is loaded again, and answers as the run does."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny
from safetensors import numpy as safetensors
from sklearn import metrics as sklearn_metrics

import fer_jax
from fer_jax import calibration, datasets, export, inference, predict, train
from fer_jax.errors import InputError

NETWORK = {
    "model.name": "cnn",
    "model.layers": "conv 8 relu, batch_norm, max_pool, dropout 0.1, global_avg_pool",
    "model.head": "",
    "model.size_px": 0,
    "train.epochs": 1,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A short run, and its model file with views."""
    root = tmp_path_factory.mktemp("exported")
    config = tiny.make_config(root / "cache", **NETWORK)
    train.train(config, root / "run")
    facts = export.export(root / "run", root / "models" / "drawn", views="flip")
    return root, facts, datasets.load(config.data)


def copied(root, folder):
    for ending in ("safetensors", "json"):
        shutil.copy(root / "models" / f"drawn.{ending}", folder / f"drawn.{ending}")
    return folder / "drawn.safetensors"


def test_the_file_answers_as_the_run(exported):
    root, facts, data = exported
    trained = inference.load(root / "run")
    both = [
        jax.nn.softmax(trained.model.apply(trained.variables, images, train=False))
        for images in (data.validation.images, data.validation.images[:, :, ::-1])
    ]
    expected = calibration.apply(np.mean(both, axis=0), facts["temperature"])
    model = fer_jax.load(root / "models" / "drawn.safetensors")
    np.testing.assert_allclose(model.probs(data.validation.images), expected, atol=2e-3)  # kernels are float16
    assert model.classes == trained.classes and model.views == "flip"


def test_its_figures_are_those_of_the_file(exported):
    root, facts, data = exported
    probs = fer_jax.load(root / "models" / "drawn.json").probs(data.validation.images)
    labels = data.validation.labels
    scores = facts["figures"]["validation"]
    assert scores["accuracy"] == sklearn_metrics.accuracy_score(labels, probs.argmax(axis=1))
    assert scores["loss"] == pytest.approx(-np.log(probs[np.arange(len(labels)), labels]).mean(), rel=1e-5)
    plain = -np.log(calibration.apply(probs, 1 / facts["temperature"])[np.arange(len(labels)), labels]).mean()
    assert scores["loss"] <= plain
    assert "test" not in facts["figures"] and facts["test_scored"] == "not scored"


def test_the_card_says_what_it_is_for_and_not_for(exported):
    root, facts, _ = exported
    card = (root / "models" / "drawn.md").read_text()
    for words in ("Intended use", "Excluded use", "Article 5(1)(f)", "synthetic", "Test-time views: flip"):
        assert words in card
    assert f"{100 * facts['figures']['validation']['accuracy']:.2f}%" in card


def test_the_test_split_is_scored_where_that_is_asked(exported, tmp_path):
    root, _, data = exported
    facts = export.export(root / "run", tmp_path / "small", score_test=True)
    probs = fer_jax.load(tmp_path / "small.safetensors").probs(data.test.images)
    assert facts["figures"]["test"]["accuracy"] == np.mean(probs.argmax(axis=1) == data.test.labels)


def test_faces_are_padded_to_few_sizes_which_changes_nothing(exported, monkeypatch):
    root, _, data = exported
    model = fer_jax.load(root / "models" / "drawn.safetensors")
    traced, compute = [], model.mean_probs
    model._mean_probs = jax.jit(lambda variables, images: traced.append(len(images)) or compute(variables, images))
    every = model.probs(data.train.images[:200])
    single = [model.probs(data.train.images[position : position + 1])[0] for position in range(12)]
    np.testing.assert_allclose(single, every[:12], atol=1e-6)
    for count in (2, 5, 8, 9, 31, 33, 127, 128, 129):
        np.testing.assert_allclose(model.probs(data.train.images[:count]), every[:count], atol=1e-6)
    assert set(traced) == {1, 8, 32, 128} and len(traced) == 4
    assert model.probs(data.train.images[:0]).shape == (0, 7)


@pytest.mark.full
def test_a_run_and_an_ensemble_load_the_same_way(exported, tmp_path):
    root, _, data = exported
    from fer_jax import ensemble

    other = tiny.make_config(root / "cache", **NETWORK, **{"seed": 1})
    train.train(other, tmp_path / "other")
    ensemble.ensemble([root / "run", tmp_path / "other"], tmp_path / "both", split="validation", views="flip")
    with np.load(tmp_path / "both" / "evaluation-validation.npz") as found:
        expected = found["probs"]
    model = fer_jax.load(tmp_path / "both")
    np.testing.assert_allclose(model.probs(data.validation.images), expected, atol=1e-5)
    alone = [
        fer_jax.load(path, views="flip").probs(data.validation.images) for path in (root / "run", tmp_path / "other")
    ]
    np.testing.assert_allclose(np.mean(alone, axis=0), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(format=2), r"has format 2, and this version reads 1: update fer-jax"),
        (lambda facts: facts.pop("classes"), r"drawn.json does not describe a model: it has no classes"),
        (lambda facts: facts["model"].update(layers="conv 4 relu, global_avg_pool"), r"SHA-256|is not of the network"),
        (lambda facts: facts["model"].update(depth=3), r"fields that this version of fer_jax does not know"),
        (lambda facts: facts.update(views="ten"), r"unknown views 'ten'"),
    ],
)
def test_a_foreign_or_changed_description_is_refused(exported, tmp_path, change, message):
    path = copied(exported[0], tmp_path)
    facts = json.loads(path.with_suffix(".json").read_text())
    change(facts)
    path.with_suffix(".json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=message):
        fer_jax.load(path)


def test_corrupt_weights_are_refused(exported, tmp_path):
    path = copied(exported[0], tmp_path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"drawn.safetensors is not the file that its .json describes"):
        fer_jax.load(path)
    path.unlink()
    with pytest.raises(InputError, match=r"drawn.safetensors cannot be read"):
        fer_jax.load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"drawn.json is missing: a model is a .safetensors file with its .json"):
        fer_jax.load(path)


def test_the_weights_are_plain_safetensors(exported):
    root, facts, _ = exported
    arrays = safetensors.load_file(root / "models" / "drawn.safetensors")
    assert sum(array.size for array in arrays.values()) == facts["parameters"]
    assert arrays["params/conv2d/kernel"].dtype == np.float16
    assert arrays["batch_stats/batch_normalization/var"].dtype == np.float32


def test_a_model_is_found_by_the_path_that_it_was_exported_to(exported, tmp_path):
    for ending in ("safetensors", "json"):
        shutil.copy(exported[0] / "models" / f"drawn.{ending}", tmp_path / f"mine.v2.{ending}")
    assert fer_jax.load(tmp_path / "mine.v2").facts == fer_jax.load(exported[0] / "models" / "drawn.safetensors").facts


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no model 'smal': give the name of a shipped one"):
        fer_jax.load("smal")
    with pytest.raises(InputError, match=r"no config of a run"):
        fer_jax.load(tmp_path)
    with pytest.raises(InputError, match="'checkpoint' is for the workdir of a run"):
        fer_jax.load("small", checkpoint="latest")


def test_faces_of_another_shape_are_refused(exported):
    model = fer_jax.load(exported[0] / "models" / "drawn.safetensors")
    with pytest.raises(
        InputError, match=r"drawn takes faces uint8 \[N, 48, 48, 1\]; they are float64 \[2, 48, 48, 1\]"
    ):
        model.probs(np.zeros((2, 48, 48, 1)))
    with pytest.raises(InputError, match=r"they are uint8 \[48, 48, 1\]"):
        model.probs(np.zeros((48, 48, 1), np.uint8))


def test_rgb_faces_are_made_grey_as_pillow_does(exported):
    model = fer_jax.load(exported[0] / "models" / "drawn.safetensors")
    grey = exported[2].test.images[:9]
    np.testing.assert_array_equal(model.probs(np.repeat(grey, 3, axis=3)), model.probs(grey))


@pytest.mark.full
def test_a_network_in_a_users_file_is_no_model_file(tmp_path):
    train.train(tiny.make_config(tmp_path / "cache", **{"train.epochs": 1}), tmp_path / "run")
    with pytest.raises(InputError, match=r"has a network from .*tiny.py:TINY, and a model file has no code"):
        export.export(tmp_path / "run", tmp_path / "model")
    assert not list(tmp_path.glob("model*"))


def test_predict_keeps_compiled_programs_where_the_run_does(exported):
    root, _, _ = exported
    assert predict._config_of(root / "run").data.cache_dir == str(root / "cache")
    assert predict._config_of(None).data.cache_dir == "~/.cache/fer_jax"


def test_no_path_of_the_machine_is_in_the_files(exported):
    root, _, _ = exported
    for ending in ("json", "md"):
        assert str(root) not in (root / "models" / f"drawn.{ending}").read_text()
