"""The recorded rows as tables and curves."""

import json
import pathlib

import systems

from fer_jax import records, scoring, significance

BUDGETS = ("gpu", "cpu", "smoke")  # the fullest first
NOISE = (
    "On 3,589 test faces one accuracy has a 95% interval of about +-1.5 points: a difference of less is noise, unless "
    "McNemar's test on the same faces, in the second table of a report, says otherwise."
)


def add(out: pathlib.Path, runs, name: str, row, record: dict) -> None:
    """Adds a record to its report's results.json, in the place of one of the same row, budget and seed; writes all.

    runs: the folder that the records' workdirs are named from.
    """
    folder = out / row.report.lower()
    folder.mkdir(parents=True, exist_ok=True)
    held = read(folder)
    kept = [one for one in held.get(name, []) if (one["budget"], one["seed"]) != (record["budget"], record["seed"])]
    held[name] = sorted([*kept, record], key=lambda one: (BUDGETS.index(one["budget"]), one["seed"]))
    records.write_json(folder / "results.json", {name: held[name] for name in systems.ROWS if name in held})
    records.write_json(folder / "pairs.json", pairs(held, runs, read(folder, "pairs.json")))
    (folder / "table.md").write_text(table(row.report, held))
    curves(held, folder / "curves.png")
    (out / "results.md").write_text(page(out))


def read(folder: pathlib.Path, name: str = "results.json") -> dict:
    """Returns what a report's file holds, such as {row: records}, empty where nothing was recorded."""
    path = folder / name
    return json.loads(path.read_text()) if path.exists() else {}


def pairs(held: dict, runs, before: dict) -> dict:
    """Tests a report's best row against each other one whose test split was scored, on the same faces.

    Returns {'first and second': McNemar's test}, of the first seeds; tests of `before` are kept where the predictions
    of a row are no longer there.
    """
    whole = {name: fullest(found)[0] for name, found in held.items() if found and fullest(found)[0]["test"]}
    if not whole:
        return {}
    best = max(whole, key=lambda name: whole[name]["test"]["accuracy"])
    others = [name for name in whole if name != best]
    found = {}
    for name in others:
        key = f"{best} and {name}"
        paths = [scoring.target(pathlib.Path(runs, whole[one]["workdir"]), "test") for one in (best, name)]
        for pair in scoring.compare(paths) or [before.get(key)]:
            found |= {key: pair} if pair else {}
    return found


def fullest(found: list[dict]) -> list[dict]:
    """Returns the records of the fullest budget that was run."""
    return [one for one in found if one["budget"] == found[0]["budget"]] if found else []


def table(report: str, held: dict) -> str:
    """Returns a report's rows in Markdown; every row of the report stands in it, run or not."""
    lines = [
        "| system | validation | test | 95% | macro F1 | published | points over it | seeds | length | device | time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in systems.ROWS.items():
        if row.report == report:
            lines.append(_line(row, fullest(held.get(name, []))))
    return "\n".join(lines) + "\n"


def _line(row, found):
    published = ", ".join(f"{key} {value:.4g}" for key, value in row.published.items()) or "-"
    if not found:
        return f"| {row.system} | not run yet | | | | {published} | | | | | |"
    split = "test" if found[0]["test"] else "validation"
    scores = [one[split] for one in found]
    low, high = scores[0]["bootstrap_interval_95"]["accuracy"]
    hard = scores[0].get("mean_squared_error_hard")
    errors = f" (mse {scores[0]['mean_squared_error']:.4f}, of classes {hard:.4f})" if hard is not None else ""
    start = f" ({_start(found[0])})" if "start" in found[0] else ""
    seconds = [one["seconds"] for one in found if "seconds" in one]
    return (
        f"| {row.system} | {_spread([one['validation']['accuracy'] for one in found])}{start} | "
        f"{_spread([one['accuracy'] for one in scores]) if split == 'test' else '-'} | {low:.3f} to {high:.3f} | "
        f"{_spread([one['macro_f1'] for one in scores])}{errors} | {published} | "
        f"{_difference(row, found)} | {len(found)} | "
        f"{found[0]['shortened'] or 'full'} | {found[0]['device']} | "
        f"{f'{sum(seconds) / len(seconds) / 60:.1f} min' if seconds else '-'} |"
    )


def _start(record):
    told, again = f"its start {record['start']['value']:.4f}", record.get("again")
    if again:
        told += f"; with {len(again['best'])} other seeds {_spread(again['best'])}, its start {_spread(again['start'])}"
    return told


def _difference(row, found):
    """Returns by how many points of accuracy whole runs lie over the published figure, on its own split."""
    for split in ("test", "validation"):
        if split in row.published and found[0][split] and not found[0]["shortened"]:
            ours = significance.spread([one[split]["accuracy"] for one in found])["mean"]
            return f"{100 * (ours - row.published[split]):+.1f}"
    return "-"


def _spread(values):
    found = significance.spread(values)
    return f"{found['mean']:.4f}" + (f" +- {found['std']:.4f}" if found["std"] is not None else "")


def page(out: pathlib.Path) -> str:
    """Returns the page that collects the reports."""
    parts = ["# Our figures beside the published ones\n", NOISE + "\n"]
    for report in systems.REPORTS:
        parts += [f"## {report}: {systems.REPORTS[report]}\n", table(report, read(out / report.lower()))]
        parts += _tests(read(out / report.lower(), "pairs.json"))
        lessons = [
            f"- {row.system}: {row.lesson}" for row in systems.ROWS.values() if row.report == report and row.lesson
        ]
        parts += ["\n".join(lessons) + "\n"] if lessons else []
    return "\n".join(parts)


def _tests(found):
    """Returns the table of the paired tests, none where there are none."""
    if not found:
        return []
    lines = ["| the best on these test faces, against | right where the other errs | the reverse | points | p |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for key, pair in found.items():
        first, second = (systems.ROWS[name].system for name in key.split(" and "))
        lines.append(
            f"| {first}, against {second} | {pair['only_first']} | {pair['only_second']} | "
            f"{100 * pair['difference']:+.1f} | {pair['p_value']:.2g} |"
        )
    return ["\n".join(lines) + "\n"]


def curves(held: dict, path: pathlib.Path) -> None:
    """Draws accuracy and loss of all runs of a report over epochs, training dashed."""
    import matplotlib.pyplot as plt

    runs = {name: fullest(found)[0] for name, found in held.items() if found and fullest(found)[0].get("history")}
    if not runs:
        return
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for axis, score in zip(axes, ("accuracy", "loss"), strict=True):
        for number, (name, run) in enumerate(runs.items()):
            epochs = [epoch["epoch"] for epoch in run["history"]]
            for split, style in (("validation", "-"), ("train", "--")):
                values = [epoch[f"{split}_{score}"] for epoch in run["history"]]
                label = systems.ROWS[name].system if split == "validation" else None
                axis.plot(epochs, values, style, color=f"C{number % 10}", label=label, linewidth=1, marker=".")
        axis.set_xlabel("epoch")
        axis.set_ylabel(score)
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7, loc="upper right", title="validation; dashed: training")
    figure.savefig(path, dpi=120)
    plt.close(figure)
