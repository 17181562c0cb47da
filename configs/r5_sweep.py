"""R5's sweep of its six-convolution CNN as one grid: optimizer, learning rate, batch size, epochs; 120 trainings.

python -m fer_jax.search --config configs/r5_sweep.py --config.data.path=<fer2013.csv> --workdir runs/r5 --trials 120

`:rate`, `:batch`, `:epochs` and `:optimizer` vary one of them and leave the others at R5's 1e-4, 64, 30 and Adam.
"""

from configs import r5_cnn
from fer_jax import config as config_lib

GRID = {
    "rate": "optim.learning_rate choice 1e-4 2e-4 9e-4 1e-3 2e-3",
    "batch": "train.batch_size choice 64 32 16 8",
    "epochs": "train.epochs choice 30 50 75",
    "optimizer": "optim.name choice adam sgd",
}
VARIANTS = {"all": tuple(GRID.values())} | {name: (line,) for name, line in GRID.items()}


def get_config(variant="all"):
    """Returns the config of a variant."""
    config = r5_cnn.get_config("adam")
    config.optim.update({"momentum": 0.0, "nesterov": False})  # of SGD, as R5 had it
    config.search.space = config_lib.variant(variant, VARIANTS)
    config.search.update({"sampler": "grid", "pruner": "none"})
    return config
