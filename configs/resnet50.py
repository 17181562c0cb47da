"""ResNet50 with ImageNet weights: `:r2` (the first 165 layers frozen), `:r3` (224 px, only the head trained).

python -m fer_jax.main --config configs/resnet50.py --config.data.path=<folder with fer2013.csv>

R2: dense layers with he_uniform, batch normalization and 50% dropout; the widths are ours, 4.7 M trained parameters.
SGD with momentum and batch 32 are inferred: R2 names no optimizer for ResNet50 but finds small batches better "with the
SGD optimizer" (`:r2_adam`). The rate "decayed by 10%" on a plateau is read as x0.9 (`:r2_tenth`: x0.1). `:r2_balanced`:
happy undersampled and disgust oversampled, the other classes unchanged.
R3: 24,114,055 parameters, which implies a dense layer of 256 units, not the 64 of its text. Stops on validation loss.
"""

from fer_jax import config as config_lib

R2_HEAD = ", ".join(["global_avg_pool", *(f"dense {n}, batch_norm, relu, dropout 0.5" for n in (128, 64))])
R2 = {"model.head": R2_HEAD, "model.size_px": 96, "optim.freeze_first_layers": 165, "train.batch_size": 32}
R2 |= {"optim.name": "sgd", "optim.learning_rate": 1e-2, "optim.plateau.factor": 0.9}
R3 = {"model.head": "global_avg_pool, dense 256 relu, dropout 0.5", "model.size_px": 224, "data.split": "random"}
VARIANTS = {
    "r2": R2,
    "r2_balanced": R2 | {"data.min_class_share": 0.1086, "data.max_class_share": 0.1877},
    "r2_adam": R2 | {"optim.name": "adam", "optim.learning_rate": 1e-3},
    "r2_tenth": R2 | {"optim.plateau.factor": 0.1},
    "r3": R3 | {"optim.freeze": ("backbone",), "train.early_stopping.monitor": "validation_loss"},
}


def get_config(variant="r2"):
    """Returns the config of a variant."""
    config = config_lib.get_default()
    config.model.update({"name": "resnet50", "weights": "imagenet", "init": "he_uniform"})
    config.optim.plateau.patience_epochs = 4
    config.train.early_stopping.patience_epochs = 20 if variant == "r3" else 15
    config.update_from_flattened_dict(config_lib.variant(variant, VARIANTS))
    return config
