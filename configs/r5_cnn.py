"""R5's six-convolution CNN: `:adam` (1e-4, batch 64, 30 epochs), and `:sgd` with the same settings.

`:epochs_75`, `:batch_16`, `:rate_2e-4` are the best of its sweep; `:sgd_nesterov` is what SGD can do, at 1e-2.
Validation, seed 0 (experiments/reports/): `:adam` 0.6409, test 0.6383; `:sgd` 0.2672; `:sgd_nesterov` 0.4548 in 10.
Layers by the published counts (5,810,183 parameters, 5,805,191 trained); the report gives no dropout rate: 0.25 here.

python -m fer_jax.main --config configs/r5_cnn.py:adam --config.data.path=<folder with fer2013.csv>
"""

from fer_jax import config as config_lib

DROP = "max_pool, dropout 0.25"
LAYERS = [
    "conv 32 relu",
    f"conv 64 relu, batch_norm, {DROP}",
    f"conv 128 5x5 relu, batch_norm, {DROP}",
    *(f"conv 512 relu, batch_norm, {DROP}" for _ in range(3)),
    "flatten",
    *(f"dense {n} relu, batch_norm, dropout 0.25" for n in (256, 512)),
]
VARIANTS = {
    "adam": {},
    "sgd": {"optim.name": "sgd", "optim.momentum": 0.0, "optim.nesterov": False},
    "sgd_nesterov": {"optim.name": "sgd", "optim.learning_rate": 1e-2},
    "epochs_75": {"train.epochs": 75},
    "batch_16": {"train.batch_size": 16},
    "rate_2e-4": {"optim.learning_rate": 2e-4},
}


def get_config(variant="adam"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.layers = ", ".join(LAYERS)
    config.data.split = "random"
    config.optim.learning_rate = 1e-4
    config.train.update({"batch_size": 64, "epochs": 30})
    config.update_from_flattened_dict(config_lib.variant(variant, VARIANTS))
    return config
