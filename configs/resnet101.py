"""R4's ResNet101 with ImageNet weights in three regimes: `:last_layer`, `:frozen`, `:unfrozen`; four emotions.

`:random` is `:unfrozen` from random weights, which R4 reports as better; `:last_layer_v2` is ResNet101V2, named by the
first version of the report.

python -m fer_jax.main --config configs/resnet101.py:unfrozen --config.data.path=<folder with fer2013.csv>
"""

from fer_jax import config as config_lib

LAST_LAYER = ("backbone/(?!conv5_block3_3_).*",)
UNFROZEN = {"optim.learning_rate": 1e-4}
VARIANTS = {
    "last_layer": {"optim.freeze": LAST_LAYER},
    "last_layer_v2": {"model.name": "resnet101v2", "optim.freeze": LAST_LAYER},
    "frozen": {"optim.freeze": ("backbone",)},
    "unfrozen": UNFROZEN,
    "random": UNFROZEN | {"model.weights": ""},
}


def get_config(variant="unfrozen"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.update({"name": "resnet101", "weights": "imagenet"})
    config.model.head = "flatten, dense 256 relu, dense 128 relu, dropout 0.3, dense 64 relu, batch_norm"
    config.data.classes = ("happy", "sad", "neutral", "surprise")
    config.train.update({"batch_size": 32, "epochs": 20})
    config.update_from_flattened_dict(config_lib.variant(variant, VARIANTS))
    return config
