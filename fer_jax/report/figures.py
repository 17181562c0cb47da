"""Figures as data URLs: curves and the reliability diagram as SVG, faces as PNG.

Each figure has one or two panels and fits a phone's width; pages put several side by side.
"""

import base64
import io
import textwrap
import warnings

import numpy as np

from fer_jax import metrics
from fer_jax.report import records

BLUE, ORANGE, GREY, RED = "#1f5fa8", "#d9730d", "#6b7280", "#b42318"
# Colour-blind safe: Okabe and Ito 2008 without yellow (too light for lines), then Tol's muted set.
RUN_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9"),
    *("#e69f00", "#882255", "#332288", "#117733", "#999933", "#aa4499"),
)
FACE_PX = 128  # the largest side of a face on a page: more pixels would only make the file larger
DASHES = ("-", (0, (5, 1, 1, 1)), (0, (1, 1)))
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.edgecolor": "#9ca3af",
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in a name is not a formula
    "svg.fonttype": "path",  # the same picture whatever fonts are installed
    "svg.hashsalt": "fer_jax",  # the same bytes for the same data
}
# Panels of the curves: the title, then for each line its column of the history, name, colour and dash.
ACCURACY = (
    "accuracy",
    (
        ("train_accuracy", "train", ORANGE, "--"),
        ("validation_accuracy", "validation", BLUE, "-"),
        ("validation_macro_f1", "validation macro F1", GREY, ":"),
    ),
)
LOSS = ("loss (nats)", (("train_loss", "train", ORANGE, "--"), ("validation_loss", "validation", BLUE, "-")))
PANELS = (ACCURACY, LOSS)
# With few epochs, points are drawn: shapes distinguish the lines, and a circle is visible inside a square.
FEW_EPOCHS = 10
POINT = {"marker": "o", "markersize": 4}
POINTS = {
    "train": {"marker": "s", "markersize": 8, "markerfacecolor": "none"},
    "validation_macro_f1": {"marker": "^", "markersize": 5},
}


def curve(panel, history, best=None):
    """Returns one panel of curves over epochs as SVG; `best`: the epoch to mark, or None."""
    title, lines = panel
    with _style():
        figure = _figure(5.4, 3.9)
        axes = figure.add_subplot(title=title, xlabel="epoch")
        for key, name, colour, dash in lines:
            _plot(axes, history, key, color=colour, linestyle=dash, label=name)
        if axes.lines:
            if best is not None:
                axes.axvline(best, color=RED, linewidth=1, label=f"best epoch: {best}", zorder=1)
            _legend(figure, *axes.get_legend_handles_labels())
        _finish(axes)
        return _svg(figure)


def learning_rate(history):
    """Returns the learning rate over epochs as SVG, on a logarithmic axis if it spans more than a decade."""
    from matplotlib import ticker

    with _style():
        figure = _figure(5.4, 3.0)
        axes = figure.add_subplot(title="learning rate, at the end of each epoch", xlabel="epoch")
        _plot(axes, history, "learning_rate", color=BLUE)
        _, rates = records.series(history, "learning_rate")
        decades = np.log10(rates.max() / rates[rates > 0].min()) if (rates > 0).any() else 0
        if decades > 1:
            axes.set_yscale("log", nonpositive="clip")
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        else:
            axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:.3g}"))  # without a factor above the axis
        _finish(axes)
        return _svg(figure)


