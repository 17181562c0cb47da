"""From recorded metrics and predictions to tables, curves, a confusion matrix and pictures.

Takes data and returns text; `write` alone touches the disk. The pages are single files without any outside
resource: they can be mailed, archived and printed.
"""

from fer_jax.report.card import model_card
from fer_jax.report.comparison import comparison_html
from fer_jax.report.heat import Heat
from fer_jax.report.pages import html, mistakes
from fer_jax.report.records import AugmentedFace, Evaluation
from fer_jax.report.search import draw_search
from fer_jax.report.text import markdown, write

__all__ = [
    "AugmentedFace",
    "Evaluation",
    "Heat",
    "comparison_html",
    "draw_search",
    "html",
    "markdown",
    "mistakes",
    "model_card",
    "write",
]
