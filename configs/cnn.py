"""R1's custom CNNs 1 to 6 (`:model_1` ... `:model_6`), on the official splits.

python -m fer_jax.main --config configs/cnn.py:model_2 --config.data.path=<folder with fer2013.csv>

It gave, for model 2 and seed 0, 0.6565 on validation and 0.6606 on test: experiments/r1_cnns/.
Adam at 1e-3, decayed by 0.98 every 1,000 steps; batch 128; 50 epochs; pixels as they are, 0 to 255.
"""

from fer_jax import config as config_lib

DEFAULT_POOLS = ("max", "avg", "avg")
VARIANTS = {
    "model_1": {"pools": ("max", "max", "max")},
    "model_2": {},
    "model_3": {"filters": (64, 128, 256), "units": 512},
    "model_4": {"kernel": 5},
    "model_5": {"filters": (32, 64, 128, 256), "pools": ("max", "max", "avg", "avg"), "units": 512},
    "model_6": {"second_padding": "valid"},
}


def layers(*, filters=(32, 64, 128), kernel=3, pools=DEFAULT_POOLS, units=256, second_padding="same"):
    """Returns the layers of a variant in text."""
    blocks = [
        f"conv {n} {kernel}x{kernel} same relu, batch_norm, conv {n} {kernel}x{kernel} {second_padding} relu,"
        f" {pool}_pool, dropout 0.25"
        for n, pool in zip(filters, pools, strict=True)
    ]
    return ", ".join([*blocks, f"flatten, dense {units} relu, dropout 0.5"])


def get_config(variant="model_2"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.layers = layers(**config_lib.variant(variant, VARIANTS))
    config.model.scaling = "raw"
    config.optim.schedule = "exponential"
    return config
