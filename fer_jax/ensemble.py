"""Scores an ensemble of trained runs: python -m fer_jax.ensemble --workdir runs/a runs/b --out runs/a-and-b.

Averages their probabilities with equal weights, or with weights fitted on the validation split. Writes ensemble.json
(members and weights) and evaluation-<split>.json, .md, .html and .npz into --out.
"""

import argparse
import dataclasses
import logging
import pathlib

from fer_jax import command, wording
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.views import VIEWS

WEIGHTS = ("equal", "fitted")
FIT_TOLERANCE_NATS = 1e-3
FITTED_ON_THESE = (
    "The weights were fitted on these same faces, so this score is optimistic; "
    "--split test scores the ensemble on others."
)
logger = logging.getLogger("fer_jax")


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog=command.program("ensemble"),
        description="Scores an ensemble of trained runs by their mean probabilities.",
    )
    parser.add_argument("--workdir", nargs="+", required=True, metavar="DIR", help="folders of the members' runs")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the ensemble's record and reports")
    parser.add_argument(
        "--weights", choices=WEIGHTS, default="equal", help="fitted: on the validation split; default: %(default)s"
    )
    parser.add_argument(
        "--split", choices=facts.SPLITS, default="test", help="default: test; choose members on validation"
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument(
        "--views", choices=tuple(VIEWS), default="none", help="test-time views to average; default: %(default)s"
    )
    command.add_explain_option(parser)
    return parser.parse_args(argv)


def fit_weights(labels, probs):
    """Returns the weights [M] on the simplex that maximize the likelihood of the validation labels.

    labels [N]; probs [M, N, K], a distribution per member and face. The mean log-likelihood of a mixture is concave in
    its weights, so there is one maximum; no weights are better by more than the largest slope minus 1.

    Raises:
      InputError: the optimizer ends more than FIT_TOLERANCE_NATS below the maximum, or a member predicts NaN.
    """
    import numpy as np
    from scipy import optimize

    of_labels = np.asarray(probs, np.float64)[:, np.arange(len(labels)), labels].clip(np.finfo(np.float32).tiny)
    members = len(of_labels)

    def loss(weights):
        mixed = weights @ of_labels
        return -np.log(mixed).mean(), -(of_labels / mixed).mean(axis=1)

    found = optimize.minimize(
        loss,
        np.full(members, 1 / members),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(members)},
        options={"ftol": 1e-10, "maxiter": 200},
    )
    weights = found.x.clip(0)
    weights = weights / weights.sum()
    short = (-loss(weights)[1]).max() - 1
    if not short <= FIT_TOLERANCE_NATS:  # also true for NaN
        raise InputError(
            f"the weights cannot be fitted ({found.message}; they may be {short:.2g} nats per face from the best): "
            "check that every member predicts well alone, or give --weights equal"
        )
    return weights


def _check_scored(workdir, split, digest):
    """Rejects a member evaluated on other faces of the split: it may have been trained on faces of the test split."""
    from fer_jax import scoring, significance
    from fer_jax import workdir as workdir_lib

    path = pathlib.Path(f"{scoring.target(workdir, split)}.json")
    if not path.exists():
        return
    scores = workdir_lib.read_json(path, what="evaluation", fix="evaluate the member again")
    if significance.compare_faces(scores, {"faces_digest": digest}) == significance.OTHER:
        raise InputError(
            f"{path} is of other faces than the {split} split of this ensemble, so {workdir} may have seen faces of "
            "the test split: evaluate it again, and drop the member if the faces still differ"
        )


def ensemble(workdirs, out, *, weights="equal", split="test", checkpoint="best", views="none", heat="none") -> dict:
    """Scores the mean of the members' probabilities on a split; returns the scores, as in evaluation-<split>.json.

    views: of fer_jax.views, over which each member's probabilities are averaged. heat: as in `scoring.evaluate`.

    Raises:
      InputError: fewer than two members, a member without a checkpoint, members whose classes, splits or scored faces
        differ, weights that cannot be fitted, an `out` that cannot be written or is a run's workdir, or Grad-CAM for a
        network without maps.
    """
    import numpy as np

    from fer_jax import members as members_lib
    from fer_jax import params, scoring
    from fer_jax import workdir as workdir_lib

    workdirs = list(dict.fromkeys(str(pathlib.Path(workdir)) for workdir in workdirs))
    out = pathlib.Path(out)
    workdir_lib.check_folder(out, option="--out")
    if (out / "config.json").exists():
        raise InputError(
            f"{out} is the workdir of a run, and the ensemble would overwrite its reports: give another --out"
        )
    needed = [split] if weights == "equal" or split == "validation" else [split, "validation"]
    models = members_lib.load(workdirs, checkpoint)  # all of them before any is scored
    method = None if heat == "none" else scoring.choose_heat(models, heat)
    eval_data = scoring.load_faces(models[0])
    digests = {name: eval_data.digest(name) for name in needed}
    for workdir in workdirs:
        _check_scored(workdir, split, digests[split])
    probs = {name: members_lib.predict(models, eval_data.splits[name], views) for name in needed}
    members = [
        {"workdir": workdir, "epoch": model.meta["epoch"], "seed": model.config.seed}
        for workdir, model in zip(workdirs, models, strict=True)
    ]
    shares = np.full(len(members), 1 / len(members))
    if weights == "fitted":
        shares = fit_weights(eval_data.splits["validation"].labels, probs["validation"])
    for member, share in zip(members, shares, strict=True):
        member["weight"] = float(share)
    if weights == "fitted" and split == "validation":
        eval_data = dataclasses.replace(eval_data, notes=(*eval_data.notes, FITTED_ON_THESE))
        logger.warning("%s", FITTED_ON_THESE)
    mixed = np.tensordot(shares, probs[split], axes=1)
    out.mkdir(parents=True, exist_ok=True)
    parameters = sum(params.count(model.variables) for model in models)
    record = {
        "members": members,
        "weights": weights,
        "parameters": parameters,
        "checkpoint": checkpoint,
        "views": views,
    }
    record["faces_digests"] = digests
    workdir_lib.write_json(out / members_lib.RECORD, {**record, **workdir_lib.facts()})
    config = {"model": {"name": f"ensemble of {len(members)}"}, "data": models[0].config.data.to_dict()}
    facts_of_ensemble = {**record, "workdir": str(out), "config": config}
    heat_fn = None if method is None else scoring.make_heat_fn(models, method, shares)
    return scoring.write(scoring.target(out, split), eval_data, split, mixed, facts_of_ensemble, heat_fn=heat_fn)


def _main():
    flags = _parse()
    command.begin()
    from fer_jax import inference

    config = inference.read_config(flags.workdir[0])
    command.keep_compiled(config)
    options = {"weights": flags.weights, "split": flags.split, "checkpoint": flags.checkpoint, "views": flags.views}
    scores = ensemble(flags.workdir, flags.out, heat=flags.explain, **options)
    print(scores["classification_report"])
    for member in scores["members"]:
        print(f"weight {member['weight']:.4f}: {member['workdir']}, epoch {member['epoch']}")
    print(
        f"{flags.split}: accuracy {scores['accuracy']:.4f}, macro F1 {scores['macro_f1']:.4f}, "
        f"loss {scores['loss']:.4f}, {wording.count(scores['n'], 'face')}"
    )
    print(f"report: {pathlib.Path(flags.out) / f'evaluation-{flags.split}'}.html")


if __name__ == "__main__":
    command.run(_main)
