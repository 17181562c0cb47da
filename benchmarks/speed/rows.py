"""The rows of the comparison: networks and sizes, and their descriptions for all frameworks."""

import dataclasses
import pathlib

from fer_jax import config as config_lib
from fer_jax import freezing, models
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.models import stack

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
CLASSES = 7
# One optimizer for all rows, random weights, and nothing on which frameworks differ.
COMMON = {
    "model.weights": "",
    "optim.name": "adam",
    "optim.learning_rate": 1e-3,
    "optim.weight_decay": 0.0,
    "optim.schedule": "constant",
    "loss.label_smoothing": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A config, as for `--config`, the changed fields, and the batch size."""

    config: str
    batch: int
    fields: dict = dataclasses.field(default_factory=dict)


ROWS = {
    "r1_model_2": Row("cnn.py:model_2", 128),
    "r1_model_3": Row("cnn.py:model_3", 128),
    "r5_cnn": Row("r5_cnn.py:adam", 64),
    "lean": Row("lean.py", 128),
    "vgg10_bn": Row("vgg10_bn.py", 128),
    "resnet50_165_frozen": Row("resnet50.py:r2", 32),
    "vgg16_frozen_96": Row("vgg16.py:r2", 32),
    "vgg16_frozen_224": Row("vgg16.py:r3", 16),
    "efficientnetb0_96": Row(
        "efficientnet.py:r1",
        32,
        {"model.size_px": 96, "model.head": "global_avg_pool, dropout 0.5", "optim.freeze": ()},
    ),
}


def get_config(row: Row, dtype: str = "float32"):
    """Returns the config of a row."""
    config = config_lib.load(CONFIGS / row.config)
    config.augment.update(config_lib.get_default().augment.to_dict())
    fields = {**COMMON, **row.fields, "model.dtype": dtype, "train.batch_size": row.batch}
    config.update_from_flattened_dict(fields)
    return config


def describe(config) -> dict:
    """Returns a row for the workers as JSON values, for processes without JAX.

    network: `cnn` or a backbone's name; layers: of the network, or of the head on the backbone; frozen: the names of
    the backbone's frozen layers; the rest as in the config, which is complete under `config`.

    Raises:
      InputError: the network has no definition in Keras and PyTorch here.
    """
    model = config.model
    if model.name not in ("cnn", "vgg16", "resnet50", "efficientnetb0"):
        raise InputError(f"model.name is '{model.name}': this comparison has no definition of it for PyTorch")
    is_cnn = model.name == "cnn"
    automatic = "unit" if is_cnn else models.row(model.name).scaling
    (phase,) = freezing.make_phases(config, CLASSES, image_shape=facts.IMAGE_SHAPE, steps_per_epoch=1)
    return {
        "network": model.name,
        "layers": [dataclasses.asdict(layer) for layer in stack.parse(model.layers if is_cnn else model.head)],
        "frozen": sorted(path.removeprefix("backbone/") for path in phase.frozen),
        "channels": model.channels if is_cnn else 3,
        "size_px": model.size_px or 48,
        "scaling": automatic if model.scaling == "auto" else model.scaling,
        "dtype": model.dtype,
        "batch": config.train.batch_size,
        "learning_rate": config.optim.learning_rate,
        "classes": CLASSES,
        "config": config_lib.to_dict(config),
    }
