"""R3's custom CNNs: `:four_layer`, `:seven_layer`, and `:bayesian`, found by Bayesian optimization.

python -m fer_jax.main --config configs/r3_cnn.py:seven_layer --config.data.path=<folder with fer2013.csv>

Layers match the published counts (1,949,447; 1,394,183; 2,901,831); the report gives no dropout rates. Stratified
random 80/10/10; learning rate reduced on a plateau, early stopping after 20 epochs, both by validation loss. R3 does
not say which of these used augmentation: `:four_layer_augmented` and so on do. With `--config.train.epochs=30`, seed 0,
`:seven_layer` reached 0.6331 on validation and 0.6225 on test, `:four_layer` 0.6412 and 0.6400: experiments/reports/.
"""

from fer_jax import config as config_lib


def _pair(first, second):
    return f"conv {first} valid relu, batch_norm, conv {second} valid relu, batch_norm, max_pool, dropout 0.25"


FOUR = [f"conv {n} valid relu, batch_norm, max_pool, dropout 0.25" for n in (64, 128, 256, 512)]
DENSE = "flatten, dense 256 relu, batch_norm, dropout 0.5"
LAYERS = {
    "four_layer": [*FOUR, "flatten, dense 512 relu, dropout 0.5, dense 256 relu, dropout 0.5"],
    "seven_layer": [_pair(32, 64), _pair(128, 128), _pair(256, 256), DENSE],
    "bayesian": [_pair(64, 64), _pair(128, 256), _pair(320, 448), DENSE],
}
FACES = {"flip_horizontal": 0.5, "flip_vertical": 0.5, "rotate_degrees": 10.0, "zoom": 0.1, "shear_degrees": 10.0}
VARIANTS = {name: {"model": {"layers": ", ".join(layers)}} for name, layers in LAYERS.items()}
VARIANTS |= {f"{name}_augmented": fields | {"augment": FACES | {"crop_px": 44}} for name, fields in VARIANTS.items()}


def get_config(variant="seven_layer"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.update(config_lib.variant(variant, VARIANTS))
    config.data.split = "random"
    config.optim.plateau.patience_epochs = 5
    config.train.early_stopping.update({"monitor": "validation_loss", "patience_epochs": 20})
    return config
