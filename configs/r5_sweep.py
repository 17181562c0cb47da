"""R5's sweep of its six-convolution CNN as one grid: optimizer, learning rate, batch size, epochs; 120 trainings.

R5 changed one setting at a time, like the variants of configs/r5_cnn.py; the grid also shows how the changes combine.

python -m fer_jax.search --config configs/r5_sweep.py --config.data.path=<fer2013.csv> --workdir runs/r5 --trials 120
"""

from fer_jax import config as config_lib

r5_cnn = config_lib.load_neighbour(__file__, "r5_cnn")


def get_config():
    """Returns the config."""
    config = r5_cnn.get_config("adam")
    config.optim.update({"momentum": 0.0, "nesterov": False})  # of SGD, as R5 had it
    config.search.space = (
        "optim.learning_rate choice 1e-4 2e-4 9e-4 1e-3 2e-3",
        "train.batch_size choice 64 32 16 8",
        "train.epochs choice 30 50 75",
        "optim.name choice adam sgd",
    )
    config.search.update({"sampler": "grid", "pruner": "none"})
    return config
