"""R4's custom CNNs for four emotions: `:model_1`, `:model_2`, `:final`, each with `_grey` for one channel.

python -m fer_jax.main --config configs/r4_cnn.py:final --config.data.path=<folder with fer2013.csv>

Layers of the course template that the report follows; flips, brightness, shear; the last one's dropout is our choice.
"""

from fer_jax import config as config_lib


def _blocks(filters, after):
    return [f"conv {n} 2x2 same relu, {after}" for n in filters]


LEAKY = "batch_norm, leaky_relu 0.1, max_pool"
DENSE = "dense {}, batch_norm, relu, dropout 0.5"
VARIANTS = {
    "model_1": [*_blocks((64, 32, 32), "max_pool, dropout 0.2"), "flatten, dense 512 relu, dropout 0.4"],
    "model_2": [*_blocks((256, 128, 64, 32), LEAKY), "flatten, dense 512 relu, dense 128 relu"],
    "final": [*_blocks((64, 128, 512, 512, 128), LEAKY), "flatten", DENSE.format(256), DENSE.format(512)],
}
VARIANTS |= {f"{name}_grey": layers for name, layers in VARIANTS.items()}


def get_config(variant="final"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.layers = ", ".join(config_lib.variant(variant, VARIANTS))
    config.model.channels = 1 if variant.endswith("_grey") else 3
    config.data.classes = ("happy", "sad", "neutral", "surprise")
    config.augment.update({"flip_horizontal": 0.5, "brightness": 0.3, "shear_degrees": 17.0})
    config.train.update({"batch_size": 32, "epochs": 20})
    if variant.startswith("final"):
        config.optim.learning_rate = 3e-3
        config.optim.plateau.patience_epochs = 3
        config.train.epochs = 35
    return config
