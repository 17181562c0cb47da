"""Formats numbers, renders the report as Markdown, and writes files."""

import html
import pathlib
import re

from fer_jax import files
from fer_jax.report import records

# An underscore inside a word needs no escape in Markdown, and paths read better without the backslash.
MARKDOWN_SIGNS = re.compile(r"[\\`*|\[\]]|(?<![^\W_])_|_(?![^\W_])")


def percent(share):
    """Formats a fraction as percent with two decimals: 0.66123 is '66.12%'."""
    return f"{100 * share:.2f}%"


def interval(scores):
    """Formats the 95% interval of the accuracy: '64.55 to 67.65%'."""
    low, high = scores["accuracy_interval_95"]
    return f"{100 * low:.2f} to {100 * high:.2f}%"


def duration(seconds):
    """Formats seconds with the two largest units: '1 h 05 min', '3 min 20 s', '12.3 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def headlines(scores):
    """Returns (name, value, remark) of each headline figure, in reading order."""
    return [
        ("accuracy", percent(scores["accuracy"]), f"95% interval {interval(scores)} (Wilson)"),
        ("macro F1", f"{scores['macro_f1']:.4f}", "mean over classes"),
        ("loss", f"{scores['loss']:.4f}", "cross-entropy, nats"),
        ("mean squared error", f"{scores['mean_squared_error']:.4f}", "of the probabilities"),
        ("calibration error", f"{scores['calibration_error']:.4f}", "expected, 15 bins"),
        ("faces", f"{scores['n']:,}", f"{scores.get('split') or 'unrecorded'} split"),
    ]


def protocol(scores):
    """Returns (name, value) of each fact needed to assess and reproduce the evaluation."""
    rows = [("split", str(scores.get("split") or "unrecorded")), ("checkpoint", records.choice(scores))]
    counts = [f"{scores[key]:,} {key}" for key in ("parameters", "trainable") if scores.get(key) is not None]
    if counts:
        rows.append(("size", ", ".join(counts)))
    facts = {**scores, "training_command": (scores.get("trained") or {}).get("command")}
    return rows + [(name, str(facts[key])) for key, name in records.FACTS.items() if facts.get(key) not in (None, "")]


def table_rows(scores):
    """Returns rows (name, precision, recall, F1, support) of the classification table, averages last."""
    rows = [(row["class"], row) for row in scores["per_class"]]
    rows += [("macro average", scores["macro_avg"]), ("weighted average", scores["weighted_avg"])]
    return [
        (name, *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1")), f"{row['support']:,}")
        for name, row in rows
    ]


def markdown(scores, history=()) -> str:
    """Returns the evaluation as Markdown: headline figures, classification table, confusion matrix, protocol.

    scores: as in `Evaluation`; history: as in `html`.
    """
    name = scores.get("data_name") or "unrecorded data"
    lines = [f"# Evaluation on {_cell(name)}, {_cell(scores.get('split') or 'unrecorded')} split", ""]
    alerts = [records.SYNTHETIC] if scores.get("synthetic") else []
    for line in alerts + records.warnings(scores, history) + list(scores.get("notes") or []):
        lines += [f"> {_cell(line)}", ""]
    lines += _table(("figure", "value", ""), headlines(scores), numbers=(1,))
    lines += ["## Classes", ""]
    lines += _table(("class", "precision", "recall", "F1", "faces"), table_rows(scores), numbers=range(1, 5))
    lines += ["## Confusion matrix", "", "Rows: true class; columns: predicted class.", ""]
    classes = scores["classes"]
    counts = [(row, *map(str, cells)) for row, cells in zip(classes, scores["confusion"], strict=True)]
    lines += _table(("true", *classes), counts, numbers=range(1, len(classes) + 1))
    lines += ["## Protocol", ""]
    facts = protocol(scores)
    lines += _table(("fact", "value"), [row for row in facts if row[0] not in records.COMMANDS], numbers=())
    if commands := [" ".join(value.splitlines()) for name, value in facts if name in records.COMMANDS]:
        lines += ["```sh", *commands, "```"]
    return "\n".join(lines).rstrip() + "\n"


def write(text, path) -> None:
    """Writes a text atomically as UTF-8; makes the folder, and replaces an older file."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # File names may contain bytes that are not UTF-8; one such name must not prevent the report.
    with files.atomic_write(path, encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)


def _table(header, rows, *, numbers):
    rule = ["---:" if column in numbers else "---" for column in range(len(header))]
    body = [header, rule, *rows]
    return ["| " + " | ".join(map(_cell, row)) + " |" for row in body] + [""]


def _cell(value):
    text = html.escape(" ".join(str(value).split()), quote=False)
    return MARKDOWN_SIGNS.sub(r"\\\g<0>", text)
