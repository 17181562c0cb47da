"""R3's baseline, a perceptron with 128 and 64 hidden units on grey values, as a network of this project.

python -m fer_jax.main --config configs/r3_mlp.py --config.data.path=<folder with fer2013.csv>

Adam at 1e-3, batch 200 and L2 1e-4 / 2 / 200, as in scikit-learn's MLPClassifier; 303,751 parameters. MLPClassifier
itself, with its mean squared error, is a row of experiments/reports/.
"""

from fer_jax import config as config_lib


def get_config():
    """Returns the config."""
    config = config_lib.get_default()
    config.model.layers = "flatten, dense 128 relu, dense 64 relu"
    config.data.split = "random"
    config.loss.l2 = 1e-4 / 2 / 200
    config.train.batch_size = 200
    config.train.early_stopping.patience_epochs = 10
    return config
