"""VGG16 with ImageNet weights: R2's (`:r2` ...), R3's (`:r3`, 224 px), R4's regimes (`:r4_last_layer` ...).

python -m fer_jax.main --config configs/vgg16.py --config.data.path=<folder with fer2013.csv>

R2: all convolutions frozen, ReLU dense layers, SGD with Nesterov momentum; the rate is ours: at 1e-2, training from
random weights overflows. Its stages: `:r2_no_dropout`; `:r2_plain`, 30% dropout; `:r2`, augmentation and batch 128
instead of 32. `:r2_balanced`: classes as in resnet50.py. R3: 15,620,615 parameters, augmented. R4: four emotions;
`:r4_random` trains everything from random weights, which R4 reports as better.
"""

from fer_jax import config as config_lib

BACKBONE = {"optim.freeze": ("backbone",)}
FACES = {"augment.flip_horizontal": 0.5, "augment.rotate_degrees": 10.0, "augment.zoom": 0.1}
R2_HEAD = "flatten, dense 256 relu, dropout 0.3, dense 128 relu, dropout 0.3"
R2 = BACKBONE | {"model.head": R2_HEAD, "model.size_px": 96, "train.batch_size": 32}
R2 |= {"optim.name": "sgd", "optim.learning_rate": 1e-3}
R2_AUGMENTED = R2 | FACES | {"augment.shift": 0.1, "train.batch_size": 128}
R3 = BACKBONE | FACES | {"augment.flip_vertical": 0.5, "augment.shear_degrees": 10.0, "augment.crop_px": 44}
R3 |= {"model.head": "flatten, batch_norm" + ", dense 32, batch_norm, relu, dropout 0.5" * 3, "model.size_px": 224}
R3 |= {"data.split": "random", "optim.plateau.patience_epochs": 5, "train.early_stopping.patience_epochs": 20}
R4 = {"model.head": "flatten, dense 256 relu, dense 128 relu, dropout 0.3, dense 64 relu, batch_norm"}
R4 |= {"data.classes": ("happy", "sad", "neutral", "surprise"), "train.batch_size": 32, "train.epochs": 20}
R4_UNFROZEN = R4 | {"optim.learning_rate": 1e-4}
VARIANTS = {"r2": R2_AUGMENTED, "r2_plain": R2, "r3": R3 | {"train.early_stopping.monitor": "validation_loss"}}
VARIANTS["r2_no_dropout"] = R2 | {"model.head": "flatten, dense 256 relu, dense 128 relu"}
VARIANTS["r2_balanced"] = R2_AUGMENTED | {"data.min_class_share": 0.1086, "data.max_class_share": 0.1877}
VARIANTS |= {"r4_frozen": R4 | BACKBONE, "r4_unfrozen": R4_UNFROZEN, "r4_random": R4_UNFROZEN | {"model.weights": ""}}
VARIANTS["r4_last_layer"] = R4 | {"optim.freeze": ("backbone/block([1-4]_.*|5_conv[12])",)}


def get_config(variant="r2"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.update({"name": "vgg16", "weights": "imagenet", "init": "he_uniform"})
    config.update_from_flattened_dict(config_lib.variant(variant, VARIANTS))
    return config
