"""An average of trained runs, trained further as one network: what it starts from, Keras's steps, and its workdir."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny

from fer_jax import config as config_lib
from fer_jax import inference, members, models, optim, params, scoring, search, steps, train
from fer_jax.errors import InputError

LAYERS = {"conv": "conv 8 relu, batch_norm, max_pool, dropout 0.1, flatten", "dense": "flatten, dense 16 relu"}


def make_config(**fields):
    config = config_lib.get_default()
    config.data.update({"drawn_size": "tiny", "name": "drawn_faces", "feeder": "resident"})
    config.train.update({"batch_size": 64, "epochs": 2})
    config.update_from_flattened_dict(fields)
    return config


def make_average(paths, **fields):
    return make_config(
        **{"model.name": "average", "model.members": tuple(map(str, paths)), "optim.learning_rate": 1e-4, **fields}
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short runs, with their predictions of the test split."""
    root = tmp_path_factory.mktemp("runs")
    for (name, layers), scaling in zip(LAYERS.items(), ("raw", "symmetric"), strict=True):
        train.train(make_config(**{"model.layers": layers, "model.scaling": scaling}), root / name)
        scoring.evaluate(root / name, split="test")
    return [root / name for name in LAYERS]


@pytest.fixture(scope="module")
def averaged(runs):
    """An epoch of their average."""
    workdir = runs[0].parent / "averaged"
    train.train(make_average(runs, **{"train.epochs": 1, "loss.l2": 1e-4}), workdir)
    return workdir


@pytest.fixture
def copies(runs, tmp_path):
    """Members that a test may change or delete."""
    return [shutil.copytree(path, tmp_path / path.name) for path in runs]


def predictions(workdir, split="test"):
    with np.load(workdir / f"evaluation-{split}.npz") as found:
        return found["labels"], found["probs"]


def leaves_of(tree):
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


class Cut(Exception):
    """Ends a training after an epoch."""


def cut_after(last):
    def on_epoch(epoch, scores):
        del scores
        if epoch == last:
            raise Cut

    return on_epoch


@pytest.mark.full
def test_before_it_moves_it_predicts_the_mean_of_its_members(runs, tmp_path):
    # A rate under the spacing of float32 changes no kernel; the frozen normalization keeps its statistics.
    still = {"optim.learning_rate": 1e-12, "optim.freeze": ("members_0/batch_normalization",), "train.epochs": 1}
    train.train(make_average(runs, **still), tmp_path / "run")
    scores = scoring.evaluate(tmp_path / "run", split="test")
    (labels, first), (_, second) = map(predictions, runs)
    mean = (first.astype(float) + second) / 2
    np.testing.assert_allclose(predictions(tmp_path / "run")[1], mean, atol=2e-6)
    assert np.abs(first - second).max() > 0.1
    assert scores["loss"] == pytest.approx(-np.log(mean[range(len(labels)), labels]).mean(), rel=1e-4)
    saved = [json.loads((path / "evaluation-test.json").read_text()) for path in runs]
    assert scores["parameters"] == sum(record["parameters"] for record in saved)


@pytest.mark.full
def test_what_it_started_from_is_recorded(runs, averaged):
    recorded = json.loads((averaged / "run.json").read_text())["weights"]["members"]
    loaded = [inference.load(path) for path in runs]
    assert [(one["workdir"], one["epoch"]) for one in recorded] == [
        (str(path), member.meta["epoch"]) for path, member in zip(runs, loaded, strict=True)
    ]
    assert len({one["digest"] for one in recorded}) == 2
    config = json.loads((averaged / "config.json").read_text())
    assert [section["layers"] for section in config["model"]["member_models"]] == list(LAYERS.values())


def moved(workdir, runs):
    """Returns {name of a leaf: whether it differs from that of the member's run}."""
    found, after = {}, inference.load(workdir, "latest").variables
    for number, path in enumerate(runs):
        scope, before = f"members_{number}", leaves_of(inference.load(path).variables)
        mine = leaves_of({kind: tree[scope] for kind, tree in after.items() if scope in tree})
        assert mine.keys() == before.keys()
        found |= {scope + leaf: not np.array_equal(value, before[leaf]) for leaf, value in mine.items()}
    return found


@pytest.mark.full
def test_every_member_learns_and_a_frozen_one_does_not(runs, averaged, tmp_path):
    assert all(moved(averaged, runs).values())
    train.train(make_average(runs, **{"train.epochs": 1, "optim.freeze": ("members_0",)}), tmp_path / "run")
    found = moved(tmp_path / "run", runs)
    assert {name.split("[")[0] for name, differs in found.items() if differs} == {"members_1"}
    assert all(differs for name, differs in found.items() if name.startswith("members_1"))


