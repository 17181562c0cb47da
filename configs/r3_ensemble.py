"""R3's ensemble: an average of trained networks, trained further as one network.

python -m fer_jax.main --config configs/r3_ensemble.py --config.data.path=<...> --config.model.members="('a','b')"

The members a, b, ... are workdirs of runs on the same split; the run starts from their best checkpoints and does not
need them afterwards. R3 averaged its ResNet50, its searched CNN and its VGG16: 0.6395 on its validation faces, and with
351,000 changed images 0.6941 on Kaggle. As in the report: Adam at 1e-4, learning rate reduced on a plateau, early
stopping after 20 epochs without a lower validation loss (the patience of the plateau is ours).
`--config.optim.freeze="('members_0/backbone',)"` freezes the first member's backbone.
"""

from fer_jax import config as config_lib


def get_config():
    """Returns the config; `model.members` must be set."""
    config = config_lib.get_default()
    config.model.name = "average"
    config.data.split = "random"
    config.optim.learning_rate = 1e-4
    config.optim.plateau.patience_epochs = 5
    config.train.early_stopping.update({"patience_epochs": 20, "monitor": "validation_loss"})
    return config
