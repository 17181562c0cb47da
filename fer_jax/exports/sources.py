"""What is exported: a run with its faces and figures, or another model with the facts that it brings."""

import pathlib

from fer_jax import (
    calibration,
    datasets,
    extensions,
    inference,
    members,
    metrics,
    params,
    portable,
    recognizer,
    scoring,
)
from fer_jax import config as config_lib
from fer_jax.errors import InputError

FIGURES = (
    "n",
    "accuracy",
    "accuracy_interval_95",
    "macro_f1",
    "loss",
    "calibration_error",
    "per_class",
    "confusion",
    "faces_digest",
)
OF_ARCHIVE = ("format", "sha256", "exports")
TRAINED = ("time", "commit", "device", "data_fingerprint")


def is_run(model):
    """Whether a model is the workdir of a run."""
    return pathlib.Path(model).expanduser().is_dir() and members.read_record(model) is None


def load_run(workdir, name, views, *, with_archive, score_test):
    """Returns (recognizer, facts, splits) of a run, whose weights are rounded as its archive stores them."""
    trained = inference.load(workdir)
    if with_archive and extensions.names_file(trained.config.model.name):
        raise InputError(f"{workdir} has a network from {trained.config.model.name}, and a model file has no code")
    eval_data = scoring.load_faces(trained)
    member = recognizer.Member(trained.model, portable.round_variables(trained.variables), trained.classes)
    model = recognizer.Recognizer(name, [member], trained.image_shape, views=views)
    model.temperature, figures = _score(model, eval_data, ("validation", "test") if score_test else ("validation",))
    facts = {
        "name": name,
        "views": views,
        "temperature": model.temperature,
        **_facts(trained, eval_data),
        "test_scored": "once, for this model" if score_test else "not scored",
        "figures": figures,
    }
    return model, facts, eval_data.splits


def load_model(model, views, data_path):
    """Returns (recognizer, facts, splits or None) of a model that is not a run."""
    found = recognizer.load(model, views=views)
    facts = {
        "name": found.title,
        "classes": list(found.classes),
        "image_shape": list(found.image_shape),
        "parameters": sum(params.count(variables) for variables in found.variables),
        **{name: value for name, value in found.facts.items() if name not in OF_ARCHIVE},
        "views": found.views,
        "temperature": found.temperature,
    }
    if found.views != found.facts.get("views", found.views):
        facts.pop("figures", None)  # they are of other views
    if data_path is None:
        return found, facts, None
    height, _, channels = found.image_shape
    data = datasets.load(
        config_lib.from_dict({"data": {"path": str(data_path), "size_px": height, "channels": channels}}).data
    )
    splits = {
        split: scoring.by_name(data.split(split), data.classes, found.classes) for split in ("train", "validation")
    }
    return found, facts, splits


def _score(model, eval_data, splits):
    """Returns (the temperature fitted on the validation split, {split: figures} with it)."""
    temperature, figures = 1.0, {}
    for split in splits:
        faces = eval_data.splits[split]
        probs = model.probs(faces.images, progress=f"scoring {split}")
        if split == "validation":
            temperature = calibration.fit_temperature(faces.labels, probs)
        scores = metrics.score(faces.labels, calibration.apply(probs, temperature), eval_data.classes)
        scores["faces_digest"] = eval_data.digest(split)
        figures[split] = {name: scores[name] for name in FIGURES}
    return temperature, figures


def _facts(trained, eval_data):

    config = config_lib.to_dict(trained.config)
    return {
        "classes": list(trained.classes),
        "image_shape": list(trained.image_shape),
        "parameters": params.count(trained.variables),
        "model": {**config["model"], "weights": ""},
        "data": {**eval_data.facts(), "train_faces": len(eval_data.splits["train"].labels)},
        "checkpoint": f"of the best epoch by {config['train']['monitor']}",
        "epoch": trained.meta["epoch"],
        "temperature_fitted_on": "validation",
        "trained": {name: trained.run[name] for name in TRAINED}
        | {"seed": trained.config.seed, "config": config_lib.result_fields(config)},
    }
