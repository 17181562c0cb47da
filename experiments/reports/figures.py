"""Figures: curves of whole runs, and bars of a report's models."""

import pathlib

import score_tables
import systems


def with_curves(report: str, found: dict) -> dict:
    """Returns {row: record of the first seed} for a report's whole rows that have curves."""
    first = {name: runs[0] for name, runs in found.items() if systems.ROWS[name].report == report}
    return {name: run for name, run in first.items() if run["history"] and run["kind"] != "search"}


def curves(report: str, found: dict, path: pathlib.Path) -> None:
    """Draws accuracy and loss of a report's whole runs over epochs, training dashed; without any, removes the file."""
    import matplotlib.pyplot as plt

    runs = with_curves(report, found)
    if not runs:
        path.unlink(missing_ok=True)
        return
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for axis, score in zip(axes, ("accuracy", "loss"), strict=True):
        for number, (name, run) in enumerate(runs.items()):
            epochs = [epoch["epoch"] for epoch in run["history"]]
            for split, style in (("validation", "-"), ("train", "--")):
                values = [epoch[f"{split}_{score}"] for epoch in run["history"]]
                label = score_tables.marked(name, [run]) if split == "validation" else None
                axis.plot(epochs, values, style, color=f"C{number % 10}", label=label, linewidth=1)
        axis.set_xlabel("epoch")
        axis.set_ylabel(score)
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7, loc="best", title="validation; dashed: training")
    figure.suptitle("\n".join(score_tables.faults({name: [run] for name, run in runs.items()})), fontsize=7)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def bars(report: str, found: dict, path: pathlib.Path) -> None:
    """Draws the test accuracy of all models of a report: the published one and, for whole rows, ours."""
    import matplotlib.pyplot as plt

    rows = {name: row for name, row in systems.ROWS.items() if row.report == report and row.kind == "train"}
    figure, axis = plt.subplots(figsize=(9, 1 + 0.34 * len(rows)), layout="constrained")
    for place, (name, row) in enumerate(rows.items()):
        ours = [run["scores"]["test"]["accuracy"] for run in found.get(name, [])]
        both = ((row.published.get("test"), "C7", -0.2), (sum(ours) / len(ours) if ours else None, "C0", 0.2))
        for value, color, shift in both:
            if value is not None:
                axis.barh(place + shift, value, 0.38, color=color)
                axis.text(value + 0.005, place + shift, f"{value:.3f}", va="center", fontsize=7)
    axis.set_yticks(range(len(rows)), [_name(name, found) for name in rows])
    axis.tick_params(axis="y", labelsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 1.05)
    mine = {name: found[name] for name in rows if name in found}
    axis.set_xlabel("\n".join(["test accuracy", *score_tables.faults(mine)]))
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in ("C7", "C0")]
    names = ["published, on the report's faces", "ours, whole runs, on all test faces of these classes"]
    figure.legend(handles, names, fontsize=8, loc="outside upper right", ncols=2)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _name(name, found):
    return score_tables.marked(name, found[name]) if name in found else f"{systems.ROWS[name].system} (not run whole)"
