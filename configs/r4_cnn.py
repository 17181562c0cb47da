"""R4's custom CNNs for four emotions: `:model_1`, `:model_2`, `:final` on RGB faces, each with `_grey` for grey ones.

python -m fer_jax.main --config configs/r4_cnn.py:final --config.data.path=<folder with fer2013.csv>

`:final` has five blocks of Conv, BatchNorm, LeakyReLU, MaxPool, as listed by R4; `:final_relu` also has a ReLU in the
convolutions, like R4's course template; `:final_plain` is `:final` without augmentation (the others: flips,
brightness, shear); `:final_yilmaz_poli` is `:final` with the initialization that R4 names as a next step. Widths,
kernels and rates are the template's, the dense layers' dropout is ours.
"""

from fer_jax import config as config_lib

LEAKY = "batch_norm, leaky_relu 0.1, max_pool"
DENSE = [f"dense {n}, batch_norm, relu, dropout 0.5" for n in (256, 512)]
CONVS = {
    "model_1": [f"conv {n} 2x2 same relu, max_pool, dropout 0.2" for n in (64, 32, 32)],
    "model_2": [f"conv {n} 2x2 same relu, {LEAKY}" for n in (256, 128, 64, 32)],
    "final": [f"conv {n} 2x2 same, {LEAKY}" for n in (64, 128, 512, 512, 128)],
    "final_relu": [f"conv {n} 2x2 same relu, {LEAKY}" for n in (64, 128, 512, 512, 128)],
}
ENDS = {"model_1": ["dense 512 relu, dropout 0.4"], "model_2": ["dense 512 relu, dense 128 relu"]}
VARIANTS = {name: [*convs, "flatten", *ENDS.get(name, DENSE)] for name, convs in CONVS.items()}
VARIANTS |= {f"{name}_grey": VARIANTS[name] for name in ("model_1", "model_2", "final")}
VARIANTS |= dict.fromkeys(("final_plain", "final_yilmaz_poli"), VARIANTS["final"])


def get_config(variant="final"):
    """Returns the config of a variant."""
    config, is_final = config_lib.get_default(), variant.startswith("final")
    config.model.layers = ", ".join(config_lib.variant(variant, VARIANTS))
    config.model.channels = 1 if variant.endswith("_grey") else 3
    config.data.classes = ("happy", "sad", "neutral", "surprise")
    config.train.update({"batch_size": 32, "epochs": 35 if is_final else 20})
    if variant != "final_plain":
        config.augment.update({"flip_horizontal": 0.5, "brightness": 0.3, "shear_degrees": 17.0})
    config.model.init = "yilmaz_poli" if variant.endswith("yilmaz_poli") else "keras"
    if is_final:
        config.optim.update({"learning_rate": 3e-3, "plateau": {"patience_epochs": 3}})
    return config
