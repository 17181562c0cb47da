"""Tables of a report's whole runs: scores, training, errors, paired tests, searches."""

import runfiles
import systems

from fer_jax import significance

SPLIT_NAMES = {
    "official": {"validation": "validation (PublicTest)", "test": "test (PrivateTest)"},
    "random": {"validation": "validation (random 10%)", "test": "test (random 10%)"},
}
PUBLISHED_NAMES = {
    "train": "train",
    "train_loss": "train loss",
    "validation": "validation",
    "validation_loss": "validation loss",
    "test": "test",
    "macro_f1": "macro F1",
    "kaggle": "Kaggle",
    "mse": "mean squared error",
}
MARK = "†"
FAULT = (
    f"{MARK} computed with jaxlib {runfiles.FAULTY_JAXLIB}, which can compute wrong sums on a CPU "
    "(https://github.com/jax-ml/jax/issues/39103); to be run again."
)

UNKNOWN_FACES = (
    "Of some of these runs no digest of the test pictures was kept: their faces are known to be the same by the data's "
    "fingerprint, the split and the labels alone."
)


def marked(name: str, runs: list[dict]) -> str:
    """Returns the system of a row, marked if one of its runs was computed with the faulty jaxlib."""
    return systems.ROWS[name].system + (f" {MARK}" if any(map(runfiles.is_faulty, runs)) else "")


def faults(found: dict) -> list[str]:
    """Returns the footnote for the mark, if one of the rows has it."""
    return [FAULT] if any(runfiles.is_faulty(run) for runs in found.values() for run in runs) else []


def split_names(report: str) -> dict:
    """Returns the names of validation and test in a report's tables, by the split of its configs."""
    splits = {
        systems.get_config(row).data.split
        for row in systems.ROWS.values()
        if row.report == report and row.config and row.kind != "search"  # searches name their split in their own table
    }
    return SPLIT_NAMES[splits.pop()] if len(splits) == 1 else {split: split for split in runfiles.SPLITS}


def scores_table(report: str, scored: dict) -> str:
    """Returns the scores of whole rows next to the published figures."""
    names = split_names(report)
    head = (
        "system",
        names["validation"],
        names["test"],
        "95%, test",
        "macro F1, test",
        "seeds",
        "published",
        "points over it",
    )
    lines = []
    for name, runs in scored.items():
        row, first = systems.ROWS[name], runs[0]["scores"]["test"]
        low, high = first["bootstrap_interval_95"]["accuracy"]
        lines.append(
            (
                marked(name, runs),
                *(spread(runs, lambda run, split=split: run["scores"][split]["accuracy"]) for split in runfiles.SPLITS),
                f"{low:.3f} to {high:.3f}",
                spread(runs, lambda run: run["scores"]["test"]["macro_f1"]),
                len(runs),
                published(row),
                difference(row, runs),
            )
        )
    return table(head, lines)


def training_table(scored: dict) -> str:
    """Returns the table of training: size, epochs, and scores of the chosen epoch and of the last."""
    head = (
        *("system", "parameters", "epochs run", "chosen"),
        *(
            f"{score}, {which}"
            for which in ("chosen", "last")
            for score in ("train accuracy", "train loss", "validation loss")
        ),
        *("hours", "device", "commit"),
    )
    lines = []
    for name, runs in scored.items():
        seconds = [run["seconds"] for run in runs if run["seconds"]]
        lines.append(
            (
                marked(name, runs),
                f"{runs[0]['parameters']:,}",
                _each(run["epochs"] for run in runs),
                _each(run["best_epoch"] for run in runs),
                *(
                    spread(runs, lambda run, which=which, key=key: at(run, which).get(key))
                    for which in ("best_epoch", "last")
                    for key in ("train_accuracy", "train_loss", "validation_loss")
                ),
                f"{sum(seconds) / len(seconds) / 3600:.2g}" if seconds else "-",
                _each(_device(run) for run in runs),
                _each(run["commit"] for run in runs),
            )
        )
    return table(head, lines)


def _device(run):
    """Returns the device of a run, and the number of runs that shared it."""
    sharing = run.get("runs_at_once") or 1
    return f"{run['device']}, {sharing} runs at once" if sharing > 1 else run["device"]


def at(run: dict, which: str) -> dict:
    """Returns a run's 'best_epoch' or 'last' epoch in its curves, {} if it has no such epoch.

    The last epoch's number can exceed the number of epochs run, since a first phase may stop early.
    """
    history = run["history"] or [{}]
    return history[-1] if which == "last" else next((e for e in history if e and e["epoch"] == run[which]), {})


