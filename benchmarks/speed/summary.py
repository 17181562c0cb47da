"""Summarizes measured rounds as medians and ratios, a table and a figure."""

import pathlib
import statistics
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

NAMES = {"fer_jax": "fer_jax", "keras": "Keras", "torch": "PyTorch"}
KINDS = ("train", "evaluate", "predict")
OURS = "fer_jax"


def rates(rounds: list[dict]) -> dict:
    """Returns {framework: median images/s}.

    rounds: of one kind of work; each {framework: {"images", "seconds"}}.
    """
    return {name: statistics.median(timing.images_per_second(one[name]) for one in rounds) for name in rounds[0]}


def ratio(rounds: list[dict]) -> dict | None:
    """Returns fer_jax's speed relative to the faster of the others in each round: median, min, max, all.

    None if there is nothing to compare.
    """
    if OURS not in rounds[0] or len(rounds[0]) < 2:
        return None
    speeds = [{name: timing.images_per_second(measured) for name, measured in one.items()} for one in rounds]
    ours = [one.pop(OURS) for one in speeds]
    return timing.ratios(ours, [max(others.values()) for others in speeds])


def summarize(rounds: dict) -> dict:
    """Returns {kind: {"images_per_second", "ratio"}} of {kind: rounds}."""
    return {kind: {"images_per_second": rates(some), "ratio": ratio(some)} for kind, some in rounds.items()}


def table(rows: dict) -> str:
    """Returns two Markdown tables: the speeds, and the other records."""
    frameworks = [name for name in NAMES if any(name in row["workers"] for row in rows.values())]
    shown = [NAMES[name] for name in frameworks]
    lines = [
        *_head(["row", "work", *(f"{name}, images/s" for name in shown), "fer_jax to the faster other (min to max)"]),
        *(_line(cells) for name, row in rows.items() for cells in _speeds(name, row, frameworks)),
        "",
        *_head(
            [
                *("row", "batch", "px", "parameters", "trained"),
                *(f"{name}, first step" for name in shown),
                *(f"{name}, memory" for name in shown),
                "step's temporary memory",
            ]
        ),
        *(_line(_facts(name, row, frameworks)) for name, row in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _speeds(name, row, frameworks):
    for kind, found in row["summary"].items():
        speeds = (found["images_per_second"].get(framework) for framework in frameworks)
        times = found["ratio"]
        compared = f"**{times['median']:.2f}** ({times['min']:.2f} to {times['max']:.2f})" if times else ""
        yield [name, kind, *(_number(speed) for speed in speeds), compared]


def trainer(workers: list[dict]) -> dict:
    """Returns the facts of the worker of a framework that was chosen for training."""
    return next(worker for worker in workers if "train" in worker["kinds"])


def _facts(name, row, frameworks):
    trainers = {framework: trainer(workers) for framework, workers in row["workers"].items()}
    counts = next(iter(trainers.values()))["parameters"]
    steps = (trainers.get(framework, {}).get("first_step_seconds") for framework in frameworks)
    peaks = (trainers.get(framework, {}).get("peak_MiB") for framework in frameworks)
    temporary = trainers.get(OURS, {}).get("temporary_MiB")
    return [
        *(name, str(row["batch"]), str(row["size_px"]), f"{counts['total']:,}", f"{counts['trained']:,}"),
        *("" if step is None else f"{step:.1f} s" for step in steps),
        *("" if peak is None else f"{peak:,.0f} MiB" for peak in [*peaks, temporary]),
    ]


def _number(value):
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _head(cells):
    return [_line(cells), _line(["---"] * len(cells))]


def _line(cells):
    return "| " + " | ".join(cells) + " |"


def figure(rows: dict, path) -> None:
    """Draws the ratios of all rows and kinds of work as bars, with their smallest and largest rounds."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    compared = {name: row["summary"] for name, row in rows.items() if all(s["ratio"] for s in row["summary"].values())}
    shown, axes = pyplot.subplots(figsize=(max(6.0, 1.3 * len(compared)), 4.5), layout="constrained")
    width = 0.8 / len(KINDS)
    for number, kind in enumerate(KINDS):
        ratios = [summary[kind]["ratio"] for summary in compared.values()]
        places = [place + (number - 1) * width for place in range(len(ratios))]
        heights = [one["median"] for one in ratios]
        reach = [[one["median"] - one["min"] for one in ratios], [one["max"] - one["median"] for one in ratios]]
        axes.bar(places, heights, width, yerr=reach, label=kind, error_kw={"linewidth": 0.8})
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(compared)), compared, rotation=30, ha="right")
    axes.set_ylabel("images/s of fer_jax / of the faster other")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(KINDS), frameon=False)
    shown.savefig(path, dpi=150)
    pyplot.close(shown)
