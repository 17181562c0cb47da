"""R3's InceptionV3 with ImageNet weights, frozen, at 75 px, on augmented faces: 22,329,127 parameters.

python -m fer_jax.main --config configs/inception_v3.py --config.data.path=<folder with fer2013.csv>

R3 used flips both ways, rotation, zoom, shear and crops without giving their sizes, which are ours.
"""

from fer_jax import config as config_lib


def get_config():
    """Returns the config."""
    config = config_lib.get_default()
    config.model.update({"name": "inception_v3", "weights": "imagenet", "size_px": 75})
    config.model.head = "global_avg_pool, dense 256 relu, dropout 0.5"
    config.data.split = "random"
    config.augment.update({"flip_horizontal": 0.5, "flip_vertical": 0.5, "rotate_degrees": 10.0})
    config.augment.update({"zoom": 0.1, "shear_degrees": 10.0, "crop_px": 44})
    config.optim.freeze = ("backbone",)
    config.optim.plateau.patience_epochs = 5
    config.train.early_stopping.update({"monitor": "validation_loss", "patience_epochs": 20})
    return config
