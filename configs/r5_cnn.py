"""R5's six-convolution CNN: `:best` (batch 16, 60 epochs, 2e-4), `:adam` (1e-4, batch 64, 30 epochs), one change each.

`:epochs_50` ... `:rate_2e-3` each differ from `:adam` in one value; R5 does not say whether its changes accumulate.
`:best_2e-3` has the learning rate of R5's summary. Its SGD (0.335) is `:sgd` (1e-4) or `:sgd_1e-2` (Keras's default),
without momentum; `:sgd_momentum` (1e-4), `:sgd_nesterov` (1e-2) and `:dice` are its next steps.
Validation, seed 0 (experiments/reports/): `:adam` 0.6409, test 0.6383; `:sgd` 0.2672; `:sgd_nesterov` 0.4548 in 10.
5,810,183 parameters, 5,805,191 trained; the report gives no dropout rate: 0.25 here. Its split is not stratified, with
501, 45, 477, 921, 617, 406 and 622 test faces per class; ours is: 495, 55, 512, 899, 608, 400, 620.

python -m fer_jax.main --config configs/r5_cnn.py:adam --config.data.path=<folder with fer2013.csv>
"""

from fer_jax import config as config_lib

DROP = "batch_norm, max_pool, dropout 0.25"
CONVS = ["conv 32 relu", f"conv 64 relu, {DROP}", f"conv 128 5x5 relu, {DROP}", *[f"conv 512 relu, {DROP}"] * 3]
DENSE = [f"dense {n} relu, batch_norm, dropout 0.25" for n in (256, 512)]
SGD = {"optim.name": "sgd", "optim.momentum": 0.0, "optim.nesterov": False}
BEST = {"train.batch_size": 16, "train.epochs": 60, "optim.learning_rate": 2e-4}
VARIANTS = {"adam": {}, "best": BEST, "best_2e-3": BEST | {"optim.learning_rate": 2e-3}, "dice": {"loss.name": "dice"}}
VARIANTS |= {f"epochs_{count}": {"train.epochs": count} for count in (50, 75)}
VARIANTS |= {f"batch_{size}": {"train.batch_size": size} for size in (32, 16, 8)}
VARIANTS |= {f"rate_{rate}": {"optim.learning_rate": float(rate)} for rate in ("2e-4", "9e-4", "1e-3", "2e-3")}
VARIANTS |= {"sgd": SGD, "sgd_1e-2": SGD | {"optim.learning_rate": 1e-2}, "sgd_momentum": SGD | {"optim.momentum": 0.9}}
VARIANTS["sgd_nesterov"] = {"optim.name": "sgd", "optim.learning_rate": 1e-2}


def get_config(variant="adam"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.layers = ", ".join([*CONVS, "flatten", *DENSE])
    config.data.split = "random"
    config.optim.learning_rate = 1e-4
    config.train.update({"batch_size": 64, "epochs": 30})
    config.update_from_flattened_dict(config_lib.variant(variant, VARIANTS))
    return config
