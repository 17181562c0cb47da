"""R1's custom CNNs 1 to 6 (`:model_1` ... `:model_6`), on the official splits; `:model_2_balanced`, `:model_2_l2`.

python -m fer_jax.main --config configs/cnn.py:model_2 --config.data.path=<folder with fer2013.csv>

Model 2 with seed 0 reached 0.6565 on validation and 0.6606 on test: experiments/r1_cnns/.
Adam at 1e-3, decayed by 0.98 every 1,000 steps; batch 128; 50 epochs; unscaled pixels, 0 to 255. The Dense 512 of
models 3 and 5, and model 5's max, max, average, average pools, are only in the author's notebook. R1 found no gain from
class weights or L2, whose strength it does not give: 1e-4 here.
"""

from fer_jax import config as config_lib

VARIANTS = {
    "model_1": {"pools": ("max", "max", "max")},
    "model_2": {},
    "model_3": {"filters": (64, 128, 256), "units": 512},
    "model_4": {"kernel": "5x5"},
    "model_5": {"filters": (32, 64, 128, 256), "pools": ("max", "max", "avg", "avg"), "units": 512},
    "model_6": {"second": "valid"},
}
LOSSES = {"model_2_balanced": {"class_weights": "balanced"}, "model_2_l2": {"l2": 1e-4}}
VARIANTS |= dict.fromkeys(LOSSES, VARIANTS["model_2"])


def layers(*, filters=(32, 64, 128), kernel="3x3", pools=("max", "avg", "avg"), units=256, second="same"):
    """Returns the layers of a variant in text; second: the padding of a block's second convolution."""
    block = f"conv {{0}} {kernel} same relu, batch_norm, conv {{0}} {kernel} {second} relu, {{1}}_pool, dropout 0.25, "
    blocks = "".join(block.format(*pair) for pair in zip(filters, pools, strict=True))
    return f"{blocks}flatten, dense {units} relu, dropout 0.5"


def get_config(variant="model_2"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.layers = layers(**config_lib.variant(variant, VARIANTS))
    config.model.scaling = "raw"
    config.loss.update(LOSSES.get(variant, {}))
    config.optim.schedule = "exponential"
    return config
