"""Optuna's plots of a search."""

import pathlib
import warnings

import matplotlib

from fer_jax import files


def draw_search(study, folder) -> dict[str, str]:
    """Writes search-history.png, -epochs.png, -slices.png and -importances.png of an optuna.Study into a folder.

    Returns {name: reason} of those that cannot be drawn, such as the importances of a single trial.
    """
    matplotlib.use("agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    kinds = {
        "history": plots.plot_optimization_history,
        "epochs": plots.plot_intermediate_values,
        "slices": plots.plot_slice,
        "importances": plots.plot_param_importances,
    }
    left_out = {}
    for kind, draw in kinds.items():
        name = f"search-{kind}.png"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna warns that these plots are experimental
                draw(study)
                with files.replacing(pathlib.Path(folder) / name) as path:  # another process may draw it too
                    pyplot.savefig(path, format="png", dpi=120, bbox_inches="tight")
        except (ImportError, RuntimeError, ValueError) as error:
            left_out[name] = str(error)
        finally:
            pyplot.close("all")
    return left_out
