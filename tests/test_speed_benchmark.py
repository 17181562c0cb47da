"""benchmarks/speed: the same network on every side, sound sums, and rows that stay recorded."""

import functools
import json
import pathlib
import sys
import types

import jax
import numpy as np
import pytest

from fer_jax import freezing, params
from fer_jax.errors import InputError

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "speed"))
import processes
import rows
import run
import summary
import worker

PUBLISHED = {"r1_model_2": 1_469_031, "r5_cnn": 5_810_183, "vgg16_frozen_224": 15_620_615}


@functools.cache
def spec_of(name):
    return rows.describe(rows.get_config(rows.ROWS[name]))


@functools.cache
def counts_of(name):
    """Returns the counts of ours by the shapes of a training's state."""
    (phase,) = freezing.make_phases(
        rows.get_config(rows.ROWS[name]), rows.CLASSES, image_shape=(48, 48, 1), steps_per_epoch=1
    )
    trained = params.count(params.split(phase.abstract.params, phase.frozen)[0])
    return {"total": params.count(phase.abstract.params) + params.count(phase.abstract.batch_stats), "trained": trained}


@pytest.mark.parametrize("name", rows.ROWS)
def test_keras_has_the_same_network(name, keras):
    import in_keras

    model, spec = in_keras.build(spec_of(name)), spec_of(name)
    assert in_keras.parameters(model) == counts_of(name)
    assert model.input_shape == (None, 48, 48, 1)
    if spec["network"] != "cnn":
        (base,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
        assert base.input_shape == (None, spec["size_px"], spec["size_px"], 3)
    assert counts_of(name)["total"] == PUBLISHED.get(name, counts_of(name)["total"])


@pytest.mark.parametrize("name", rows.ROWS)
def test_pytorch_has_the_same_network(name):
    torch = pytest.importorskip("torch")
    import torch_networks

    network = torch_networks.Network(spec_of(name))
    assert torch_networks.parameters(network) == counts_of(name)
    network.eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 48, 48, dtype=torch.uint8)).shape == (1, rows.CLASSES)


@pytest.mark.parametrize("name", ["r1_model_2", "vgg16_frozen_96"])
def test_keras_sees_the_faces_as_we_do(name, keras):
    import in_keras

    from fer_jax.models.preprocess import Preprocess

    spec = spec_of(name)
    faces = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 1), dtype=np.uint8)
    image = keras.Input((48, 48, 1), dtype="uint8")
    theirs = keras.Model(image, in_keras.preprocess(image, spec))(faces)
    ours = Preprocess(spec["scaling"], spec["channels"], spec["size_px"])(jax.numpy.asarray(faces))
    np.testing.assert_allclose(np.asarray(theirs), np.asarray(ours), atol=1e-3)


def test_the_work_of_a_step_is_what_its_convolutions_and_dense_layers_take():
    import in_fer_jax

    # Forward, and backward to the weights and (but for the first layer) to the input; SAME sees the rim only in part.
    side = lambda n: (3 * n - 2) / (3 * n)  # noqa: E731
    forward, first = 0, 48**2 * 9 * 32 * side(48) ** 2
    for px, ins, outs in ((48, 32, 32), (24, 32, 64), (24, 64, 64), (12, 64, 128), (12, 128, 128)):
        forward += px**2 * 9 * ins * outs * side(px) ** 2
    forward += 6 * 6 * 128 * 256 + 256 * 7
    expected = 128 * 2 * (3 * forward + 2 * first)
    assert in_fer_jax.step_flops(spec_of("r1_model_2")) == pytest.approx(expected, rel=0.1)
    assert in_fer_jax.step_flops(spec_of("r1_model_2"), "evaluate") == pytest.approx(
        128 * 2 * (forward + first), rel=0.1
    )


@pytest.mark.full
def test_our_side_trains_judges_and_predicts_and_says_what_its_step_needs():
    import in_fer_jax

    config = rows.get_config(rows.ROWS["r1_model_2"])
    config.model.layers = "conv 4 relu, global_avg_pool, dropout 0.5"
    config.train.batch_size = 16
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (32, 48, 48, 1), dtype=np.uint8), rng.integers(0, rows.CLASSES, 32, dtype=np.int32)
    system = in_fer_jax.System(rows.describe(config), *faces)
    before = jax.device_get(system.state.params)
    for work in (system.train, system.evaluate, system.predict):
        work(3)
    moved = jax.tree.map(lambda old, new: float(abs(old - new).max()), before, jax.device_get(system.state.params))
    assert min(jax.tree.leaves(moved)) > 0
    found = system.describe()
    assert found["step_flops"] > 16 * 48 * 48 * 2 * 9 * 4 and found["temporary_MiB"] > 0


@pytest.mark.full
def test_where_a_plugin_does_not_count_a_process_on_the_cpu_does(monkeypatch):
    import in_fer_jax

    here = in_fer_jax.step_flops(spec_of("r1_model_2"), "evaluate")
    monkeypatch.setattr(in_fer_jax.jax, "default_backend", lambda: "gpu")
    assert in_fer_jax.step_flops(spec_of("r1_model_2"), "evaluate") == here


def rounds_of(*speeds):
    """Returns rounds in which each framework took two seconds."""
    return [{name: {"images": 2 * speed, "seconds": 2.0} for name, speed in one.items()} for one in speeds]


def test_medians_and_ratios_to_the_faster_of_the_same_round():
    rounds = rounds_of(
        {"fer_jax": 100, "keras": 50, "torch": 40},
        {"fer_jax": 90, "keras": 30, "torch": 60},
        {"fer_jax": 300, "keras": 100, "torch": 75},
    )
    assert summary.rates(rounds) == {"fer_jax": 100, "keras": 50, "torch": 60}
    found = summary.ratio(rounds)
    assert found["rounds"] == [2.0, 1.5, 3.0]
    assert (found["median"], found["min"], found["max"]) == (2.0, 1.5, 3.0)


