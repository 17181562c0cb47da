"""The model that ships: small, described truly, and loaded without TensorFlow, a network or a workdir."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import fer_jax
from fer_jax import config as config_lib
from fer_jax import datasets, portable, predict, predicting, report, significance

REAL = os.environ.get("FER2013_DIR")
NAME = portable.DEFAULT


@pytest.fixture(scope="module")
def facts():
    return json.loads((portable.SHIPPED / f"{NAME}.json").read_text())


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    data = config_lib.get_default().data
    data.update({"path": f"{REAL}/csv", "cache_dir": str(tmp_path_factory.mktemp("cache"))})
    return datasets.load(data)


def test_its_files_are_small_and_the_card_is_that_of_the_figures(facts):
    files = [portable.SHIPPED / f"{NAME}.{ending}" for ending in ("safetensors", "json", "md")]
    assert sum(path.stat().st_size for path in files) < 2e6
    assert files[2].read_text() == report.model_card(facts)
    assert facts["data"]["data_name"] == "fer2013" and not facts["data"]["synthetic"]
    assert facts["test_scored"].startswith("once")
    assert list(facts["figures"]) == ["validation", "test"]


def test_the_readme_has_its_figures(facts):
    readme = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
    for split in ("validation", "test"):
        assert f"{100 * facts['figures'][split]['accuracy']:.2f}%" in readme
    assert f"{facts['parameters']:,}" in readme


def test_it_is_loaded_without_tensorflow_or_training():
    script = (
        "import sys, numpy as np, fer_jax\n"
        "model = fer_jax.load()\n"
        "(found,) = model.predict(np.zeros((48, 48), np.uint8), faces='given')\n"
        "print(found.faces[0].label)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'tensorflow', 'keras', 'orbax', 'optax', 'tensorflow_datasets', 'matplotlib', 'sklearn', 'requests'}))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=pathlib.Path("/")
    )
    label, heavy = ran.stdout.splitlines()
    assert label in fer_jax.load().classes and heavy == "[]"


@pytest.mark.skipif(not REAL, reason="FER2013_DIR is not set")
def test_a_folder_of_faces_is_predicted_as_its_figures_say(facts, validation, tmp_path):
    from PIL import Image

    faces = validation.validation
    assert (
        significance.digest_faces(faces.images, faces.labels, validation.classes)
        == (facts["figures"]["validation"]["faces_digest"])
    )
    model = fer_jax.load()
    expected = model.probs(faces.images)
    right = expected.argmax(axis=1) == [model.classes.index(validation.classes[label]) for label in faces.labels]
    assert right.mean() == pytest.approx(facts["figures"]["validation"]["accuracy"], abs=1e-3)

    folder = tmp_path / "faces"
    folder.mkdir()
    for number, image in enumerate(faces.images[:1000]):
        Image.fromarray(image[..., 0]).save(folder / f"{number:04d}.png")
    predict.predict_files(model, [str(folder)], predicting.Options(faces="given"), out=tmp_path / "found.jsonl")
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [pathlib.Path(one["source"]).name for one in found] == [f"{number:04d}.png" for number in range(1000)]
    probs = [[one["faces"][0]["probs"][name] for name in model.classes] for one in found]
    np.testing.assert_allclose(probs, expected[:1000], atol=1e-5)
