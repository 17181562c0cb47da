"""R4's ResNet101 with ImageNet weights in three regimes: `:last_layer`, `:frozen`, `:unfrozen`; four emotions.

python -m fer_jax.main --config configs/resnet101.py:unfrozen --config.data.path=<folder with fer2013.csv>
"""

from fer_jax import config as config_lib

VARIANTS = {
    "last_layer": {"freeze": ("backbone/(?!conv5_block3_3_).*",)},
    "frozen": {"freeze": ("backbone",)},
    "unfrozen": {"learning_rate": 1e-4},
}


def get_config(variant="unfrozen"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.update({"name": "resnet101", "weights": "imagenet"})
    config.model.head = "flatten, dense 256 relu, dense 128 relu, dropout 0.3, dense 64 relu, batch_norm"
    config.data.classes = ("happy", "sad", "neutral", "surprise")
    config.optim.update(config_lib.variant(variant, VARIANTS))
    config.train.update({"batch_size": 32, "epochs": 20})
    return config
