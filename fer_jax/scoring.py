"""Scores trained models: loads the evaluation data, predicts, and writes the files of the report."""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from fer_jax import augment, datasets, explain, files, inference, metrics, params, report, significance
from fer_jax import config as config_lib
from fer_jax import run as run_lib
from fer_jax import views as views_lib
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError

AUGMENTED_FACES, AUGMENTED_VIEWS = 4, 4  # training faces shown augmented in a report, and versions of each


@dataclasses.dataclass(frozen=True)
class EvalData:
    """The faces of every split in the order of a model's classes, with notes for the report."""

    data: datasets.FaceData
    splits: dict
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def facts(self) -> dict:
        """Returns the facts of the data for a record."""
        return {
            "data_name": self.data.name,
            "data_fingerprint": self.data.fingerprint,
            "synthetic": self.data.synthetic,
            "notes": list(self.notes),
        }

    def digest(self, split) -> str:
        """Returns the digest of a split's faces, by which evaluations on the same faces are recognized."""
        faces = self.splits[split]
        return significance.digest_faces(faces.images, faces.labels, self.classes)


def load_faces(model: inference.Trained, data_path=None, split="test") -> EvalData:
    """Loads the faces of a run, or other faces in the same size and channels, with classes matched by name.

    All other faces are used: without splits, they all belong to `split`. If the faces at the path are the run's own,
    the run's splits apply, since it was trained on its training faces. FER-2013 gets FER+'s labels, by the run's votes,
    if the run had them.

    Raises:
      InputError: no such data, classes that the model lacks, or a table for a run on faces other than 48x48 grey.
    """
    section = model.config.data.copy_and_resolve_references()
    if data_path:
        fer_plus = {"labels": section.labels, "votes_path": section.votes_path} if section.labels == "fer+" else {}
        section.update({"name": "auto", "path": data_path, "labels": "fer2013", "votes_path": ""})
        _check_shape(section, model.image_shape)
        if fer_plus and datasets.resolve_name(section) == "fer2013":
            section.update(fer_plus)
        data = _load_others(section, model, split)
    else:
        data = datasets.load(section)
    notes = list(data.notes)
    if not data_path and data.fingerprint != model.run["data_fingerprint"]:
        notes.append(f"These are not the faces of the run, which have the fingerprint {model.run['data_fingerprint']}.")
    splits = {name: by_name(data.split(name), data.classes, model.classes) for name in facts.SPLITS}
    return EvalData(data, splits, model.classes, tuple(notes))


def _load_others(section, model, split):
    others = section.copy_and_resolve_references()
    others.update({"classes": (), "train_faces": 0, "drop_shared": False})
    data = datasets.load(others, single_split=split)
    return datasets.load(section) if data.fingerprint == model.run["data_fingerprint"] else data


def _check_shape(section, image_shape):
    """Rejects data of a fixed shape, such as FER-2013, for a model of another shape."""
    if image_shape == facts.IMAGE_SHAPE:
        return
    plain = section.copy_and_resolve_references()
    plain.update({"size_px": facts.IMAGE_SIZE_PX, "channels": 1})
    name = datasets.resolve_name(plain)
    if name != "class_folders":
        size, _, channels = image_shape
        raise InputError(
            f"{section.path} has {name}, 48x48 grey, but the run was trained on class folders with data.size_px "
            f"{size} and data.channels {channels}: give class folders as --data_path, which are read like that"
        )


