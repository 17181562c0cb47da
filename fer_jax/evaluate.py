"""Evaluates runs: python -m fer_jax.evaluate --workdir runs/x --split test.

Writes evaluation-<split>.json, .md, .html and .npz (the predictions) into the workdir; with --views their names end in
-<views>. Several workdirs also give one comparison page.
"""

import argparse
import pathlib

from fer_jax import command, wording
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.views import VIEWS


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog=command.program("evaluate"),
        description="Scores checkpoints on a split and writes the report; several workdirs give a comparison page too.",
    )
    parser.add_argument("--workdir", nargs="+", required=True, metavar="DIR", help="folders of runs")
    parser.add_argument(
        "--split", choices=facts.SPLITS, default="test", help="default: test; choose models on validation"
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument(
        "--views", choices=tuple(VIEWS), default="none", help="test-time views that are averaged; default: %(default)s"
    )
    parser.add_argument(
        "--variables",
        choices=("auto", "average", "raw"),
        default="auto",
        help="raw: those of the last step; auto, the default: their average over training, if it kept one",
    )
    command.add_explain_option(parser)
    parser.add_argument("--data_path", help="other faces than those of the run; classes are matched by name")
    parser.add_argument(
        "--comparison", default="runs/comparison.html", help="page of several runs; default: %(default)s"
    )
    return parser.parse_args(argv)


def _compare(workdirs, all_scores, paths, path):
    from fer_jax import config as config_lib
    from fer_jax import report, scoring
    from fer_jax import workdir as workdir_lib

    runs = []
    for workdir, scores in zip(workdirs, all_scores, strict=True):
        run = {"name": workdir, "scores": scores, "history": workdir_lib.read_history(workdir)}
        runs.append({**run, "config": config_lib.result_fields(scores["config"])})
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    report.write(report.comparison_html(runs, scoring.compare(paths)), path)


def _main():
    flags = _parse()
    command.begin()
    from fer_jax import inference, scoring
    from fer_jax import workdir as workdir_lib

    workdirs = [str(pathlib.Path(workdir)) for workdir in dict.fromkeys(flags.workdir)]
    options = {"split": flags.split, "checkpoint": flags.checkpoint, "data_path": flags.data_path, "views": flags.views}
    options |= {"variables": flags.variables, "heat": flags.explain}
    if flags.data_path and not pathlib.Path(flags.data_path).expanduser().exists():
        raise InputError(f"--data_path: {flags.data_path} does not exist")
    config, *_ = [inference.read_config(workdir) for workdir in workdirs]  # all, before one of them is scored
    for workdir in workdirs:
        workdir_lib.check_folder(workdir, option="--workdir")
    if len(workdirs) > 1:
        workdir_lib.check_folder(pathlib.Path(flags.comparison).parent, option="--comparison")
    command.keep_compiled(config)
    naming = (flags.split, flags.data_path, flags.views, flags.variables)
    all_scores, paths = [], [scoring.target(workdir, *naming) for workdir in workdirs]
    for workdir, path in zip(workdirs, paths, strict=True):
        scores = scoring.evaluate(workdir, **options)
        all_scores.append(scores)
        print(scores["classification_report"])
        print(
            f"{flags.split}: accuracy {scores['accuracy']:.4f}, macro F1 {scores['macro_f1']:.4f}, "
            f"loss {scores['loss']:.4f}, {wording.count(scores['n'], 'face')}"
        )
        print(f"report: {path}.html")
    if len(workdirs) > 1:
        _compare(workdirs, all_scores, paths, flags.comparison)
        print(f"comparison: {flags.comparison}")


if __name__ == "__main__":
    command.run(_main)