def all_curves(runs, *, stacked):
    """Returns accuracy and loss of all runs in one figure as SVG, side by side or `stacked`.

    runs: as in `comparison_html`. Train is dashed, validation solid; from the 13th run on, colours repeat with other
    dashes.
    """
    from matplotlib.lines import Line2D

    columns = 1 if stacked else 3
    names = [textwrap.fill(run["name"], 40) for run in runs]
    legend_lines = sum(name.count("\n") + 1 for name in names) / columns + 3
    size = (5.4, 7.4) if stacked else (11.2, 4.3)
    with _style():
        figure = _figure(size[0], size[1] + 0.22 * legend_lines)
        panels = figure.subplots(2, 1) if stacked else figure.subplots(1, 2)
        for axes, (title, (train, validation, *_)) in zip(panels, PANELS, strict=True):
            axes.set(title=title, xlabel="epoch")
            for position, run in enumerate(runs):
                colour, dash = run_style(position)
                _plot(axes, run["history"], train[0], color=colour, linestyle="--", linewidth=1)
                _plot(axes, run["history"], validation[0], color=colour, linestyle=dash, linewidth=1.8)
            _finish(axes)
        styles = [run_style(position) for position in range(len(runs))]
        few = any(0 < len(run["history"]) < FEW_EPOCHS for run in runs)
        point, square = (POINT, POINTS["train"]) if few else ({}, {})
        handles = [Line2D([], [], color=colour, linestyle=dash, linewidth=2, **point) for colour, dash in styles]
        handles += [Line2D([], [], color=GREY, linestyle="--", linewidth=1, **square)]
        _legend(figure, handles, [*names, "train (all runs)"], columns=columns)
        return _svg(figure)


def run_style(position):
    """Returns (colour, dash) of the run at a position."""
    return RUN_COLOURS[position % len(RUN_COLOURS)], DASHES[position // len(RUN_COLOURS) % len(DASHES)]


def reliability(labels, probs):
    """Returns the reliability diagram as SVG: accuracy against confidence, and the faces in each bin.

    labels [N]; probs [N, K]. Source: Guo et al. 2017.
    """
    bins = metrics.reliability(labels, probs)
    size = 1 / len(bins["count"])
    left = np.arange(len(bins["count"])) * size
    filled = bins["count"] > 0
    with _style():
        figure = _figure(5.4, 4.8)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.bar(left[filled], bins["accuracy"][filled], size, align="edge", color=BLUE, edgecolor="white")
        upper.plot([0, 1], [0, 1], "--", color=GREY, label="perfectly calibrated")
        upper.plot(
            bins["confidence"][filled],
            bins["accuracy"][filled],
            "o",
            color=RED,
            markersize=4,
            clip_on=False,  # dots at 0% and 100% are not cut off
            label="at the mean confidence",
        )
        upper.set(title="accuracy of each bin", xlim=(0, 1), ylim=(0, 1.02))
        _legend(figure, *upper.get_legend_handles_labels())
        share = 100 * bins["count"] / bins["count"].sum()
        lower.bar(left, share, size, align="edge", color=GREY, edgecolor="white")
        lower.set(title="faces (%)", xlabel="probability of the predicted class")
        return _svg(figure)


def face(image):
    """Returns a face, uint8 [H, W, 1 or 3], as PNG: in its own size, which the page enlarges, or at most FACE_PX."""
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture.thumbnail((FACE_PX, FACE_PX))
    picture.save(buffer, "png", optimize=True)
    return _address("image/png", buffer)


def _style():
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(width_inches, height_inches):
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def _legend(figure, handles, names, columns=2):
    """Puts the legend below the axes, where it covers no data."""
    figure.legend(handles, names, loc="outside lower left", ncols=columns, fontsize=9.5)


def _svg(figure):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names in scripts that the font lacks show as boxes here; the page's tables show them correctly.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _address("image/svg+xml", buffer)


def _address(kind, buffer):
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _plot(axes, history, key, **style):
    epochs, values = records.series(history, key)
    markers = _points(key) if len(values) < FEW_EPOCHS else {}
    if len(values):
        axes.plot(epochs, values, **markers, **style)


def _points(key):
    """Returns the marker for a column of the history."""
    return next((shape for name, shape in POINTS.items() if key.startswith(name)), POINT)


def _finish(axes):
    if axes.lines:
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    else:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set(xticks=[], yticks=[], xlabel="")
        axes.spines[:].set_visible(False)
