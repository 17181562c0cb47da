"""A small CNN for CPUs: seven convolutions with batch normalization, no dense layer but the classifier.

python -m fer_jax.main --config configs/lean.py --config.data.path=<folder with fer2013.csv>

715,719 parameters; half the multiplications of R1's model 2, because layers are wide only where maps are small.
Adam at 1e-3, one epoch of warm-up, then cosine over 60 epochs; batch 128; flips, small rotations, shifts and zooms.
"""

from fer_jax import config as config_lib

STAGES = ((32,), (64,), (96, 96), (128, 128), (256,))  # filters; the maps are 48, 24, 12, 6 and 3 px wide


def layers():
    """Returns the layers in text."""
    stages = [", ".join(f"conv {n} 3x3 same, batch_norm, relu" for n in filters) for filters in STAGES]
    return ", max_pool, ".join(stages) + ", global_avg_pool, dropout 0.3"


def get_config():
    """Returns the config."""
    config = config_lib.get_default()
    config.model.layers = layers()
    config.optim.update({"schedule": "cosine", "warmup_epochs": 1.0})
    config.augment.update({"flip_horizontal": 0.5, "rotate_degrees": 10.0, "shift": 0.1, "zoom": 0.1})
    config.train.epochs = 60
    return config
