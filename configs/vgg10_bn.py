"""A VGG of ten layers with batch normalization for 48 px faces, heavily augmented: 4.7 M parameters.

python -m fer_jax.main --config configs/vgg10_bn.py --config.data.path=<folder with fer2013.csv>

SGD with Nesterov momentum 0.9, batch 128, 200 epochs: 5 of warm-up to 0.05, then cosine; weight decay 5e-4 on kernels,
label smoothing 0.1. Flips, rotations up to 10 degrees, shifts up to 0.1, zooms up to 0.2, and a box erased in half of
the faces.
"""

from fer_jax import config as config_lib


def layers():
    """Returns the layers in text."""
    stages = [
        ", ".join([f"conv {n} 3x3 same, batch_norm, relu"] * 2 + ["max_pool, dropout 0.25"])
        for n in (64, 128, 256, 512)
    ]
    return ", ".join([*stages, "global_avg_pool, dropout 0.5"])


def get_config():
    """Returns the config."""
    config = config_lib.get_default()
    config.model.layers = layers()
    config.optim.update({"name": "sgd", "learning_rate": 0.05, "weight_decay": 5e-4})
    config.optim.update({"schedule": "cosine", "warmup_epochs": 5.0})
    config.loss.label_smoothing = 0.1
    config.augment.update({"flip_horizontal": 0.5, "rotate_degrees": 10.0, "shift": 0.1, "zoom": 0.2, "erase": 0.5})
    config.train.epochs = 200
    return config
