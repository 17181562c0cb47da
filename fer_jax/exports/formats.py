"""Writes a recognizer in the formats that other programs run, each compared with JAX before it is kept."""

import pathlib

import numpy as np

from fer_jax import exports, files
from fer_jax.errors import InputError
from fer_jax.runtime import timing

TOLERANCE = 1e-4  # of a probability
COMPARED_FACES = 100
BATCH = 64


def write(recognizer, out, names, splits=None) -> dict:
    """Writes a recognizer in some formats as `<out><ending>`; returns the facts of each file, by format.

    Args:
      recognizer: a `fer_jax.Recognizer`.
      out: the path without an ending.
      names: keys of `exports.ENDINGS`.
      splits: {'train' and 'validation': faces with `images` and `labels` in the order of the recognizer's classes};
        int8 needs them, to choose the ranges of the activations and to be scored.

    Raises:
      InputError: a network that cannot be exported, a missing package, int8 without faces, or a file whose
        probabilities differ from JAX's by more than TOLERANCE.
    """
    if "int8" in names and splits is None:
        raise InputError("int8 needs faces to choose its ranges and to be scored: give --data_path")
    faces = _compared_faces(recognizer, splits)
    expected, found, made = recognizer.probs(faces), {}, {}
    if {"onnx", "int8"} & set(names):
        from fer_jax.exports import onnx_models

        made["onnx"] = onnx_models.classifier(recognizer)
    for name in names:
        content, run, facts = _MAKERS[name](recognizer, made, splits)
        difference = float(np.abs(run(faces) - expected).max())
        if difference > TOLERANCE and name != "int8":
            raise InputError(
                f"{name}: its probabilities differ from JAX's by {difference:.1e}, which is too much to export it"
            )
        path = pathlib.Path(f"{out}{exports.ENDINGS[name]}")
        with files.atomic_write(path, "wb") as file:
            file.write(content)
        found[name] = {"file": path.name, "bytes": len(content), "largest_difference": difference, **facts}
    return found


def _compared_faces(recognizer, splits):
    if splits is not None and len(splits["validation"].images):
        return splits["validation"].images[:COMPARED_FACES]
    return np.random.default_rng(0).integers(0, 256, (COMPARED_FACES, *recognizer.image_shape), np.uint8)


def _onnx(_, made, __):
    return made["onnx"].SerializeToString(), _runner(made["onnx"]), {}


def _int8(_, made, splits):
    from fer_jax.exports import quantization

    train, validation = splits["train"].images, splits["validation"]
    count = min(quantization.CALIBRATION_FACES, len(train))
    picked = np.sort(np.random.default_rng(0).choice(len(train), count, replace=False))
    model = quantization.quantize(made["onnx"], train[picked])
    run = _runner(model)
    facts = {
        "calibrated_on": f"{count} training faces",
        "validation_faces": len(validation.labels),
        "validation_accuracy": _accuracy(run, validation, "scoring int8"),
        "validation_accuracy_float32": _accuracy(_runner(made["onnx"]), validation, "scoring float32"),
    }
    return model.SerializeToString(), run, facts


def _stablehlo(recognizer, _, __):
    from fer_jax.exports import stablehlo

    content, facts = stablehlo.make(recognizer)
    call = stablehlo.load(content)
    return content, lambda faces: np.asarray(call(faces)), facts


_MAKERS = {"onnx": _onnx, "int8": _int8, "stablehlo": _stablehlo}


def _runner(model):
    from fer_jax.exports import onnx_models

    session = onnx_models.session(model)
    return lambda faces: session.run(None, {"faces": faces})[0]


def _accuracy(run, faces, what):
    batches = [slice(start, start + BATCH) for start in range(0, len(faces.labels), BATCH)]
    right = 0
    for batch in timing.watched(batches, what, faces=len(faces.labels), batch_size=BATCH):
        right += int((run(faces.images[batch]).argmax(axis=1) == faces.labels[batch]).sum())
    return right / len(faces.labels)
