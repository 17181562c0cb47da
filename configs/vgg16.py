"""VGG16 with ImageNet weights: `:r2`, `:r3` (224 px), R4's regimes `:r4_last_layer`, `:r4_frozen`, `:r4_unfrozen`.

python -m fer_jax.main --config configs/vgg16.py --config.data.path=<folder with fer2013.csv>

R2: all convolutions frozen, ReLU dense layers, 30% dropout, augmentation (`:r2_plain`: none), SGD with Nesterov
momentum, batch 128. R3: 15,620,615 parameters in all, augmented. R4: four emotions, batch 32.
"""

from fer_jax import config as config_lib

FACES = {"flip_horizontal": 0.5, "rotate_degrees": 10.0, "shift": 0.1, "zoom": 0.1}
R2_HEAD = "flatten, dense 256 relu, dropout 0.3, dense 128 relu, dropout 0.3"
R2 = {"model": {"head": R2_HEAD, "size_px": 96}}
R2["optim"] = {"freeze": ("backbone",), "name": "sgd", "learning_rate": 1e-2}
R3_HEAD = "flatten, batch_norm" + ", dense 32, batch_norm, relu, dropout 0.5" * 3
R4_HEAD = "flatten, dense 256 relu, dense 128 relu, dropout 0.3, dense 64 relu, batch_norm"
FOUR = {"classes": ("happy", "sad", "neutral", "surprise")}
R4 = {"model": {"head": R4_HEAD}, "train": {"batch_size": 32, "epochs": 20}, "data": FOUR}
VARIANTS = {
    "r2": R2 | {"augment": FACES},
    "r2_plain": R2,
    "r3": {
        "model": {"head": R3_HEAD, "size_px": 224},
        "optim": {"freeze": ("backbone",)},
        "data": {"split": "random"},
        "augment": {**FACES, "flip_vertical": 0.5, "shear_degrees": 10.0, "crop_px": 44},
    },
    "r4_last_layer": R4 | {"optim": {"freeze": ("backbone/block([1-4]_.*|5_conv[12])",)}},
    "r4_frozen": R4 | {"optim": {"freeze": ("backbone",)}},
    "r4_unfrozen": R4 | {"optim": {"learning_rate": 1e-4}},
}


def get_config(variant="r2"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.update({"name": "vgg16", "weights": "imagenet", "init": "he_uniform"})
    config.update(config_lib.variant(variant, VARIANTS))
    return config
