"""Exports a run as a model file: python -m fer_jax.export --workdir runs/lean --out models/small --views flip_shifts.

Writes <out>.safetensors (the best checkpoint's weights), <out>.json (classes, input, temperature, figures, protocol)
and <out>.md (the model card), to be loaded by `fer_jax.load("<out>.safetensors")`. The temperature is fitted on the
validation split, and the figures are those of the rounded weights in the file. --score_test also scores the test split:
do so once, for the model chosen on validation.
"""

import argparse
import pathlib

from fer_jax import command
from fer_jax.errors import InputError
from fer_jax.views import VIEWS

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
TRAINED = ("time", "commit", "device", "data_fingerprint")


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog=command.program("export"), description="Exports a run as a model file, with its figures and model card."
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a run")
    parser.add_argument("--out", required=True, metavar="PATH", help="path of the files, without a suffix")
    parser.add_argument(
        "--views", choices=tuple(VIEWS), default="none", help="test-time views to average; default: %(default)s"
    )
    parser.add_argument(
        "--score_test", action="store_true", help="score the test split too: once, for the chosen model"
    )
    return parser.parse_args(argv)


def export(workdir, out, *, views="none", score_test=False) -> dict:
    """Writes a run's best checkpoint as a model file with its card; returns the content of its JSON.

    The files can be shared: they contain no paths of this machine.

    Raises:
      InputError: no such run, checkpoint, data or views; a network from a user's file; an unwritable folder.
    """
    from fer_jax import extensions, inference, portable, recognizer, report, scoring
    from fer_jax import views as views_lib
    from fer_jax import workdir as workdir_lib

    out = pathlib.Path(out)
    workdir_lib.check_folder(out.parent, option="--out")
    views_lib.check(views)
    trained = inference.load(workdir)
    if extensions.names_file(trained.config.model.name):
        raise InputError(f"{workdir} has a network from {trained.config.model.name}, and a model file has no code")
    judged = scoring.load_faces(trained)
    variables = portable.round_variables(trained.variables)
    member = recognizer.Member(trained.model, variables, trained.classes)
    model = recognizer.Recognizer(out.name, [member], trained.image_shape, views=views)
    temperature, figures = _score(model, judged, ("validation", "test") if score_test else ("validation",))
    facts = {
        "name": out.name,
        "views": views,
        "temperature": temperature,
        **_facts(trained, judged),
        "test_scored": "once, for this model" if score_test else "not scored",
        "figures": figures,
        "exported": {name: value for name, value in workdir_lib.facts().items() if name != "command"},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = portable.save(out, variables, facts)
    report.write(report.model_card(facts), f"{out}.md")
    return facts


def _score(model, judged, splits):
    """Returns (the temperature fitted on the validation split, {split: figures} with it)."""
    from fer_jax import calibration, metrics

    temperature, figures = 1.0, {}
    for split in splits:
        faces = judged.splits[split]
        probs = model.probs(faces.images, progress=f"scoring {split}")
        if split == "validation":
            temperature = calibration.fit_temperature(faces.labels, probs)
        scores = metrics.score(faces.labels, calibration.apply(probs, temperature), judged.classes)
        scores["faces_digest"] = judged.digest(split)
        figures[split] = {name: scores[name] for name in FIGURES}
    return temperature, figures


def _facts(trained, judged):
    from fer_jax import config as config_lib
    from fer_jax import params

    config = config_lib.to_dict(trained.config)
    return {
        "classes": list(trained.classes),
        "image_shape": list(trained.image_shape),
        "parameters": params.count(trained.variables),
        "model": {**config["model"], "weights": ""},
        "data": {**judged.facts(), "train_faces": len(judged.splits["train"].labels)},
        "checkpoint": f"of the best epoch by {config['train']['monitor']}",
        "epoch": trained.meta["epoch"],
        "temperature_fitted_on": "validation",
        "trained": {name: trained.run[name] for name in TRAINED}
        | {"seed": trained.config.seed, "config": config_lib.result_fields(config)},
    }


def _main():
    flags = _parse()
    command.begin()
    facts = export(flags.workdir, flags.out, views=flags.views, score_test=flags.score_test)
    for split, scores in facts["figures"].items():
        print(f"{split}: accuracy {scores['accuracy']:.4f}, macro F1 {scores['macro_f1']:.4f}, {scores['n']:,} faces")
    size = pathlib.Path(f"{flags.out}.safetensors").stat().st_size
    print(f"model: {flags.out}.safetensors, {size / 1e6:.2f} MB, temperature {facts['temperature']:.3f}")
    print(f"card: {flags.out}.md")


if __name__ == "__main__":
    command.run(_main)