WEIGHTS = ("kernel", "scale", "bias", "mean", "var")  # in the order of Keras's get_weights


def in_keras(keras):
    """Returns (Keras's Average layer over two softmax networks, compiled with Adam 1e-4; its layers by our paths)."""
    layers = keras.layers
    placed = {
        "members_0/conv2d": layers.Conv2D(8, 3, padding="same", activation="relu"),
        "members_0/batch_normalization": layers.BatchNormalization(),
        "members_0/dense": layers.Dense(7, activation="softmax"),
        "members_1/dense": layers.Dense(16, activation="relu"),
        "members_1/dense_1": layers.Dense(7, activation="softmax"),
    }
    conv, norm, *dense = placed.values()
    faces = keras.Input((48, 48, 1))
    maps = layers.MaxPooling2D(2)(norm(conv(layers.Rescaling(1 / 255)(faces))))
    first = dense[0](layers.Flatten()(maps))
    second = dense[2](dense[1](layers.Flatten()(layers.Rescaling(1 / 127.5, -1)(faces))))
    model = keras.Model(faces, layers.Average()([first, second]))
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy())
    return model, placed


def test_its_steps_are_those_of_kerass_average_layer(keras):
    texts = {"conv 8 relu, batch_norm, max_pool, flatten": "unit", "flatten, dense 16 relu": "symmetric"}
    fields = [{"model.layers": layers, "model.scaling": scaling} for layers, scaling in texts.items()]
    sections = tuple(config_lib.to_dict(make_config(**one))["model"] for one in fields)
    config = make_average(["a", "b"], **{"model.member_models": sections})
    model = models.make(config.model, 7)
    tx, _ = optim.make(config.optim, steps_per_epoch=10, epochs=1)
    phase = tiny.make_phase(model, tx)
    state = steps.init_state(phase, jax.random.key(0))
    theirs, placed = in_keras(keras)
    start = weights_of(state)
    for path, layer in placed.items():
        layer.set_weights(start[path])
    step = jax.jit(steps.make_train_step(phase, tiny.make_objective(), key=jax.random.key(1)))
    rng = np.random.default_rng(0)
    for _ in range(5):
        label = rng.integers(0, 7, 32).astype(np.int32)
        image = np.clip(rng.normal(100 + 10 * label, 40, (48, 48, 1, 32)), 0, 255).transpose(3, 0, 1, 2)
        image = image.astype(np.uint8)
        state, sums = step(state, {"image": image, "label": label, "mask": np.ones(32, np.float32)})
        loss = float(theirs.train_on_batch(image.astype(np.float32), label))
        theirs.reset_metrics()
        assert float(sums["loss"]) / 32 == pytest.approx(loss, rel=1e-4)
    ours = weights_of(state)
    assert ours.keys() == placed.keys()
    for path, layer in placed.items():
        for before, mine, value in zip(start[path], ours[path], layer.get_weights(), strict=True):
            assert np.linalg.norm(mine - value) < 1e-3 * np.linalg.norm(value - before), path


def weights_of(state):
    """Returns {path of a layer: its arrays in Keras's order}."""
    rows = params.layers(params.join(state.params, state.batch_stats))
    return {path: [np.asarray(row[leaf]) for leaf in WEIGHTS if leaf in row] for path, row in rows.items()}


