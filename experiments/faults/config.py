"""A short training run in two phases on a few drawn faces, with every part that has a state: for run.py."""

from fer_jax import config as config_lib


def get_config():
    """Returns the config."""
    config = config_lib.get_default()
    config.data.update({"name": "drawn_faces", "drawn_size": "tiny", "feeder": "resident"})
    config.model.layers = (
        "conv 8 relu, batch_norm, max_pool, conv 8 relu, max_pool, flatten, dropout 0.2, dense 16 relu"
    )
    config.augment.update({"flip_horizontal": 0.5, "rotate_degrees": 10.0})
    config.optim.freeze = ("conv2d",)
    config.optim.fine_tune.update({"after_epochs": 8, "learning_rate": 3e-4})
    config.optim.plateau.patience_epochs = 1
    config.train.update({"batch_size": 16, "epochs": 16})
    config.train.keep_compiled = False  # so that signals come while it compiles
    config.log.every_steps = 10
    return config
