"""The pictures of the report as matplotlib lays them out: legends, markers and axes."""

import numpy as np
import pytest
from matplotlib import patches
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from fer_jax.report import figures

CURVES = {
    "rises early": lambda t: 0.7 - 0.55 * np.exp(-8 * t),
    "rises late": lambda t: 0.15 + 0.55 * t**4,
    "rises evenly": lambda t: 0.15 + 0.7 * t,
    "falls early": lambda t: 0.4 + 1.6 * np.exp(-8 * t),
    "falls late": lambda t: 2 - 1.6 * t**4,
    "falls evenly": lambda t: 2 - 1.6 * t,
    "up and down": lambda t: 0.5 + 0.4 * np.sin(3 * np.pi * t),
    "all over": lambda t: 0.5 + 0.4 * np.sin(19 * np.pi * t),
    "flat": lambda t: 0.5 + 0 * t,
}
# Of a model: what the logit of the right class has more than the others, and the spread of all logits.
KINDS = {
    "almost perfect": (12, 1),
    "good": (2.5, 1),
    "bad": (0, 1),
    "surely wrong": (-9, 5),
    "right and unsure": (0.6, 0.1),
    "guesses": (0, 0.01),
}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, instead of their SVG."""
    found = []
    monkeypatch.setattr(figures, "_svg", lambda figure: found.append(figure) or "")
    return found


def history_of(shape, epochs):
    """A history whose columns all have one shape, a little apart."""
    keys = [key for _, lines in (figures.ACCURACY, figures.LOSS) for key, *_ in lines]
    values = {key: CURVES[shape](np.linspace(0, 1, epochs)) - 0.02 * i for i, key in enumerate(keys)}
    return [{"epoch": e + 1, **{key: values[key][e] for key in keys}} for e in range(epochs)]


def predictions(kind, n=400):
    """(labels, probs) of a model of seven classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, n)
    right, noise = KINDS[kind]
    logits = right * np.eye(7)[labels] + noise * rng.normal(size=(n, 7))
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def boxes_of_data(axes):
    """The boxes that the data of some axes cover in display coordinates: bars, markers, and lines in short pieces."""
    for bar in axes.patches:
        assert isinstance(bar, patches.Rectangle)
        yield bar.get_window_extent()
    for line in axes.lines:
        points = line.get_transform().transform(line.get_xydata())
        radius = line.get_markersize() * axes.figure.dpi / 144 if line.get_marker() not in ("None", None, "") else 0
        radius = max(radius, line.get_linewidth() * axes.figure.dpi / 144)
        for start, end in zip(points, points[1:] if len(points) > 1 else points, strict=False):
            for x, y in np.linspace(start, end, 50):
                yield Bbox([[x - radius, y - radius], [x + radius, y + radius]])


def assert_legends_cover_no_data(figure):
    FigureCanvasAgg(figure).draw()
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    assert legends
    for legend in legends:
        box = legend.get_window_extent()
        covered = [data for axes in figure.axes for data in boxes_of_data(axes) if box.overlaps(data)]
        assert not covered, f"the legend at {box.bounds} covers {covered[0].bounds}"
        inside = figure.bbox.padded(1)
        assert inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1), "the legend is cut off"


@pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.full), 60])
@pytest.mark.parametrize("shape", CURVES)
def test_the_legend_of_a_curve_covers_no_data(drawn, shape, epochs):
    for panel in (figures.ACCURACY, figures.LOSS):
        for best in {1, epochs, None}:
            figures.curve(panel, history_of(shape, epochs), best)
    for figure in drawn:
        assert_legends_cover_no_data(figure)


@pytest.mark.parametrize("kind", KINDS)
def test_the_legend_of_the_reliability_diagram_covers_no_data(drawn, kind):
    figures.reliability(*predictions(kind))
    assert_legends_cover_no_data(drawn[0])


@pytest.mark.full
@pytest.mark.parametrize("names", [["a", "b"], ["a"], [f"runs/{'long-name-' * 4}{i}" for i in range(14)]])
@pytest.mark.parametrize("epochs", [1, 30])
def test_the_legend_of_all_curves_covers_no_data(drawn, names, epochs):
    shapes = list(CURVES)
    runs = [
        {"name": name, "history": history_of(shapes[i % len(shapes)], epochs), "config": {}, "scores": None}
        for i, name in enumerate(names)
    ]
    for stacked in (False, True):
        figures.all_curves(runs, stacked=stacked)
    for figure in drawn:
        assert_legends_cover_no_data(figure)


def test_equal_points_of_train_and_validation_are_both_seen(drawn):
    same = {"epoch": 1, "train_accuracy": 0.5, "validation_accuracy": 0.5, "validation_macro_f1": 0.5}
    figures.curve(figures.ACCURACY, [same, {"epoch": 2}], 1)
    figures.all_curves([{"name": "a", "history": [same, {"epoch": 2}]}], stacked=False)
    for figure in drawn:
        lines = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
        shapes = [(line.get_marker(), line.get_markersize()) for line in lines]
        assert len(set(shapes)) == len(shapes) >= 2
        train, validation = lines[:2]
        assert train.get_markerfacecolor() == "none"
        assert train.get_markersize() - 2 * train.get_markeredgewidth() > validation.get_markersize()


@pytest.mark.parametrize(
    ("rates", "scale"),
    [
        ([1e-3] * 4, "linear"),
        ([1e-3, 5e-4, 2e-4], "linear"),
        ([1e-4, 1e-3], "linear"),
        ([1e-3, 9e-4, 9.9e-5], "log"),
        ([1e-2 * 0.5**e for e in range(30)], "log"),
        ([1e-3, 1e-4, 1e-5, 0.0], "log"),
        ([0.0, 0.0], "linear"),
    ],
)
def test_the_learning_rate_has_a_logarithmic_axis_where_it_spans_more_than_a_decade(drawn, rates, scale):
    history = [{"epoch": e, "learning_rate": rate} for e, rate in enumerate(rates, start=1)]
    figures.learning_rate([*history, {"epoch": len(rates) + 1}])
    (axes,) = drawn[0].axes
    FigureCanvasAgg(drawn[0]).draw()
    assert axes.get_yscale() == scale
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [*enumerate(rates, start=1)])
    low, high = axes.get_ylim()
    labels = [label.get_text().replace("\u2212", "-") for label in axes.get_yticklabels()]
    shown = [(tick, float(text)) for tick, text in zip(axes.get_yticks(), labels, strict=True) if low <= tick <= high]
    assert len(shown) >= 2
    np.testing.assert_allclose(*np.transpose(shown), rtol=5e-3)
    if rates != [0.0, 0.0]:
        assert high >= max(rates)
        assert low <= min(rate for rate in rates if rate)
