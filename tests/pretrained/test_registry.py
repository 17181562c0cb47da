"""The registry against Keras's own source, which states every URL and hash."""

import inspect
import re

import pytest

from fer_jax.errors import InputError
from fer_jax.models import keras_layers
from fer_jax.pretrained import registry

KERAS_ROWS = [row for row in registry.ROWS if row.source == registry.KERAS]


@pytest.fixture(scope="module")
def keras_files(keras):
    """{(model, top): (URL, MD5)}, computed from the sources of keras.applications."""
    from keras.src.applications import (
        efficientnet,
        efficientnet_v2,
        inception_resnet_v2,
        inception_v3,
        resnet,
        vgg16,
        vgg19,
    )

    files = {}
    for model, hashes in resnet.WEIGHTS_HASHES.items():
        for top in (True, False):
            file = f"{model}_weights_tf_dim_ordering_tf_kernels{'' if top else '_notop'}.h5"
            files[model, top] = (resnet.BASE_WEIGHTS_PATH + file, hashes[not top])
    for module, stem, label in (
        (efficientnet, "efficientnetb", "efficientnetb"),
        (efficientnet_v2, "efficientnetv2-b", "efficientnetv2b"),
    ):
        for size, hashes in module.WEIGHTS_HASHES.items():
            for top in (True, False):
                file = f"{stem}{size[1:]}{'' if top else '_notop'}.h5"
                files[label + size[1:], top] = (module.BASE_WEIGHTS_PATH + file, hashes[not top])
    for module in (vgg16, vgg19, inception_v3, inception_resnet_v2):
        name = module.__name__.rpartition(".")[2]
        hashes = re.findall(r'file_hash="(\w{32})"', inspect.getsource(module))
        if name == "inception_resnet_v2":
            stem = f"{module.BASE_WEIGHT_URL}{name}_weights_tf_dim_ordering_tf_kernels"
            urls = f"{stem}.h5", f"{stem}_notop.h5"
        else:
            urls = module.WEIGHTS_PATH, module.WEIGHTS_PATH_NO_TOP
        files |= {(name, top): (urls[not top], hashes[not top]) for top in (True, False)}
    return files


@pytest.mark.parametrize("row", KERAS_ROWS, ids=lambda row: f"{row.name}-{row.variant}")
def test_urls_and_hashes_are_those_of_keras(row, keras_files):
    assert (row.url, row.digest) == keras_files[row.model, row.top]
    assert row.url.endswith("/" + row.file)
    assert row.algorithm == "md5"


def test_every_network_of_the_layer_table_has_both_files():
    with_table = {row.model for row in KERAS_ROWS if keras_layers.order(row.model)}
    assert with_table == {row.model for row in KERAS_ROWS}
    assert len(KERAS_ROWS) == 2 * len(with_table) == 30


def test_the_variant_is_chosen_where_there_is_one():
    assert registry.find("vgg16", top=True).file == "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    assert registry.find("vgg16").file == "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert registry.find("efficientnet_lite0").top
    assert not registry.find("vggface_vgg16", top=True).top


def test_an_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"unknown weights 'vgg61'; known are vgg16, .*vggface_vgg16"):
        registry.find("vgg61")
