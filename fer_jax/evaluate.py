"""Evaluates runs: python -m fer_jax.evaluate --workdir runs/x --split test.

Writes evaluation-<split>.json, .md and .html into the workdir. Several workdirs give one comparison page besides.
"""

import argparse
import pathlib
import time

from fer_jax import command, startup
from fer_jax.datasets import facts
from fer_jax.errors import InputError


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.evaluate",
        description="Scores checkpoints on a split and writes the report; several workdirs give a comparison page too.",
    )
    parser.add_argument("--workdir", nargs="+", required=True, metavar="DIR", help="folders of runs")
    parser.add_argument(
        "--split", choices=facts.SPLITS, default="test", help="default: test; choose models on validation"
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--data_path", help="other faces than those of the run; classes are matched by name")
    parser.add_argument(
        "--comparison", default="runs/comparison.html", help="page of several runs; default: %(default)s"
    )
    return parser.parse_args(argv)


def evaluate(workdir, *, split="test", checkpoint="best", data_path=None) -> dict:
    """Scores a run on a split, writes its report and returns the scores, as in evaluation-<split>.json.

    Raises:
      InputError: no such run, checkpoint or data, or classes that the model does not know.
    """
    import numpy as np

    from fer_jax import config as config_lib
    from fer_jax import datasets, metrics, params, records, report, trained

    model = trained.load(workdir, checkpoint)
    config = model.config
    if data_path:
        config.data.update({"name": "auto", "path": data_path, "votes_path": "", "classes": ()})
    data = datasets.load(config.data)
    notes = list(data.notes)
    if not data_path and data.fingerprint != model.run["data_fingerprint"]:
        notes.append(f"These are not the faces of the run, whose fingerprint is {model.run['data_fingerprint']}.")
    splits = {name: _by_name(data.split(name), data.classes, model.classes) for name in facts.SPLITS}
    faces = splits[split]
    started = time.perf_counter()
    _, probs = trained.predict(model, faces)
    trainable, held = (params.count(part) for part in params.split(model.variables["params"], model.frozen))
    stored = params.count(model.variables["batch_stats"])
    scores = {
        "split": split,
        **metrics.score(faces.labels, probs, model.classes),
        "checkpoint": checkpoint,
        "step": model.meta["step"],
        "epoch": model.meta["epoch"],
        "seconds": time.perf_counter() - started,
        "parameters": trainable + held + stored,
        "trainable": trainable,
        "seed": config.seed,
        **records.facts(),
        "trained": {name: model.run[name] for name in ("time", "command", "commit", "device", "data_fingerprint")},
        "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        "synthetic": data.synthetic,
        "notes": notes,
        "workdir": str(workdir),
        "config": config_lib.to_dict(config),
    }
    history = records.read_history(workdir)
    counts = {name: np.bincount(part.labels, minlength=len(model.classes)).tolist() for name, part in splits.items()}
    target = _target(workdir, split, data_path)
    evaluation = report.Evaluation(scores, faces.images, faces.labels, probs)
    records.write_json(f"{target}.json", scores)
    report.write(report.markdown(scores), f"{target}.md")
    report.write(report.html(evaluation, history, counts), f"{target}.html")
    return scores


def _by_name(faces, names, classes):
    """Renumbers labels from the data's order of class names to the model's."""
    import numpy as np

    from fer_jax.datasets import Faces

    unknown = [name for name in names if name not in classes]
    if unknown:
        raise InputError(
            f"the model does not know {', '.join(unknown)}; it knows {', '.join(classes)}: rename these classes, or "
            "leave them out"
        )
    number = np.array([classes.index(name) for name in names], np.int32)
    return Faces(faces.images, number[faces.labels], faces.votes)


def _target(workdir, split, data_path):
    """Names the report, without its ending; other faces than the run's get a report of their own."""
    other = f"-{pathlib.Path(data_path).stem}" if data_path else ""
    return pathlib.Path(workdir) / f"evaluation-{split}{other}"


def _compare(workdirs, all_scores, path):
    from fer_jax import config as config_lib
    from fer_jax import records, report

    runs = []
    for workdir, scores in zip(workdirs, all_scores, strict=True):
        run = {"name": workdir, "scores": scores, "history": records.read_history(workdir)}
        runs.append({**run, "config": config_lib.result_fields(scores["config"])})
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    report.write(report.comparison_html(runs), path)


def _main():
    flags = _parse()
    command.start_logging()
    startup.collect_rarely()
    from fer_jax import trained

    workdirs = [str(pathlib.Path(workdir)) for workdir in dict.fromkeys(flags.workdir)]
    options = {"split": flags.split, "checkpoint": flags.checkpoint, "data_path": flags.data_path}
    config = trained.read_config(workdirs[0])
    if config.train.keep_compiled:
        startup.keep_compiled(config.data.cache_dir)
    all_scores = []
    for workdir in workdirs:
        scores = evaluate(workdir, **options)
        all_scores.append(scores)
        print(scores["classification_report"])
        print(
            f"{flags.split}: accuracy {scores['accuracy']:.4f}, macro F1 {scores['macro_f1']:.4f}, "
            f"loss {scores['loss']:.4f}, {scores['n']:,} faces"
        )
        print(f"report: {_target(workdir, flags.split, flags.data_path)}.html")
    if len(workdirs) > 1:
        _compare(workdirs, all_scores, flags.comparison)
        print(f"comparison: {flags.comparison}")


if __name__ == "__main__":
    command.run(_main)
