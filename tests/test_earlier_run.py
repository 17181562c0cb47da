"""A run of an earlier version, with its predictions: it is evaluated, resumed and found complete as it was then."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from fer_jax import checkpoint, inference, scoring, train
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib

EARLIER = pathlib.Path(__file__).parent / "golden" / "earlier_run"


@pytest.fixture
def run(tmp_path):
    """A copy of the run, which keeps its dataset in a folder of the test."""
    folder = shutil.copytree(EARLIER, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["data"]["cache_dir"] = str(tmp_path / "cache")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def final_state(folder):
    return checkpoint.Checkpoints(folder).restore("latest", None)[0]


@pytest.mark.full
@pytest.mark.parametrize("kind", ["best", "latest"])
def test_its_predictions_are_those_of_then(run, kind):
    with np.load(run / "evaluation-validation.npz") as found:
        then = found["probs"]
    scores = scoring.evaluate(run, split="validation", checkpoint=kind)
    assert scores["accuracy"] == pytest.approx(
        json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["validation_accuracy"]
    )
    with np.load(run / "evaluation-validation.npz") as found:
        np.testing.assert_allclose(found["probs"], then, rtol=1e-4, atol=1e-6)


@pytest.mark.full
def test_it_is_resumed_from_the_checkpoint_between_its_phases(run):
    shutil.rmtree(run / "checkpoints" / "latest" / "33")
    config = inference.read_config(run)
    train.train(config, run)
    assert [epoch["epoch"] for epoch in workdir_lib.read_history(run)] == [1, 2, 3]
    close = lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)  # noqa: E731
    jax.tree.map(close, final_state(run)["params"], final_state(EARLIER)["params"])


@pytest.mark.full
def test_it_is_complete(run, caplog):
    with caplog.at_level("INFO", "fer_jax"):
        best = train.train(config_lib.from_dict(json.loads((run / "config.json").read_text())), run)
    assert best["epoch"] == 3
    assert any("this run is complete: 3 epochs" in message for message in caplog.messages)
    assert [epoch["epoch"] for epoch in workdir_lib.read_history(run)] == [1, 2, 3]
