"""The formats of `fer-jax export` other than the archive: each computes what the model computes."""

import datetime
import json
import shutil

import jax
import numpy as np
import onnx
import pytest
import tiny

import fer_jax
from fer_jax import datasets, export, report, train
from fer_jax.errors import InputError
from fer_jax.exports import formats, onnx_models, quantization, stablehlo

NETWORK = {
    "model.name": "cnn",
    "model.layers": "conv 8 relu, batch_norm, max_pool, conv 16 relu, max_pool, global_avg_pool",
    "model.head": "",
    "model.size_px": 0,
    "train.epochs": 1,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    config = tiny.make_config(root / "cache", **NETWORK)
    train.train(config, root / "run")
    return root / "run", datasets.load(config.data)


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """All formats of a run, exported at once; (path without an ending, facts)."""
    out = tmp_path_factory.mktemp("models") / "drawn"
    return out, export.export(run[0], out, formats=export.FORMATS, views="flip")


def test_every_format_computes_what_the_archive_computes(run, written):
    (_, data), (out, facts) = run, written
    faces = data.test.images
    expected = fer_jax.load(f"{out}.safetensors").probs(faces)
    (probs,) = onnx_models.session(f"{out}.onnx").run(None, {"faces": faces})
    np.testing.assert_allclose(probs, expected, atol=1e-5)
    (rounded,) = onnx_models.session(f"{out}.int8.onnx").run(None, {"faces": faces})
    np.testing.assert_allclose(rounded, expected, atol=0.1)
    assert abs(rounded - expected).max() > 1e-5, "nothing was quantized"
    program = stablehlo.load(out.with_name("drawn.stablehlo").read_bytes())
    for count in (1, 3):
        np.testing.assert_allclose(program(faces[:count]), expected[:count], atol=1e-5)
    assert {name: one["file"] for name, one in facts["exports"].items()} == {
        "onnx": "drawn.onnx",
        "int8": "drawn.int8.onnx",
        "stablehlo": "drawn.stablehlo",
    }


def test_int8_is_scored_on_the_validation_faces(run, written):
    (_, data), (out, facts) = run, written
    (probs,) = onnx_models.session(f"{out}.int8.onnx").run(None, {"faces": data.validation.images})
    accuracy = (probs.argmax(axis=1) == data.validation.labels).mean()
    assert facts["exports"]["int8"]["validation_accuracy"] == pytest.approx(accuracy)
    assert f"accuracy {100 * accuracy:.2f}%" in out.with_suffix(".md").read_text()


def test_int8_weights_are_8_bits(written):
    model = onnx.load(f"{written[0]}.int8.onnx")
    kernels = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4]
    assert len(kernels) == 2
    assert [one.key for one in model.metadata_props] == ["fer_jax"]


def test_a_program_says_for_how_long_jax_reads_it(written):
    facts = written[1]["exports"]["stablehlo"]
    days = datetime.date.fromisoformat(facts["readable_until"]) - datetime.datetime.now(datetime.UTC).date()
    assert 179 <= days.days <= 180
    assert facts["jax"] == jax.__version__ and facts["platforms"] == ["cpu", "cuda"]
    assert facts["readable_until"] in written[0].with_suffix(".md").read_text()


def test_a_model_file_is_exported_without_its_run(written, tmp_path):
    facts = export.export(f"{written[0]}.safetensors", tmp_path / "other")
    assert list(facts["exports"]) == ["onnx"]
    saved = json.loads((tmp_path / "other.json").read_text())
    assert saved["figures"] == written[1]["figures"] and "sha256" not in saved
    assert "## Figures" in (tmp_path / "other.md").read_text()
    without = export.export(f"{written[0]}.safetensors", tmp_path / "third", views="none")
    assert "figures" not in without, "figures of other views"


@pytest.mark.full
@pytest.mark.parametrize("error", [1e-3, np.nan])
def test_where_a_format_computes_something_else_none_is_written(error, tmp_path, monkeypatch):
    recognizer = fer_jax.load(views="none")
    monkeypatch.setattr(stablehlo, "load", lambda content: lambda faces: recognizer.probs(faces) + error)
    with pytest.raises(InputError, match=r"stablehlo.*differ"):
        formats.write(recognizer, tmp_path / "model", ["onnx", "stablehlo"])
    assert not list(tmp_path.iterdir())


def test_an_archive_keeps_its_description(written, tmp_path):
    for ending in (".safetensors", ".json"):
        shutil.copy(f"{written[0]}{ending}", tmp_path / f"mine{ending}")
    with pytest.raises(InputError, match=r"mine\.json would be replaced"):
        export.export(tmp_path / "mine.safetensors", tmp_path / "mine", formats=["stablehlo"])
    fer_jax.load(tmp_path / "mine.safetensors")


def test_shared_files_do_not_name_folders(run):
    recognizer = fer_jax.load(run[0])
    assert "/" in recognizer.name
    (facts,) = (json.loads(one.value) for one in onnx_models.classifier(recognizer).metadata_props)
    assert facts["name"] == "run"


def test_a_card_speaks_of_fer2013_only_where_it_was_trained_on():
    facts = {"name": "mine", "image_shape": [224, 224, 3], "classes": ["a", "b"], "parameters": 1}
    card = report.model_card(facts)
    assert "FER-2013" not in card and "224x224 colour crops" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["tflite"]}, "unknown format tflite"),
        ({"formats": ["safetensors"]}, "for the workdir of a run"),
        ({"score_test": True}, "for the workdir of a run"),
        ({"formats": ["int8"]}, "--data_path"),
        ({"views": "ten_crop"}, "cannot be exported"),
        ({"views": "ten_crop", "formats": ["stablehlo"]}, "cannot be exported"),
        ({"views": "mirror"}, "unknown views"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_nothing_written(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export.export("small", tmp_path / "model", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_ranges_come_from_the_calibration_faces():
    recognizer = fer_jax.load(views="none")
    model, faces = (
        onnx_models.classifier(recognizer),
        np.random.default_rng(0).integers(0, 256, (8, 48, 48, 1), np.uint8),
    )
    dark = quantization.quantize(model, faces // 16)
    wrong = abs(onnx_models.session(dark).run(None, {"faces": faces})[0] - recognizer.probs(faces)).max()
    right = quantization.quantize(model, faces)
    assert abs(onnx_models.session(right).run(None, {"faces": faces})[0] - recognizer.probs(faces)).max() < wrong
