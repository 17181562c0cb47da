"""Run files and the tables that are drawn from them: only whole runs have figures, and the figures are the runs'."""

import dataclasses
import importlib
import json
import re

import numpy as np
import pytest
import reports_modules
from matplotlib.text import Text
from sklearn import metrics as sklearn_metrics

from fer_jax import config as config_lib
from fer_jax import metrics, significance
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts

CLASSES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
SECRET = "/home/somebody"  # a folder of the machine, which no run file may name


@pytest.fixture(scope="module")
def modules():
    with reports_modules.imported() as modules:
        yield modules


def write_scores(workdir, split, *, row_config, seed=0, right=0.6, count=200, epoch=3, digest=None):
    """Writes evaluation-<split>.json and .npz of predictions that are right so often; returns (labels, predicted)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 7, count)
    predicted = np.where(rng.random(count) < right, labels, (labels + 1) % 7)
    probs = np.eye(7, dtype=np.float32)[predicted] * 0.93 + 0.01
    scores = {"split": split, **metrics.score(labels, probs, CLASSES)}
    scores["bootstrap_interval_95"] = significance.bootstrap_intervals(scores["confusion"])
    scores |= {"epoch": epoch, "step": 30, "parameters": 99, "trainable": 98, "seed": 0, "config": row_config}
    scores |= {"faces_digest": digest} if digest else {}
    scores |= {"workdir": SECRET, "data_fingerprint": facts.FINGERPRINT, "data_name": "fer2013"}
    workdir_lib.write_json(workdir / f"evaluation-{split}.json", scores)
    np.savez(workdir / f"evaluation-{split}.npz", labels=labels, probs=probs, classes=CLASSES)
    return labels, predicted


def write_workdir(modules, name, workdir, *, epochs=None, fields=None, **scores):
    """Writes what a training of a row leaves behind; returns (labels, predicted) of its test split.

    epochs: their count or their numbers, by default all of the row.
    """
    workdir.mkdir(parents=True)
    config = modules.systems.get_config(modules.systems.ROWS[name])
    config.update_from_flattened_dict({"data.path": SECRET, **(fields or {})})
    epochs, saved = epochs or config.train.epochs, config_lib.to_dict(config)
    numbers = range(1, epochs + 1) if isinstance(epochs, int) else epochs
    workdir_lib.write_json(workdir / "config.json", saved)
    versions = {"jax": "0.12.0.1", "jaxlib": "0.12.0.1"}
    run = {"time": "2026", "commit": "0" * 12, "device": "AMD", "platform": "cpu", "python": "3.13.0", "weights": None}
    run |= {"command": SECRET, "data_name": "fer2013", "data_fingerprint": facts.FINGERPRINT, "packages": versions}
    workdir_lib.write_json(workdir / "run.json", run | {"weights": {"file": f"{SECRET}/w.h5", "name": "w"}})
    lines = [
        {"kind": "epoch", "step": 10 * epoch, "epoch": epoch, "seconds": 36.0}
        | {f"{split}_accuracy": epoch / 1000 for split in ("train", "validation")}
        | {f"{split}_loss": 1 - epoch / 1000 for split in ("train", "validation")}
        for epoch in numbers
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_scores(workdir, "validation", row_config=saved, **{"seed": 1, **scores})
    return write_scores(workdir, "test", row_config=saved, **{"seed": 2, **scores})


@pytest.fixture
def make_record(modules, tmp_path):
    """Makes the record of a synthetic whole run."""

    def make(name, seed=0, **options):
        workdir = tmp_path / f"{name}-{seed}"
        write_workdir(modules, name, workdir, **options)
        config = json.loads((workdir / "config.json").read_text())
        return modules.runfiles.collect(name, seed, workdir, config=config)

    return make


def test_a_run_file_holds_what_scikit_learn_computes_of_its_predictions(modules, tmp_path):
    labels, predicted = write_workdir(modules, "r1_model_1", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    record = modules.runfiles.collect("r1_model_1", 0, tmp_path / "run", config=config)
    path = modules.runfiles.write(tmp_path / "runs", record)
    assert path.name == "r1_model_1-0.json"
    assert SECRET not in path.read_text()
    (read,) = modules.runfiles.read(tmp_path / "runs")["r1_model_1"]
    assert read == json.loads(json.dumps(record))
    scores = read["scores"]["test"]
    np.testing.assert_array_equal(modules.runfiles.unpack(scores["labels"]), labels)
    np.testing.assert_array_equal(modules.runfiles.unpack(scores["predicted"]), predicted)
    np.testing.assert_array_equal(scores["confusion"], sklearn_metrics.confusion_matrix(labels, predicted))
    assert scores["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(labels, predicted, average="macro"))
    assert read["seconds"] == 36 * 50
    assert (read["epochs"], read["best_epoch"], read["parameters"]) == (50, 3, 99)
    assert modules.score_tables.at(read, "best_epoch")["train_accuracy"] == 0.003
    assert modules.score_tables.at(read, "last")["validation_loss"] == 0.95
    assert read["weights"]["file"] == "w.h5"


def test_a_run_file_keeps_the_digest_of_the_pictures(modules, make_record):
    for seed, digest in enumerate((None, "blake2b:1")):
        record = make_record("r1_model_1", seed, digest=digest)
        assert [record["scores"][split].get("faces_digest") for split in ("validation", "test")] == [digest] * 2


def test_an_ensembles_file_names_its_members_and_not_their_folders(modules, make_record, tmp_path):
    options = modules.run.parse(["--data_path", "x", "--runs", str(tmp_path)])
    workdir = modules.running.workdir("r3_two", 0, options)
    workdir.mkdir(parents=True)
    config = {"model": {"name": "ensemble of 2"}, "data": {"split": "random", "split_seed": 0, "classes": []}}
    for split in ("validation", "test"):
        write_scores(workdir, split, row_config=config)
        path = workdir / f"evaluation-{split}.json"
        members = [{"workdir": SECRET, "epoch": epoch, "weight": 0.5} for epoch in (3, 4)]
        workdir_lib.write_json(path, json.loads(path.read_text()) | {"members": members, "weights": "equal"})
    record = modules.jobs.collect("r3_two", 0, options)
    expected = modules.systems.members(modules.systems.ROWS["r3_two"])
    assert [(member["row"], member["seed"]) for member in record["members"]] == expected
    assert [member["epoch"] for member in record["members"]] == [3, 4]
    assert SECRET not in json.dumps(record)
    members = {name: [make_record(name)] for name, _ in expected}
    assert "r3_two" in modules.runfiles.whole(members | {"r3_two": [record]})
    members["r3_four_layer"][0]["config"]["optim"]["learning_rate"] = 0.5
    assert "r3_two" not in modules.runfiles.whole(members | {"r3_two": [record]})
    record["members"].pop()
    assert "members" in modules.runfiles.differences(record)[0]


def test_an_averages_file_names_its_members_and_not_their_folders(modules, tmp_path):
    options = modules.run.parse(["--data_path", "x", "--runs", str(tmp_path)])
    members = modules.systems.members(modules.systems.ROWS["r3_ensemble_trained"])
    for epoch, (name, seed) in enumerate(members, 7):
        workdir = modules.running.workdir(name, seed, options)
        workdir.mkdir(parents=True)
        (workdir / "evaluation-validation.json").write_text(json.dumps({"epoch": epoch}))
    folder = modules.running.workdir("r3_ensemble_trained", 0, options)
    networks = ({"name": "layers", "layers": "flatten"},) * 3
    fields = {"model.members": (SECRET,), "model.member_models": networks}
    write_workdir(modules, "r3_ensemble_trained", folder, fields=fields)
    run = workdir_lib.read_json(folder / "run.json", what="run", fix="")
    facts = {"epoch": 7, "step": 70, "seed": 0, "commit": "0" * 12, "digest": "0" * 16}
    weights = {"members": [{"workdir": SECRET, **facts} for _ in members]}  # as fer_jax.members writes them
    workdir_lib.write_json(folder / "run.json", run | {"weights": weights})
    record = modules.jobs.collect("r3_ensemble_trained", 0, options)
    assert record["weights"] == {"members": [facts] * 3}
    assert not {"members", "member_models"} & record["config"]["model"].keys()
    assert [(member["row"], member["seed"]) for member in record["members"]] == members
    assert [member["epoch"] for member in record["members"]] == [7, 8, 9]
    assert SECRET not in json.dumps(record)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": {"data.train_faces": 512}}, "train_faces: 512, now 0"),
        ({"fields": {"train.epochs": 1}}, "train.epochs: 1, now 50"),
        ({"epochs": 49}, "epoch 49 of 50"),
    ],
)
def test_a_run_that_is_not_whole_is_not_collected(modules, make_record, options, message):
    with pytest.raises(modules.run.InputError, match=message):
        make_record("r1_model_1", **options)


def test_a_run_without_test_scores_is_not_collected(modules, tmp_path):
    write_workdir(modules, "r1_model_1", tmp_path / "run")
    (tmp_path / "run" / "evaluation-test.json").unlink()
    with pytest.raises(modules.run.InputError, match=r"evaluation-test\.json"):
        modules.runfiles.collect("r1_model_1", 0, tmp_path / "run")


def test_a_run_that_stopped_early_is_whole(modules, make_record, monkeypatch):
    early = {"train.early_stopping.patience_epochs": 5, "train.early_stopping.min_delta": 0.5}
    rows = modules.systems.ROWS
    monkeypatch.setitem(rows, "r1_model_1", dataclasses.replace(rows["r1_model_1"], fields=early))
    assert make_record("r1_model_1", epochs=6, fields=early)["epochs"] == 6  # none after the first is so much better
    with pytest.raises(modules.run.InputError, match="epoch 5 of 50"):
        make_record("r1_model_1", 1, epochs=5, fields=early)


def test_a_run_whose_first_phase_stopped_early_is_whole_and_ends_at_its_last_epoch(modules, make_record, monkeypatch):
    fields = {"train.early_stopping.patience_epochs": 5, "optim.fine_tune.after_epochs": 20}
    rows = modules.systems.ROWS
    monkeypatch.setitem(rows, "r1_model_1", dataclasses.replace(rows["r1_model_1"], fields=fields))
    record = make_record("r1_model_1", epochs=(*range(1, 9), *range(21, 51)), fields=fields)
    assert record["epochs"] == 38
    assert modules.score_tables.at(record, "last")["epoch"] == 50
    table = modules.score_tables.training_table({"r1_model_1": [record]})
    assert "| 0.0500 | 0.9500 | 0.9500 |" in table
    assert modules.runfiles.differences(record) == []


@pytest.mark.parametrize("changed", [{"synthetic": True}, {"data_fingerprint": "sha256:0"}])
def test_a_run_on_other_faces_than_the_challenges_is_not_whole(modules, make_record, changed):
    record = make_record("r1_model_1")
    assert "r1_model_1" in modules.runfiles.whole({"r1_model_1": [record]})
    assert modules.runfiles.whole({"r1_model_1": [record | changed]}) == {}
    assert f"not FER-2013's {facts.FINGERPRINT}" in modules.runfiles.differences(record | changed)[0]


def test_another_early_stopping_counts_where_it_would_have_ended_the_run_elsewhere(modules, make_record, monkeypatch):
    record, rows = make_record("r1_model_1"), modules.systems.ROWS
    patient = {"train.early_stopping.patience_epochs": 5, "train.early_stopping.monitor": "validation_loss"}
    monkeypatch.setitem(rows, "r1_model_1", dataclasses.replace(rows["r1_model_1"], fields=patient))
    assert modules.runfiles.differences(record) == []  # the loss falls to the end
    demanding = patient | {"train.early_stopping.min_delta": 0.5}
    monkeypatch.setitem(rows, "r1_model_1", dataclasses.replace(rows["r1_model_1"], fields=demanding))
    assert "train.early_stopping.patience_epochs: 0, now 5" in modules.runfiles.differences(record)


def test_a_record_of_an_earlier_version_of_its_row_is_named_and_not_shown(modules, make_record):
    record = make_record("r1_model_1")
    assert modules.runfiles.differences(record) == []
    record["config"]["model"]["cpu_path"] = False  # how, not what
    record["config"]["model"]["a_field_of_another_version"] = 1
    del record["config"]["optim"]["nesterov"]  # it had its default
    assert modules.runfiles.differences(record) == []
    record["config"]["optim"]["learning_rate"] = 0.5
    assert modules.runfiles.differences(record) == ["optim.learning_rate: 0.5, now 0.001"]
    assert modules.runfiles.whole({"r1_model_1": [record]}) == {}


def test_the_fields_without_effect_are_of_the_config_or_were(modules):
    known = config_lib.flat(config_lib.to_dict(config_lib.get_default())).keys() | set(config_lib.RETIRED)
    assert set(modules.runfiles.FIELDS_WITHOUT_EFFECT) <= known


def test_a_file_of_no_row_is_refused(modules, make_record, tmp_path):
    record = make_record("r1_model_1")
    for name in ("r9_model", "r1_model_2"):
        path = modules.runfiles.path_of(tmp_path / name, name, 0)
        path.parent.mkdir()
        workdir_lib.write_json(path, record | {"row": "r9_model" if name == "r9_model" else "r1_model_1"})
        with pytest.raises(modules.run.InputError, match="rename the file"):
            modules.runfiles.read(path.parent)


def test_packed_classes_come_back(modules):
    values = np.random.default_rng(0).integers(0, 256, 5000)
    np.testing.assert_array_equal(modules.runfiles.unpack(modules.runfiles.pack(values)), values)
    with pytest.raises(ValueError, match="0 to 255"):
        modules.runfiles.pack([256])


def test_the_digest_of_the_faces_changes_with_all_that_chooses_them(modules):
    data = {"split": "official", "split_seed": 0, "classes": []}
    scores = {"data_fingerprint": "sha256:0", "config": {"data": data}}
    digest = modules.runfiles.digest_faces
    seeds = [scores | {"config": {"data": data | new}} for new in ({"split": "random"}, {"split_seed": 1})]
    others = [
        digest(scores, [0, 1], "test"),
        digest(scores, [0, 1], "validation"),
        digest(scores, [1, 0], "test"),
        digest(scores | {"data_fingerprint": "sha256:1"}, [0, 1], "test"),
        *(digest(other, [0, 1], "test") for other in seeds),
    ]
    assert len(set(others)) == len(others)
    assert digest(scores, np.array([0, 1]), "test") == others[0]


def test_the_committed_run_files_are_whole_and_agree_with_themselves(modules):
    found = modules.runfiles.read()
    assert found
    for name, runs in found.items():
        for run in runs:
            assert modules.runfiles.differences(run) == [], name
            for split, scores in run["scores"].items():
                if scores["confusion"]:
                    confusion = np.array(scores["confusion"])
                    assert confusion.sum() == scores["n"]
                    assert np.trace(confusion) / scores["n"] == pytest.approx(scores["accuracy"])
                    true, guessed = (np.repeat(axis.ravel(), confusion.ravel()) for axis in np.indices(confusion.shape))
                    expected = sklearn_metrics.f1_score(true, guessed, average=None, labels=range(len(confusion)))
                    np.testing.assert_allclose([one["f1"] for one in scores["per_class"]], expected)
                if scores["predicted"]:
                    pair = [modules.runfiles.unpack(scores[key]) for key in ("labels", "predicted")]
                    np.testing.assert_array_equal(sklearn_metrics.confusion_matrix(*pair), scores["confusion"])
                if split == "validation" and run["kind"] == "train":
                    curve = modules.score_tables.at(run, "best_epoch")["validation_accuracy"]
                    assert curve == pytest.approx(scores["accuracy"], abs=2 / scores["n"])  # scored in other batches


def test_the_committed_tables_are_drawn_from_the_committed_run_files(modules, tmp_path, monkeypatch):
    monkeypatch.setattr(modules.figures, "curves", lambda *_: None)
    monkeypatch.setattr(modules.figures, "bars", lambda *_: None)
    modules.tables.write(out=tmp_path)
    for path in tmp_path.rglob("*.md"):
        committed = reports_modules.HERE / path.relative_to(tmp_path)
        assert path.read_text() == committed.read_text(), f"run experiments/reports/tables.py: {committed}"


@pytest.mark.full
def test_only_whole_rows_have_figures(modules, make_record, tmp_path):
    other = make_record("r1_model_2", right=0.9)
    other["config"]["data"]["train_faces"] = 512
    modules.runfiles.write(tmp_path / "runs", other)
    hidden = [other["scores"][split][key] for split in ("validation", "test") for key in ("accuracy", "macro_f1")]
    record = make_record("r1_model_1")
    modules.runfiles.write(tmp_path / "runs", record)
    modules.tables.write(tmp_path / "runs", tmp_path / "out")
    page, table = ((tmp_path / "out" / name).read_text() for name in ("results.md", "r1/table.md"))
    rows = modules.systems.ROWS
    assert f"**1 of {len(rows)} rows are whole.**" in page
    for text in (page, table):
        assert f"| {rows['r1_model_1'].system} | {record['scores']['validation']['accuracy']:.4f} |" in text
        assert not any(f"{value:.4f}" in text for value in hidden)
    for name, row in rows.items():
        if name != "r1_model_1":
            assert f"\n| {row.system} | {modules.score_tables.published(row)} | " in page
    confusion = record["scores"]["test"]["confusion"]
    assert all(f" | {' | '.join(map(str, line))} |" in table for line in confusion)
    assert (tmp_path / "out" / "r1" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "r4" / "bars.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "r2" / "curves.png").exists()


def test_rows_that_need_weights_name_the_command(modules):
    page = modules.tables.page({})
    for name, row in modules.systems.ROWS.items():
        weights = modules.systems.weights_of(row)
        if weights and weights.url:
            assert f"python -m fer_jax.pretrained --fetch {weights.name} --to" in modules.tables.waits_for(name, {})
    assert not re.search(r"(?<!0)\.\d{4} \+-", page)


def test_columns_name_their_split(modules, make_record):
    official = modules.score_tables.scores_table("R1", {"r1_model_1": [make_record("r1_model_1")]})
    assert "| validation (PublicTest) | test (PrivateTest) |" in official
    assert modules.score_tables.split_names("R3") == modules.score_tables.SPLIT_NAMES["random"]  # but its search
    drawn = modules.score_tables.scores_table("R5", {"r5_adam": [make_record("r5_adam")]})
    assert "| validation (random 10%) | test (random 10%) |" in drawn


def test_seeds_are_averaged_and_chosen_epochs_named(modules, make_record):
    runs = [make_record("r1_model_1", seed, epoch=3 + seed) for seed in (0, 1)]
    for run, accuracy in zip(runs, (0.5, 0.6), strict=True):
        run["scores"]["test"]["accuracy"] = accuracy
    (line,) = [
        line for line in modules.score_tables.scores_table("R1", {"r1_model_1": runs}).split("\n") if "CNN 1" in line
    ]
    assert "| 0.5500 +- 0.0707 |" in line
    training = modules.score_tables.training_table({"r1_model_1": runs})
    assert "| 99 | 50 | 3, 4 | 0.0035 +- 0.0007 |" in training
    assert "| 0.9500 +- 0.0000 | 0.5 | AMD |" in training


def test_runs_of_the_faulty_jaxlib_are_marked(modules, make_record):
    record = make_record("r1_model_1")
    assert not modules.runfiles.is_faulty(record)
    assert modules.score_tables.MARK not in "".join(modules.tables.section("R1", {"r1_model_1": [record]}))
    record["packages"]["jaxlib"] = "0.10.2"
    assert modules.runfiles.is_faulty(record)
    text = "\n".join(modules.tables.section("R1", {"r1_model_1": [record]}))
    assert text.count(f"| CNN 1 {modules.score_tables.MARK} |") == 2  # scores and training
    assert "jax/issues/39103" in text
    count = len(modules.systems.ROWS)
    both = {"r1_model_1": [record], "r1_model_2": [make_record("r1_model_2")]}
    again = "1 of them were computed with jaxlib 0.10.2 and are to be run again (†)"
    assert f"**2 of {count} rows are whole; {again}.**" in modules.tables.page(both)
    best = "\n".join(modules.tables.best(both))
    assert "| CNN 1 † |" in best and "jax/issues/39103" in best
    assert not modules.runfiles.is_faulty(record | {"platform": "gpu"})
    assert not modules.runfiles.is_faulty(record | {"kind": "mlp"})
    assert "r1_model_1" in modules.runfiles.whole({"r1_model_1": [record]})
    assert modules.runfiles.done({"r1_model_1": [record]}) == set()  # so the queue runs it again


def test_the_best_row_is_tested_against_those_of_the_same_faces(modules, make_record):
    found = {
        "r1_model_1": [make_record("r1_model_1", right=0.9)],
        "r1_model_2": [make_record("r1_model_2", right=0.5)],
        "r1_model_3": [make_record("r1_model_3", right=0.5)],
        "r1_model_4": [make_record("r1_model_4", right=0.5)],
    }
    found["r1_model_3"][0]["scores"]["test"]["faces"] = "sha256:other"
    found["r1_model_4"][0]["scores"]["test"]["predicted"] = None  # as in files of an earlier layout
    table, remark = modules.score_tables.pairs_table(found)
    assert remark == modules.score_tables.UNKNOWN_FACES
    scores = [found[name][0]["scores"]["test"] for name in ("r1_model_1", "r1_model_2")]
    labels = modules.runfiles.unpack(scores[0]["labels"])
    first, second = (modules.runfiles.unpack(one["predicted"]) == labels for one in scores)
    systems = [modules.systems.ROWS[name].system for name in ("r1_model_1", "r1_model_2")]
    assert f"| {', against '.join(systems)} | {(first & ~second).sum()} | {(second & ~first).sum()} |" in table
    assert len(table.split("\n")) == 3


def test_the_digest_of_the_pictures_decides_which_rows_are_tested(modules, make_record):
    found = {name: [make_record(name)] for name in ("r1_model_1", "r1_model_2", "r1_model_3")}
    for name, digest in zip(found, ("blake2b:1", "blake2b:1", "blake2b:2"), strict=True):
        found[name][0]["scores"]["test"]["faces_digest"] = digest
    (table,) = modules.score_tables.pairs_table(found)  # without a remark
    assert len(table.split("\n")) == 3


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_multiples_of_a_share_are_found_by_rounding(modules, digits):
    published = {round(count / 128, 3) for count in range(129)}
    for thousandths in range(1001):
        share = thousandths / 1000
        if len(f"{share:.3f}".rstrip("0")) == 2 + digits:
            assert modules.tables.is_multiple(share, 128) == (digits == 3 and share in published)


def test_the_lesson_of_few_faces_names_the_rows_whose_figures_are_such_multiples(modules):
    row = modules.systems.Row
    rows = {
        "a": row("R4", "few", published={"test": 0.789}),
        "b": row("R4", "all", published={"test": 0.933}),
        "c": row("R5", "another report's", published={"test": 0.617}),
    }
    (text,) = modules.tables.few_faces(rows)
    assert "few 0.789 = 101/128." in text
    assert "all" not in text.split(":")[1].split(".")[0]
    assert "another" not in text
    assert modules.tables.few_faces({"b": rows["b"]}) == []


@pytest.mark.parametrize(
    ("published", "difference"),
    [
        ({"test": 0.5, "validation": 0.9}, "validation -27.5, test +10.0"),
        ({"validation": 0.62}, "validation +0.5"),
        ({"kaggle": 0.6, "mse": 0.1}, "-"),
    ],
)
def test_the_difference_is_to_the_figure_of_the_same_split(modules, published, difference):
    row = modules.systems.Row("R1", "a network", "cnn.py", published)
    runs = [
        {"scores": {"validation": {"accuracy": validation}, "test": {"accuracy": test}}}
        for validation, test in ((0.6, 0.59), (0.65, 0.61))
    ]
    assert modules.score_tables.difference(row, runs) == difference


def test_every_published_figure_has_a_name(modules):
    for row in modules.systems.ROWS.values():
        assert set(row.published) <= set(modules.score_tables.PUBLISHED_NAMES)
    row = modules.systems.Row("R3", "a system", published={"kaggle": 0.69413, "validation_loss": 1.25})
    assert modules.score_tables.published(row) == "Kaggle 0.6941, validation loss 1.25"


def test_a_searchs_line_names_its_first_trial(modules):
    search = {"seed": 0, "kind": "search", "packages": {"jaxlib": "0.10.2"}, "platform": "cpu"}
    search |= {
        "trials": 20,
        "cut_off": 8,
        "start": {"value": 0.46},
        "best": {"value": 0.52},
        "again": {"start": [0.41, 0.43], "best": [0.44, 0.48]},
    }
    (table,) = modules.score_tables.searches({"r3_search": [search]})
    assert "| 20, 8 cut off | 0.4600 | 0.4200 +- 0.0141 | 0.5200 | 0.4600 +- 0.0283 |" in table
    assert "| search | trials | validation (PublicTest), first trial |" in table
    assert "† |" in table
    assert modules.score_tables.FAULT in modules.tables.section("R3", {"r3_search": [search]})


def test_published_bests_stand_among_our_rows_by_accuracy(modules, make_record):
    record = make_record("r1_model_1")
    record["scores"]["test"]["accuracy"] = 0.7001
    lines = modules.tables.best({"r1_model_1": [record], "r4_model_1": [record], "r5_adam": [record]})[2].split("\n")
    values = [float(line.split(" | ")[1]) for line in lines[2:]]
    assert values == sorted(values, reverse=True)
    assert values.count(0.7001) == 1  # four classes and random splits are of other faces
    assert any(line.startswith("| human raters (65 +- 5%) ‡ | 0.65 |") for line in lines)


def test_published_bests_name_their_pretrained_weights(modules, make_record):
    found = {name: [make_record(name)] for name in ("r1_model_1", "r2_resnet50")}
    text = "\n".join(modules.tables.best(found))
    assert "without other faces with emotion labels" in text
    assert re.search(r"\| ResNet50, 165 layers frozen \| [0-9.]+ \| ImageNet \| 1 \| ours, R2 \|", text)
    assert re.search(r"\| CNN 1 \| [0-9.]+ \| none \| 1 \| ours, R1 \|", text)
    assert "| ImageNet weights, 224x224 | 0.7414 | ImageNet |" in text
    assert "\n‡ judged faces of FER-2013, but not PrivateTest." in text


def test_figures_mark_what_the_faulty_jaxlib_computed(modules, make_record, tmp_path, monkeypatch):
    texts = []
    pyplot = importlib.import_module("matplotlib.pyplot")
    monkeypatch.setattr(
        pyplot.Figure, "savefig", lambda figure, *_, **__: texts.extend(t.get_text() for t in figure.findobj(Text))
    )
    for jaxlib in ("0.12.0.1", "0.10.2"):
        record = make_record("r4_model_1", int(jaxlib == "0.10.2"))
        record["packages"]["jaxlib"] = jaxlib
        for draw in (modules.figures.curves, modules.figures.bars):
            texts.clear()
            draw("R4", {"r4_model_1": [record]}, tmp_path / "x.png")
            faulty = jaxlib == "0.10.2"
            assert (f"CNN 1 {modules.score_tables.MARK}" in texts) == faulty
            assert any("issues/39103" in text for text in texts) == faulty