def test_a_framework_alone_has_no_ratio():
    assert summary.ratio(rounds_of({"fer_jax": 100})) is None
    assert summary.ratio(rounds_of({"keras": 100, "torch": 10})) is None
    assert summary.ratio(rounds_of({"fer_jax": 30, "torch": 10}))["median"] == 3.0


def row_of(speed):
    """Returns the record of a row, in which fer_jax has a speed and Keras half of it."""
    rounds = {kind: rounds_of({"fer_jax": speed, "keras": speed / 2}) for kind in summary.KINDS}
    facts = {"parameters": {"total": 10, "trained": 9}, "first_step_seconds": 1.0, "peak_MiB": 100.0}
    workers = {
        "fer_jax": [{**facts, "kinds": ["train", "evaluate", "predict"], "temporary_MiB": 50.0}],
        "keras": [{**facts, "kinds": ["predict"]}, {**facts, "kinds": ["train", "evaluate"], "peak_MiB": 300.0}],
    }
    return {"batch": 8, "size_px": 48, "workers": workers, "rounds": rounds, "summary": summary.summarize(rounds)}


def test_rows_stay_until_they_are_measured_again(tmp_path):
    out = tmp_path / "deep" / "results.json"
    run.record(out, "first", row_of(1000))
    run.record(out, "second", row_of(500))
    run.record(out, "first", row_of(2000))
    recorded = json.loads(out.read_text())["rows"]
    assert list(recorded) == ["first", "second"]
    assert recorded["first"]["summary"]["train"]["images_per_second"]["fer_jax"] == 2000
    assert recorded["second"] == json.loads(json.dumps(row_of(500)))
    table = (out.parent / "table.md").read_text()
    assert "| first | train | 2,000 | 1,000 | **2.00** (2.00 to 2.00) |" in table
    assert "| second | predict | 500 | 250 | **2.00** (2.00 to 2.00) |" in table
    assert "| first | 8 | 48 | 10 | 9 | 1.0 s | 1.0 s | 100 MiB | 300 MiB | 50 MiB |" in table
    summary.figure(recorded, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").stat().st_size > 1000


def test_networks_with_other_counts_are_refused():
    same = {"total": 10, "trained": 9}
    run.same_counts({"fer_jax": same, "keras": dict(same)})
    with pytest.raises(InputError, match=r"fer_jax 10 \(9 trained\); keras 11 \(9 trained\)"):
        run.same_counts({"fer_jax": same, "keras": {"total": 11, "trained": 9}})
    with pytest.raises(InputError, match="not the same network"):
        run.same_counts({"fer_jax": same, "keras": {"total": 10, "trained": 8}})


class Steady:
    """A system whose batches take half a second, by its own clock."""

    def __init__(self, spec, images, labels, **choice):
        self.done, self.choice = [], choice

    def train(self, batches):
        self.done.append(batches)
        return 0.5 * batches

    def parameters(self):
        return {"total": 1, "trained": 1}

    def describe(self):
        return {"done": self.done, **self.choice}


def test_a_worker_does_about_as_much_as_it_is_asked_and_counts_whole_batches(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "in_steady", types.SimpleNamespace(System=Steady, versions=dict))
    np.savez(tmp_path / "faces.npz", images=np.zeros((4, 48, 48, 1), np.uint8), labels=np.zeros(4, np.int32))
    asked = worker.Worker("steady")
    built = asked.answer(
        {"do": "build", "spec": {"batch": 4}, "data": str(tmp_path / "faces.npz"), "choice": {"way": 1}}
    )
    assert built["parameters"] == {"total": 1, "trained": 1}
    assert asked.answer({"do": "train", "seconds": 8}) == {"images": 64, "seconds": 8.0}
    assert asked.answer({"do": "train", "seconds": 0.1}) == {"images": 8, "seconds": 1.0}  # two batches at least
    finished = asked.answer({"do": "finish"})
    assert finished["done"] == [1, 1, 1, 16, 2]  # the first step, two to warm up, and what was asked
    assert finished["way"] == 1
    assert finished["peak_MiB"] > 10


def test_a_crew_keeps_the_faster_way_for_each_kind_of_work(monkeypatch):
    speeds = {"a": {"train": 10, "evaluate": 5, "predict": 1}, "b": {"train": 8, "evaluate": 9, "predict": 7}}
    speeds["c"] = {"train": 1, "evaluate": 1, "predict": 1}
    ended = []

    class Process:
        def __init__(self, framework, *, python):
            self.way = None

        def ask(self, do, **rest):
            if do == "build":
                self.way = rest["choice"]["way"]
                return {"parameters": {"total": 1, "trained": 1}}
            return {"images": speeds[self.way][do], "seconds": 1.0} if do != "finish" else {"peak_MiB": 1.0}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            ended.append(self.way)

    monkeypatch.setattr(processes, "Process", Process)
    with processes.Crew("keras", {}, choices=tuple({"way": way} for way in "abc"), seconds=1.0) as crew:
        assert ended == ["c"]
        assert crew.work("train", 1.0)["images"] == 10
        assert crew.work("predict", 1.0)["images"] == 7
        assert [facts["kinds"] for facts in crew.finish()] == [["train"], ["evaluate", "predict"], []]
    assert set(ended) == {"a", "b", "c"}


def test_a_worker_that_ends_is_named():
    with (
        processes.Process("no_framework", python=sys.executable) as process,
        pytest.raises(InputError, match="the worker of no_framework ended at 'train'"),
    ):
        process.ask(do="train", seconds=1)