def errors_table(scored: dict) -> list[str]:
    """Returns the mean squared errors, for a report that published some."""
    if not any("mse" in systems.ROWS[name].published for name in scored):
        return []
    lines = []
    for name, runs in scored.items():
        kinds = [[run["scores"]["test"].get(f"mean_squared_error{kind}") for run in runs] for kind in ("", "_hard")]
        if None not in kinds[1]:
            mse = systems.ROWS[name].published.get("mse")
            lines.append((marked(name, runs), *(f"{sum(kind) / len(kind):.4f}" for kind in kinds), mse or "-"))
    head = ("system", "mean squared error of probabilities, test", "of decisions (0 or 1 a class), test", "published")
    return [table(head, lines)]


def pairs_table(scored: dict) -> list[str]:
    """Tests a report's best row on test against every other row with recorded predictions on the same faces."""
    tests = {name: runs[0]["scores"]["test"] for name, runs in scored.items()}
    tests = {name: scores for name, scores in tests.items() if scores.get("predicted")}
    if not tests:
        return []
    best_name = max(tests, key=lambda name: tests[name]["accuracy"])
    first, lines, unknown = tests.pop(best_name), [], False
    for name, second in tests.items():
        # Packed labels are part of `faces`, but need not be byte-identical.
        faces = significance.compare_faces(*({**scores, "labels": None} for scores in (first, second)))
        if faces == significance.OTHER:
            continue
        unknown |= faces == significance.UNKNOWN
        labels, *predicted = (
            runfiles.unpack(text) for text in (first["labels"], first["predicted"], second["predicted"])
        )
        pair = significance.mcnemar(labels, *predicted)
        names = [systems.ROWS[one].system for one in (best_name, name)]
        figures_of_pair = (
            pair["only_first"],
            pair["only_second"],
            f"{100 * pair['difference']:+.1f}",
            f"{pair['p_value']:.2g}",
        )
        lines.append((", against ".join(names), *figures_of_pair))
    head = (
        "McNemar's test: the best on these test faces, against",
        "right where the other errs",
        "the reverse",
        "points",
        "p",
    )
    remarks = [UNKNOWN_FACES] if unknown else []
    return [table(head, lines), *remarks] if lines else []


def searches(mine: dict) -> list[str]:
    """Returns the searches of a report, which use the validation split only."""
    lines, split = [], "validation"
    for name, runs in mine.items():
        for run in runs if systems.ROWS[name].kind == "search" else ():
            split = SPLIT_NAMES[systems.get_config(systems.ROWS[name]).data.split]["validation"]
            again = [_spread(run["again"].get(which) or []) for which in ("start", "best")]
            values = [f"{run[which]['value']:.4f}" for which in ("start", "best")]
            trials = f"{run['trials']}, {run['cut_off']} cut off"
            lines.append((marked(name, [run]), trials, values[0], again[0], values[1], again[1]))
    head = ("search", "trials", f"{split}, first trial", "its other seeds", "best trial", "its other seeds")
    return [table(head, lines)] if lines else []


def published(row) -> str:
    """Returns a row's published figures, each under its own name."""
    return ", ".join(f"{PUBLISHED_NAMES[key]} {value:.4g}" for key, value in row.published.items()) or "-"


def difference(row, runs) -> str:
    """Returns by how many points of accuracy a row exceeds its published figures, each on its own split."""
    found = []
    for split in runfiles.SPLITS:
        if split in row.published:
            ours = significance.spread([run["scores"][split]["accuracy"] for run in runs])["mean"]
            found.append(f"{split} {100 * (ours - row.published[split]):+.1f}")
    return ", ".join(found) or "-"


def spread(runs, score) -> str:
    """Returns the mean of a score over runs and, of several, its standard deviation; '-' where it is not recorded."""
    return _spread([value for value in map(score, runs) if value is not None])


def _spread(values):
    if not values:
        return "-"
    found = significance.spread(values)
    return f"{found['mean']:.4f}" + (f" +- {found['std']:.4f}" if found["std"] is not None else "")


def _each(values):
    return ", ".join(dict.fromkeys("-" if value is None else str(value) for value in values))


def table(head, lines) -> str:
    """Returns a table in Markdown; head: its titles, lines: their cells."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in rows)
