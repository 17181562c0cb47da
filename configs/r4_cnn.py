"""R4's custom CNNs for four emotions: `:model_1`, `:model_2`, `:final` on RGB faces, each with `_grey` for grey ones.

python -m fer_jax.main --config configs/r4_cnn.py:final --config.data.path=<folder with fer2013.csv>

`:final` is five blocks of Conv, BatchNorm, LeakyReLU, MaxPool, as R4 lists them; `:final_relu` has a ReLU inside the
convolutions too, as R4's course template; `:final_plain` is `:final` without augmentation (the others: flips,
brightness, shear). Widths, kernels and rates are the template's, the dense layers' dropout is ours.
"""

from fer_jax import config as config_lib


def _blocks(filters, after, activation="relu"):
    return [f"conv {n} 2x2 same {activation}, {after}" for n in filters]


LEAKY, FINAL = "batch_norm, leaky_relu 0.1, max_pool", (64, 128, 512, 512, 128)
DENSE = [f"dense {n}, batch_norm, relu, dropout 0.5" for n in (256, 512)]
VARIANTS = {
    "model_1": [*_blocks((64, 32, 32), "max_pool, dropout 0.2"), "flatten, dense 512 relu, dropout 0.4"],
    "model_2": [*_blocks((256, 128, 64, 32), LEAKY), "flatten, dense 512 relu, dense 128 relu"],
    "final": [*_blocks(FINAL, LEAKY, "linear"), "flatten", *DENSE],
}
VARIANTS |= {f"{name}_grey": layers for name, layers in VARIANTS.items()}
VARIANTS |= {"final_plain": VARIANTS["final"], "final_relu": [*_blocks(FINAL, LEAKY), "flatten", *DENSE]}


def get_config(variant="final"):
    """Returns the config of a variant."""
    config, is_final = config_lib.get_default(), variant.startswith("final")
    config.model.layers = ", ".join(config_lib.variant(variant, VARIANTS))
    config.model.channels = 1 if variant.endswith("_grey") else 3
    config.data.classes = ("happy", "sad", "neutral", "surprise")
    config.train.update({"batch_size": 32, "epochs": 35 if is_final else 20})
    if variant != "final_plain":
        config.augment.update({"flip_horizontal": 0.5, "brightness": 0.3, "shear_degrees": 17.0})
    if is_final:
        config.optim.update({"learning_rate": 3e-3, "plateau": {"patience_epochs": 3}})
    return config
