"""Reports: recorded metrics and predictions as tables, curves, a confusion matrix and pictures.

All functions take data and return text, except `write`, which writes to disk. A page is a single file without external
resources, so it can be mailed, archived and printed.
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
