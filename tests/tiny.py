"""A backbone small enough to train in a test, named as a user's file: two convolutions with normalization."""

import atexit
import functools
import pathlib
import shutil
import tempfile
import types

import flax.linen as nn

from fer_jax import config as config_lib
from fer_jax import losses
from fer_jax.datasets import load as load_faces  # whatever a test makes of datasets.load
from fer_jax.models import backbone, layers

NAME = f"{__file__}:TINY"


class Tiny(layers.Layers):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(self.norm(self.conv(x, "stem_conv", 4, 3, strides=4), "stem_bn", train=train))
        return nn.relu(self.norm(self.conv(x, "top_conv", 6, 3, strides=2), "top_bn", train=train))


TINY = backbone.Row(
    Tiny, scaling="symmetric", native_px=48, min_px=8, order=("stem_conv", "stem_bn", "top_conv", "top_bn")
)


def make_objective(class_counts=(1,) * 7, **fields):
    """Returns the objective of the default section `loss` with some fields changed."""
    section = config_lib.get_default().loss
    section.update(fields)
    return losses.make_objective(section, class_counts)


def make_phase(model, tx, image_shape=(48, 48, 1), **fields):
    """Returns what a train step needs of a phase in which all of a model is trained."""
    config = config_lib.get_default()
    config.update_from_flattened_dict(fields)
    return types.SimpleNamespace(config=config, model=model, tx=tx, image_shape=image_shape, frozen=frozenset())


@functools.cache
def _prepared():
    """Returns a cache that holds the drawn faces, which take longer to draw than a network of this size to train."""
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = config_lib.get_default()
    config.data.update({"name": "drawn_faces", "drawn_size": "tiny", "cache_dir": str(folder)})
    load_faces(config.data)
    return folder


def make_config(cache_dir, **fields):
    """Returns the config of a short training of it on few drawn faces, which are put into the cache if one is given."""
    if cache_dir:
        shutil.copytree(_prepared(), cache_dir, dirs_exist_ok=True)
    config = config_lib.get_default()
    config.data.update({"name": "drawn_faces", "drawn_size": "tiny", "cache_dir": str(cache_dir)})
    config.data.feeder = "resident"
    config.model.update({"name": NAME, "head": "global_avg_pool, dense 8 relu, dropout 0.2", "size_px": 32})
    config.train.update({"batch_size": 64, "epochs": 2})
    config.update_from_flattened_dict(fields)
    return config
