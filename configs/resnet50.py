"""ResNet50 with ImageNet weights: `:r2` (the first 165 layers frozen), `:r3` (224 px, only the head is trained).

python -m fer_jax.main --config configs/resnet50.py --config.data.path=<folder with fer2013.csv>

R2: dense layers with he_uniform, batch normalization and 50% dropout; the rate cut on a plateau, early stopping after
15 epochs. Its widths are not in the report: these give 4.7 M trained parameters. `:r2_balanced`: happy undersampled and
disgust oversampled, every class a seventh of an epoch. R3: 24,114,055 parameters in all.
"""

from fer_jax import config as config_lib

R2_HEAD = ", ".join(["global_avg_pool", *(f"dense {n}, batch_norm, relu, dropout 0.5" for n in (128, 64))])
R2 = {"model": {"head": R2_HEAD, "size_px": 96}, "optim": {"freeze_first_layers": 165}, "patience": 15}
VARIANTS = {
    "r2": R2,
    "r2_balanced": R2 | {"data": {"min_class_share": 1 / 7, "max_class_share": 1 / 7}},
    "r3": {
        "model": {"head": "global_avg_pool, dense 256 relu, dropout 0.5", "size_px": 224},
        "optim": {"freeze": ("backbone",)},
        "data": {"split": "random"},
        "patience": 20,
    },
}


def get_config(variant="r2"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    fields = dict(config_lib.variant(variant, VARIANTS))
    config.train.early_stopping.patience_epochs = fields.pop("patience")
    config.optim.plateau.patience_epochs = 4
    config.model.update({"name": "resnet50", "weights": "imagenet", "init": "he_uniform"})
    config.update(fields)
    return config
