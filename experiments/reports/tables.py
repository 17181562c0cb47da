"""Makes all tables and figures of the five reports from the run files only, without data or workdirs.

python experiments/reports/tables.py

Writes results.md, and for every report <report>/table.md, with the scores per class and the confusion matrix of every
whole row, and <report>/curves.png; for R4 also bars.png.
"""

import argparse
import json
import pathlib

import figures
import runfiles
import schedule
import score_tables
import systems

from fer_jax import command

HERE = pathlib.Path(__file__).resolve().parent
FEW_FACES = 128
NOISE = (
    "On 3,589 test faces one accuracy has a 95% interval of about +-1.5 points: a difference of less is noise, unless "
    "McNemar's test on the same faces says otherwise. Means and standard deviations are over seeds."
)


def page(found: dict) -> str:
    """Returns the page of all reports; found: whole runs, from `runfiles.read` and `runfiles.whole`."""
    prints = sorted(
        {f"{run['data_name'] or 'fer2013'}, {run['data_fingerprint']}" for runs in found.values() for run in runs}
    )
    parts = [
        "# Our figures next to the published ones",
        f"**{headline(found)}.** A row that was not run whole stands in a list of its own, "
        "without figures. All of this is drawn from `runs/` by `python experiments/reports/tables.py`.",
        NOISE,
        *([f"Data: {'; '.join(prints)}."] if prints else []),
    ]
    for report in systems.REPORTS:
        parts += section(report, found)
        there = [f"[scores of each class and confusion matrices]({report.lower()}/table.md)"]
        there += [f"[curves]({report.lower()}/curves.png)"] if figures.with_curves(report, found) else []
        there += [f"[all models as bars]({report.lower()}/bars.png)"] if report == "R4" else []
        parts.append(f"More: {', '.join(there)}.")
    return "\n\n".join([*parts, *best(found)]) + "\n"


def headline(found: dict) -> str:
    """Returns how many rows are whole, and how many of them must be rerun, as text."""
    reasons = {name: [runfiles.needs_rerun(run) for run in runs] for name, runs in found.items()}
    faulty = {name for name, runs in found.items() if any(map(runfiles.is_faulty, runs))}
    again = {name for name, why in reasons.items() if any(why)} - faulty
    text = f"{len(found)} of {len(systems.ROWS)} rows are whole"
    if faulty:
        text += (
            f"; {len(faulty)} of them were computed with jaxlib {runfiles.FAULTY_JAXLIB} and are to be run again "
            f"({score_tables.MARK})"
        )
    return text + (f"; {len(again)} were recorded without confusion matrices and are to be run again" if again else "")


def section(report: str, found: dict) -> list[str]:
    """Returns the paragraphs and tables of a report."""
    rows = {name: row for name, row in systems.ROWS.items() if row.report == report}
    mine = {name: found[name] for name in rows if name in found}
    scored = {name: runs for name, runs in mine.items() if rows[name].kind != "search"}
    parts = [f"## {report}: {systems.REPORTS[report]}", f"{len(mine)} of {len(rows)} rows are whole."]
    if scored:
        parts += [score_tables.scores_table(report, scored), score_tables.training_table(scored)]
    parts += score_tables.errors_table(scored) + score_tables.pairs_table(scored) + score_tables.searches(mine)
    parts += score_tables.faults(mine)
    parts += waiting_table({name: row for name, row in rows.items() if name not in mine}, found)
    lessons = [f"- {row.system}: {row.lesson}" for row in rows.values() if row.lesson]
    return parts + few_faces(rows) + (["\n".join(lessons)] if lessons else [])


def waiting_table(rows: dict, found: dict) -> list[str]:
    """Returns the rows without a whole run, and what each waits for; they show no figures of ours."""
    if not rows:
        return []
    lines = [(row.system, score_tables.published(row), waits_for(name, found)) for name, row in rows.items()]
    return [
        "Not run whole, so without a figure of ours:",
        score_tables.table(("system", "published", "waits for"), lines),
    ]


def waits_for(name: str, found: dict) -> str:
    """Returns what a row needs to be run whole, as text."""
    row = systems.ROWS[name]
    there = {(member, run["seed"]) for member, runs in found.items() for run in runs}
    if missing := list(dict.fromkeys(member for member, seed in systems.members(row) if (member, seed) not in there)):
        needy = [member for member in missing if (weights := _weights(member)) and weights.url]
        return f"its members: {', '.join(missing)}" + (f" ({', '.join(needy)} need weights)" if needy else "")
    weights = _weights(name)
    if weights and weights.url:
        return systems.describe_weights(weights)
    hours, source = schedule.hours_left(name, 0, found)
    return "hours of CPU" if hours is None else f"about {hours:.1f} hours on two cores ({source})"


