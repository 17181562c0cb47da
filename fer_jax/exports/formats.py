"""Writes a recognizer in the formats that other programs run, each compared with JAX before any is written."""

import pathlib

import numpy as np

from fer_jax import exports, files
from fer_jax.exports import comparison
from fer_jax.runtime import timing

BATCH = 64


def write(recognizer, out, names, splits=None) -> dict:
    """Writes a recognizer in some formats as `<out><ending>`; returns the facts of each file, by format.

    All formats are made and compared before the first is written.

    Args:
      recognizer: a `fer_jax.Recognizer`.
      out: the path without an ending.
      names: keys of `exports.ENDINGS`.
      splits: {'train' and 'validation': faces with `images` and `labels` in the order of the recognizer's classes};
        int8 needs them, to choose the ranges of the activations and to be scored.

    Raises:
      InputError: a network that cannot be exported, a missing package, int8 without faces, or probabilities that differ
        from JAX's.
    """
    if not names:
        return {}
    faces = comparison.draw_faces(recognizer)
    if splits is not None and len(splits["validation"].images):
        faces = splits["validation"].images[: comparison.FACES]
    made = {}
    if {"onnx", "int8"} & set(names):
        from fer_jax.exports import onnx_models

        made["onnx"] = onnx_models.classifier(recognizer)
    contents, found = {}, {}
    for name in names:
        contents[name], run, facts = _MAKERS[name](recognizer, made, splits)
        tolerance = 1.0 if name == "int8" else comparison.TOLERANCE
        found[name] = {
            "file": f"{pathlib.Path(out).name}{exports.ENDINGS[name]}",
            "bytes": len(contents[name]),
            "largest_difference": comparison.compare(name, run, recognizer, faces, tolerance=tolerance),
            **facts,
        }
    for name, content in contents.items():
        with files.atomic_write(f"{out}{exports.ENDINGS[name]}", "wb") as file:
            file.write(content)
    return found


def _onnx(_, made, __):
    from fer_jax.exports import onnx_models

    return made["onnx"].SerializeToString(), onnx_models.runner(made["onnx"]), {}


def _int8(_, made, splits):
    from fer_jax.exports import onnx_models, quantization

    train, validation = splits["train"].images, splits["validation"]
    count = min(quantization.CALIBRATION_FACES, len(train))
    picked = np.sort(np.random.default_rng(0).choice(len(train), count, replace=False))
    model = quantization.quantize(made["onnx"], train[picked])
    run = onnx_models.runner(model)
    facts = {
        "calibrated_on": f"{count} training faces",
        "validation_faces": len(validation.labels),
        "validation_accuracy": _accuracy(run, validation, "scoring int8"),
        "validation_accuracy_float32": _accuracy(onnx_models.runner(made["onnx"]), validation, "scoring float32"),
    }
    return model.SerializeToString(), run, facts


def _stablehlo(recognizer, _, __):
    from fer_jax.exports import stablehlo

    content, facts = stablehlo.make(recognizer)
    return content, stablehlo.load(content), facts


_MAKERS = {"onnx": _onnx, "int8": _int8, "stablehlo": _stablehlo}


def _accuracy(run, faces, what):
    batches = [slice(start, start + BATCH) for start in range(0, len(faces.labels), BATCH)]
    right = 0
    for batch in timing.watched(batches, what, faces=len(faces.labels), batch_size=BATCH):
        right += int((run(faces.images[batch]).argmax(axis=1) == faces.labels[batch]).sum())
    return right / len(faces.labels)
