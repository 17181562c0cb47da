"""EfficientNets with ImageNet weights: R1's B0 (`:r1`), and R4's B2 in three regimes.

python -m fer_jax.main --config configs/efficientnet.py:r1 --config.data.path=<folder with fer2013.csv>

R1: 224 px, frozen, Dense 128, 10 epochs; 4,214,435 parameters (Keras adds the 7 constants of its scaling layer).
R4: `:r4_last_layer`, `:r4_frozen`, `:r4_unfrozen`; four emotions, batch 32. R4 says "EfficientNet B2"; the course
template that it follows has EfficientNetV2B2: `--config.model.name=efficientnetv2b2`.
"""

from fer_jax import config as config_lib

R4_HEAD = "flatten, dense 256 relu, dense 128 relu, dropout 0.3, dense 64 relu, batch_norm"
R4 = {"model": {"name": "efficientnetb2", "head": R4_HEAD}, "train": {"batch_size": 32, "epochs": 20}}
R4["data"] = {"classes": ("happy", "sad", "neutral", "surprise")}
VARIANTS = {
    "r1": {
        "model": {"name": "efficientnetb0", "head": "global_avg_pool, dense 128 relu", "size_px": 224},
        "optim": {"freeze": ("backbone",)},
        "train": {"epochs": 10},
    },
    "r4_last_layer": R4 | {"optim": {"freeze": ("backbone/(?!top_).*",)}},
    "r4_frozen": R4 | {"optim": {"freeze": ("backbone",)}},
    "r4_unfrozen": R4 | {"optim": {"learning_rate": 1e-4}},
}


def get_config(variant="r1"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.weights = "imagenet"
    config.update(config_lib.variant(variant, VARIANTS))
    return config