def few_faces(rows: dict) -> list[str]:
    """Returns the remark on 128 faces, for rows whose published test figures are multiples of 1/128."""
    few = [row for row in rows.values() if row.report == "R4" and is_multiple(row.published.get("test"), FEW_FACES)]
    if not few:
        return []
    shares = ", ".join(
        f"{row.system} {row.published['test']:.3f} = {round(row.published['test'] * FEW_FACES)}/128" for row in few
    )
    drawn = json.loads((HERE / "few_faces.json").read_text())
    low, high = drawn["interval_95"]
    return [
        f"Probably scored on {FEW_FACES} faces, since these published test figures are multiples of 1/{FEW_FACES}: "
        f"{shares}. So few faces say little: of a model with {drawn['accuracy_of_all_faces']:.4f} on {drawn['n']:,} "
        f"faces, 95% of the draws of {drawn['faces']} lie between {low:.3f} and {high:.3f} (few_faces.json)."
    ]


def is_multiple(share, faces: int) -> bool:
    """Whether a published share, rounded to three digits, is a multiple of 1/faces; coarser ones are inconclusive."""
    return share is not None and round(share, 2) != share and round(round(share * faces) / faces, 3) == round(share, 3)


def best(found: dict) -> list[str]:
    """Returns the best published results on PrivateTest among our whole rows of seven classes."""
    lines = [(accuracy, system, weights, "-", source) for system, accuracy, weights, source in systems.PUBLISHED_BEST]
    shown = {}
    for name, runs in found.items():
        row = systems.ROWS[name]
        if row.kind == "train" and (data := systems.get_config(row).data).split == "official" and not data.classes:
            accuracies = [run["scores"]["test"]["accuracy"] for run in runs]
            weights = systems.get_config(row).model.weights.replace("imagenet", "ImageNet") or "none"
            system, shown[name] = score_tables.marked(name, runs), runs
            lines.append((sum(accuracies) / len(accuracies), system, weights, len(runs), f"ours, {row.report}"))
    lines = [(system, f"{value:.4f}".rstrip("0"), *rest) for value, system, *rest in sorted(lines, reverse=True)]
    return [
        "## Published bests and human raters, among our whole rows",
        "Seven classes, the official splits, without other faces with emotion labels.",
        score_tables.table(("system", "test (PrivateTest)", "pretrained weights", "seeds", "source"), lines),
        "‡ judged faces of FER-2013, but not PrivateTest.",
        *score_tables.faults(shown),
    ]


def details(report: str, found: dict) -> list[str]:
    """Returns the scores per class and the confusion matrix of every whole row of a report."""
    parts, names = [], score_tables.split_names(report)
    for name, runs in found.items():
        if systems.ROWS[name].report != report or systems.ROWS[name].kind == "search":
            continue
        parts.append(f"### {systems.ROWS[name].system}, seed {runs[0]['seed']}")
        parts += [f"From {runs[0]['converted_from']}."] if runs[0]["converted_from"] else []
        for split, of_split in runs[0]["scores"].items():
            parts.append(
                f"#### {names[split]}: {of_split['n']:,} faces, "
                f"accuracy {of_split['accuracy']:.4f}, loss {of_split['loss']:.4f}"
            )
            parts += _of_classes(of_split)
    return parts


def _of_classes(scores):
    if not scores.get("confusion"):
        return ["Scores of each class and the confusion matrix were not recorded."]
    head = ("true class", "precision", "recall", "F1", "support", *(f"as {name}" for name in scores["classes"]))
    lines = [
        (one["class"], *(f"{one[key]:.4f}" for key in ("precision", "recall", "f1")), one["support"], *counts)
        for one, counts in zip(scores["per_class"], scores["confusion"], strict=True)
    ]
    return [score_tables.table(head, lines)]


def _weights(name):
    return systems.weights_of(systems.ROWS[name])


def write(folder=runfiles.FOLDER, out=HERE) -> None:
    """Writes all tables and figures from the run files of a folder."""
    recorded = runfiles.read(folder)
    found = runfiles.whole(recorded)
    for report in systems.REPORTS:
        place = pathlib.Path(out) / report.lower()
        place.mkdir(parents=True, exist_ok=True)
        parts = [*section(report, found), *details(report, found)]
        (place / "table.md").write_text("\n\n".join(parts) + "\n")
        figures.curves(report, found, place / "curves.png")
    figures.bars("R4", found, pathlib.Path(out) / "r4" / "bars.png")
    (pathlib.Path(out) / "results.md").write_text(page(found))
    for name, runs in recorded.items():
        for run in runs:
            if run not in found.get(name, []):
                why = "; ".join(runfiles.differences(run)) or "its members are not whole"
                print(f"not shown: {name}, seed {run['seed']}, of an earlier version of its row: {why}")
    print(f"{headline(found)}: {pathlib.Path(out) / 'results.md'}")


def main():
    """Writes the tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=pathlib.Path, default=runfiles.FOLDER, help="folder of the run files")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="default: %(default)s")
    options = parser.parse_args()
    write(options.runs, options.out)


if __name__ == "__main__":
    command.run(main)