@pytest.mark.full
def test_a_run_resumes_and_is_evaluated_without_its_members(copies, tmp_path):
    config = make_average(copies)
    train.train(config, tmp_path / "whole")
    scoring.evaluate(tmp_path / "whole", split="test")
    with pytest.raises(Cut):
        train.train(config, tmp_path / "cut", on_epoch=cut_after(1))
    for path in copies:
        shutil.rmtree(path)
    train.train(config, tmp_path / "cut")
    whole, cut = (leaves_of(inference.load(tmp_path / name, "latest").variables) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for leaf, value in whole.items():
        np.testing.assert_array_equal(value, cut[leaf])
    scoring.evaluate(tmp_path / "cut", split="test")
    np.testing.assert_array_equal(predictions(tmp_path / "cut")[1], predictions(tmp_path / "whole")[1])
    with pytest.raises(InputError, match=r"conv.config\.json: no config of a run"):
        train.train(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.full
def test_a_search_tries_averages(runs, tmp_path):
    space = {"search.space": ("optim.learning_rate log 1e-5 1e-3",), "train.epochs": 1}
    study = search.search(make_average(runs, **space), tmp_path / "study", trials=1)
    found = inference.load(tmp_path / "study" / study.best_trial.user_attrs["workdir"])
    assert found.config.optim.learning_rate == study.best_trial.params["optim.learning_rate"]
    assert set(found.variables["params"]) == {"members_0", "members_1"}


@pytest.mark.full
def test_an_average_may_be_a_member(runs, averaged, tmp_path):
    still = {"optim.learning_rate": 1e-12, "optim.freeze": (".*/batch_normalization",), "train.epochs": 1}
    train.train(make_average([averaged, runs[1]], **still), tmp_path / "outer")
    inner, other, outer = map(inference.load, (averaged, runs[1], tmp_path / "outer"))
    faces = scoring.load_faces(inner).splits["test"]
    probs = [inference.predict(model, faces)[1] for model in (inner, other, outer)]
    np.testing.assert_allclose(probs[2], (probs[0] + probs[1]) / 2, atol=2e-6)


@pytest.mark.full
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.members": ("conv",)}, "give the workdirs of two or more trained runs"),
        ({"model.members": ("conv", "conv")}, "trained runs, each once"),
        ({"model.members": ("conv", "gone")}, r"gone.config\.json: no config of a run here"),
        ({"model.weights": "imagenet"}, r"model\.weights is 'imagenet', but the members .* omit it"),
        ({"model.dtype": "bfloat16"}, r"model\.dtype is 'bfloat16', but the members"),
        ({"model.name": "cnn", "model.layers": "flatten"}, "model.members is for model.name 'average'"),
        ({"data.split": "random"}, r"conv was trained on another split of the faces than this run"),
        ({"data.drawn_size": "full", "data.train_faces": 64}, "conv was trained on another split .* fingerprint"),
        ({"data.classes": ("happy", "sad")}, "conv has the classes angry.*this run happy, sad: .*the same classes"),
        ({"optim.freeze_first_layers": 3}, "Keras has no network 'average'"),
    ],
)
def test_members_that_do_not_fit_are_refused_before_the_work(runs, tmp_path, fields, message):
    paths = [runs[0].parent / name for name in fields.pop("model.members", LAYERS)]
    with pytest.raises(InputError, match=message):
        train.train(make_average(paths, **fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_members_of_two_splits_or_without_a_checkpoint_are_refused(copies, tmp_path):
    config = json.loads((copies[1] / "config.json").read_text())
    config["data"]["split"] = "random"
    (copies[1] / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"dense was trained on another split of the faces than .*conv"):
        train.train(make_average(copies), tmp_path / "run")
    shutil.rmtree(copies[0] / "checkpoints")
    with pytest.raises(InputError, match=r"conv.*train first"):
        train.train(make_average(copies), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_another_network_in_a_members_workdir_than_the_run_began_with_is_refused(copies, tmp_path):
    config = make_average(copies)
    begun = members.resolve(config, tmp_path / "run")
    (tmp_path / "run").mkdir()
    saved = config_lib.to_dict(begun)
    saved["model"]["member_models"][1]["layers"] = "flatten, dense 8 relu"
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    with pytest.raises(
        InputError, match=r"dense has another network .*: dense/bias, dense/kernel, dense_1/kernel differ"
    ):
        train.train(config, tmp_path / "run")


def test_its_logits_are_those_of_the_mean_of_its_members_probabilities():
    sections = ({"layers": "conv 4 relu, flatten"}, {"layers": "flatten, dense 8 relu"})
    section = config_lib.get_default().model
    section.update(name="average", member_models=sections)
    model, faces = models.make(section, 7), np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), dtype=np.uint8)
    variables = model.init(jax.random.key(0), faces, train=False)
    probs = []
    for number, one in enumerate(sections):
        member = models.make(config_lib.from_dict({"model": one}).model, 7)
        logits = member.apply({"params": variables["params"][f"members_{number}"]}, faces, train=False)
        probs.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    assert np.abs(probs[0] - probs[1]).max() > 0.01
    np.testing.assert_allclose(np.exp(model.apply(variables, faces, train=False)), np.mean(probs, axis=0), rtol=1e-5)


def test_a_config_without_members_is_refused():
    with pytest.raises(InputError, match=r"has no members: set model\.members"):
        models.make(make_config(**{"model.name": "average"}).model, 7)
    with pytest.raises(InputError, match="two or more trained runs"):
        members.resolve(make_config(**{"model.name": "average"}), "run")
