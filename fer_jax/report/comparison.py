"""The page that compares several runs."""

import itertools

from fer_jax import significance, wording
from fer_jax.report import elements, figures, records, text, training
from fer_jax.report.elements import element

SIGNIFICANT = 0.05


def comparison_html(runs, pairs=()) -> str:
    """Returns several runs as one self-contained HTML page: scores, curves, differences of the configs.

    runs: a list of dicts: name; scores (as in `Evaluation`, or None if the run was not evaluated); history (as in
    `html`); config (nested dict). pairs: one McNemar test per pair of runs, a dict with their positions `first` and
    `second`, `faces` from `significance.compare_faces`, and the result of `significance.mcnemar`.

    Raises:
      ValueError: there are no runs, or two have the same name.
    """
    names = [run["name"] for run in runs]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"a comparison needs one or more runs with different names; it got {names}")
    scored = [run["scores"] for run in runs if run["scores"]]
    faces = {significance.compare_faces(*pair) for pair in itertools.combinations(scored, 2)}
    comparable = significance.OTHER not in faces
    title = f"Comparison of {wording.count(len(runs), 'run')}" if len(runs) > 1 else f"Run {names[0]}"
    head = [element("h1", title)]
    if any(scores.get("synthetic") for scores in scored):
        head.append(element("p", records.SYNTHETIC, class_="synthetic"))
    if not comparable:
        remark = "These runs were scored on different faces (data, split or pictures): their scores do not compare."
        head.append(element("p", remark, class_="warning"))
    elif significance.UNKNOWN in faces:
        head.append(element("p", significance.UNKNOWN_FACES, class_="warning"))
    if unfinished := [f"{run['name']}, trained up to {found}" for run in runs if (found := _unfinished(run))]:
        head.append(element("p", f"Unfinished: {'; '.join(unfinished)}.", class_="warning"))
    content = [
        *head,
        elements.section("Scores", _runs_table(runs, mark_best=comparable and len(scored) > 1)),
        *([elements.section("Do they differ?", *_tests(names, pairs))] if pairs else []),
        elements.section("Curves", _curves_of_all(runs)),
        elements.section("What the configs differ in", _differences(runs)),
    ]
    return elements.page(title, content)


def _runs_table(runs, *, mark_best):
    goals = {"accuracy": max, "macro_f1": max, "loss": min}
    scored = [run["scores"] for run in runs if run["scores"]]
    best = {key: goal(scores[key] for scores in scored) for key, goal in goals.items()} if mark_best else {}
    monitors = {records.monitor(run["config"]) for run in runs} - {None}
    rows = []
    for position, run in enumerate(runs):
        scores, seconds = run["scores"] or {}, records.series(run["history"], "seconds")[1]
        chosen = records.best_epoch(run["history"], run["config"])
        shown = {key: f"{scores[key]:.4f}" if scores else "\u2013" for key in goals}
        if scores:
            shown["accuracy"] = text.percent(scores["accuracy"])
        marked = {
            key: element("b", value) if scores and scores[key] == best.get(key) else value
            for key, value in shown.items()
        }
        where = f"{scores.get('data_name') or 'unrecorded'}, {scores.get('split') or 'unrecorded'}"
        rows.append(
            (
                element("div", elements.swatch(position), element("span", run["name"]), class_="run"),
                where if scores else "not evaluated",
                marked["accuracy"],
                text.interval(scores) if scores else "\u2013",
                marked["macro_f1"],
                marked["loss"],
                f"{scores['parameters']:,}" if scores.get("parameters") is not None else "\u2013",
                _unfinished(run).removeprefix("epoch ") or len(run["history"]),
                chosen[0] if chosen else "\u2013",
                _best_value(chosen, run["config"], monitors),
                text.duration(seconds.sum()) if len(seconds) else "\u2013",
            )
        )
    header = ("run", "scored on", "accuracy", "95% interval", "macro F1", "loss", "parameters", "epochs")
    best_value = f"best {monitors.pop()}" if len(monitors) == 1 else "best value of the monitor"
    header += ("best epoch", best_value.replace("_", " "), "training time")
    return elements.table(header, rows, numbers=range(2, 11), class_="rows", min_width="1000px")


def _unfinished(run):
    return records.unfinished(run["history"], run["config"], (run["scores"] or {}).get("epoch"))


def _tests(names, pairs):
    tests, one_in = wording.count(len(pairs), "test"), max(1, round(1 / SIGNIFICANT))
    remark = (
        "McNemar's exact test on the same faces: p is how likely two models of equal accuracy would differ as much. "
        f"With {tests}, one in {one_in} of equal pairs looks different by chance."
    )
    rows = [
        (
            names[pair["first"]],
            names[pair["second"]],
            f"{100 * pair['difference']:+.2f}",
            f"{pair['only_first']:,}",
            f"{pair['only_second']:,}",
            f"{pair['p_value']:.3g}",
            "yes" if pair["p_value"] < SIGNIFICANT else "not shown",
        )
        for pair in pairs
    ]
    header = ("first", "second", "points of accuracy", "only first right", "only second right", "p", "differ")
    return element("p", remark, class_="remark"), elements.table(header, rows, numbers=range(2, 6), class_="rows")


def _best_value(chosen, config, monitors):
    if chosen is None:
        return "\u2013"
    return f"{chosen[1]:.4f}" if len(monitors) == 1 else f"{chosen[1]:.4f} {records.monitor(config)}"


def _curves_of_all(runs):
    if max(len(run["history"]) for run in runs) == 1:
        rows = [(run["name"], (run["history"] or [{}])[0]) for run in runs]
        return training.numbers(rows, first="run")
    wide, narrow = (figures.all_curves(runs, stacked=stacked) for stacked in (False, True))
    image = element("img", src=wide, alt="accuracy and loss of all runs over epochs")
    choice = element("picture", element("source", media="(max-width: 700px)", srcset=narrow), image)
    return element("figure", choice, class_="plot")


def _differences(runs):
    found = records.differences([run["config"] for run in runs])
    if not found:
        return element("p", "Nothing: the configs are equal.", class_="remark")
    rows = [(field, *(elements.value(value) for value in values)) for field, values in found.items()]
    header = ("field", *(run["name"] for run in runs))
    return elements.table(header, rows, class_="rows fields", min_width=f"{15 + 8 * len(runs)}em")