def by_name(faces, names, classes):
    """Renumbers labels from the data's order of class names to the model's.

    Raises:
      InputError: a class that the model lacks.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise InputError(
            f"the model has no {', '.join(unknown)}; its classes are {', '.join(classes)}: rename these classes, or "
            "remove them"
        )
    number = np.array([classes.index(name) for name in names], np.int32)
    return dataclasses.replace(faces, labels=number[faces.labels])


def evaluate(
    workdir, *, split="test", checkpoint="best", variables="auto", data_path=None, views="none", heat="none"
) -> dict:
    """Scores a run on a split, writes its report and returns the scores, as in evaluation-<split>.json.

    checkpoint, variables: as in `inference.load`. views: a name of fer_jax.views; probabilities are averaged over the
    views. heat: the method that explains the mistakes, as in `explain.choose`, or 'none'.

    Raises:
      InputError: no such run, checkpoint, data, views or method, Grad-CAM for a network without maps, or classes that
        the model lacks.
    """
    views_lib.check(views)
    model = inference.load(workdir, checkpoint, variables)
    heat_fn = None if heat == "none" else make_heat_fn([model], choose_heat([model], heat))
    eval_data = load_faces(model, data_path, split)
    started = time.perf_counter()
    _, probs = inference.predict(model, eval_data.splits[split], views=views)
    trainable, frozen = (params.count(part) for part in params.split(model.variables["params"], model.frozen))
    facts_of_run = {
        "checkpoint": checkpoint,
        "variables": "average" if model.meta["averaged"] else "raw",
        "views": views,
        "step": model.meta["step"],
        "epoch": model.meta["epoch"],
        "seconds": time.perf_counter() - started,
        "parameters": trainable + frozen + params.count(model.variables["batch_stats"]),
        "trainable": trainable,
        "seed": model.config.seed,
        "trained": {name: model.run[name] for name in ("time", "command", "commit", "device", "data_fingerprint")},
        "workdir": str(workdir),
        "config": config_lib.to_dict(model.config),
    }
    path = target(workdir, split, data_path, views, variables)
    history, augmented = workdir_lib.read_history(workdir), augment_faces(model, eval_data)
    return write(path, eval_data, split, probs, facts_of_run, history=history, augmented=augmented, heat_fn=heat_fn)


def choose_heat(models: Sequence[inference.Trained], method) -> str:
    """Returns one method for all models; method and errors: as in `explain.choose`."""
    chosen = {explain.choose(model.model, model.variables, model.image_shape, method) for model in models}
    return chosen.pop() if len(chosen) == 1 else "occlusion"


def make_heat_fn(models: Sequence[inference.Trained], method, weights=(1.0,)):
    """Returns heat_fn(evaluation) -> `report.Heat` of its mistakes, each explained for its predicted class.

    For several models, with the same order of classes, it is the weighted mean of their maps. method: one of
    `explain.METHODS`.
    """

    def heat_fn(evaluation):
        rows = report.mistakes(evaluation)
        faces, predicted = evaluation.images[rows], evaluation.probs[rows].argmax(axis=1)
        make = explain.METHODS[method]
        maps = [make(model.model, model.variables, faces, predicted) for model in models]
        heat = explain.rescale(np.average(maps, axis=0, weights=weights))
        return report.Heat(method, dict(zip(rows.tolist(), map(explain.overlay, faces, heat), strict=True)))

    return heat_fn


def augment_faces(model: inference.Trained, eval_data: EvalData) -> list[report.AugmentedFace]:
    """Returns training faces of a few classes with the run's augmentation applied.

    The list is empty if the config has no augmentation, or the faces are not those of the run.
    """
    config, train = model.config, eval_data.splits["train"]
    policy = augment.make(config.augment, config.data.size_px)
    if not policy.active or not len(train) or eval_data.data.fingerprint != model.run["data_fingerprint"]:
        return []
    picked = np.unique(train.labels, return_index=True)[1][:AUGMENTED_FACES]
    views = min(config.augment.fixed_views or AUGMENTED_VIEWS, AUGMENTED_VIEWS)
    key = run_lib.make_keys(config.seed)["augment"]
    versions = augment.fixed_views(policy, train.images, key, views, picked)
    versions = versions.reshape(views, len(picked), *versions.shape[1:])
    return [
        report.AugmentedFace(eval_data.classes[train.labels[face]], train.images[face], versions[:, row])
        for row, face in enumerate(picked)
    ]


def write(path, eval_data: EvalData, split, probs, facts_of_run, *, history=(), augmented=(), heat_fn=None) -> dict:
    """Scores predictions [N, K] of a split and writes <path>.json, .md, .html and .npz; returns the scores.

    history, augmented: as in `report.html`; heat_fn: evaluation -> its `report.Heat`; None: no heat maps.

    The .npz has `labels` [N], `probs` [N, K] float32, `classes` and `faces_digest`, for comparing models face by face.
    """
    faces = eval_data.splits[split]
    scores = {"split": split, **metrics.score(faces.labels, probs, eval_data.classes)}
    scores["bootstrap_interval_95"] = significance.bootstrap_intervals(scores["confusion"])
    scores |= {**facts_of_run, **workdir_lib.facts(), **eval_data.facts()}
    scores["faces_digest"] = eval_data.digest(split)
    counts = {
        name: np.bincount(part.labels, minlength=len(eval_data.classes)).tolist()
        for name, part in eval_data.splits.items()
    }
    evaluation = report.Evaluation(scores, faces.images, faces.labels, probs)
    with files.atomic_write(f"{path}.npz", "wb") as file:
        np.savez_compressed(
            file,
            labels=faces.labels,
            probs=np.asarray(probs, np.float32),
            classes=np.array(eval_data.classes),
            faces_digest=scores["faces_digest"],
        )
    workdir_lib.write_json(f"{path}.json", scores)
    report.write(report.markdown(scores, history), f"{path}.md")
    heat = heat_fn(evaluation) if heat_fn else None
    report.write(report.html(evaluation, history, counts, augmented, heat), f"{path}.html")
    return scores


def target(workdir, split, data_path=None, views="none", variables="auto") -> pathlib.Path:
    """Returns the path of a report, without a suffix; other faces, views or variables get separate reports."""
    other = f"-{pathlib.Path(data_path).stem}" if data_path else ""
    other += f"-{views}" if views != "none" else ""
    other += f"-{variables}" if variables != "auto" else ""
    return pathlib.Path(workdir) / f"evaluation-{split}{other}"


def compare(paths) -> list[dict]:
    """Runs McNemar's test for each pair of evaluations, given by their paths from `target`.

    Returns a dict per pair: 'first' and 'second' (positions in `paths`), 'faces' (`significance.SAME` or UNKNOWN), and
    the result of `significance.mcnemar`. Pairs on different faces and evaluations without predictions are skipped.
    """
    found = [(position, one) for position, one in enumerate(map(_read_predictions, paths)) if one is not None]
    pairs = []
    for number, (first, mine) in enumerate(found):
        for second, other in found[number + 1 :]:
            faces = significance.compare_faces(mine, other)
            if faces != significance.OTHER:
                test = significance.mcnemar(mine["labels"], mine["predicted"], other["predicted"])
                pairs.append({"first": first, "second": second, "faces": faces, **test})
    return pairs


def _read_predictions(path):
    """Returns the scores of an evaluation with the true and the predicted class names, lists [N]; or None."""
    path, scores = pathlib.Path(f"{path}.npz"), pathlib.Path(f"{path}.json")
    if not path.exists():
        return None
    with np.load(path) as found:
        names = found["classes"]
        labels, predicted = names[found["labels"]], names[found["probs"].argmax(axis=1)]
        digest = {"faces_digest": str(found["faces_digest"])} if "faces_digest" in found else {}
    facts_of_faces = {}
    if scores.exists():
        facts_of_faces = workdir_lib.read_json(scores, what="evaluation", fix="evaluate again")
    return {**facts_of_faces, "faces_digest": None, **digest, "labels": labels.tolist(), "predicted": predicted}
