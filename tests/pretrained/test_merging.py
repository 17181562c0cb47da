"""Every weight is loaded, new or refused: small networks of a few layers, and the models' own variables."""

import dataclasses

import jax
import numpy as np
import pytest

from fer_jax import config as config_lib
from fer_jax import models, pretrained
from fer_jax.errors import InputError
from fer_jax.models import keras_layers
from fer_jax.pretrained import fetch, registry

CONV = {"kernel": (3, 3, 1, 4), "bias": (4,)}
NORM_PARAMS, NORM_STATS = {"scale": (4,), "bias": (4,)}, {"mean": (4,), "var": (4,)}


def weights_of(layers, **fields):
    rng = np.random.default_rng(0)
    arrays = {
        name: {leaf: rng.normal(size=shape).astype(np.float32) for leaf, shape in leaves.items()}
        for name, leaves in layers.items()
    }
    return pretrained.Weights("x.h5", arrays, **{"refused": {}, **fields})


@pytest.fixture
def variables(shapes):
    """A backbone of a convolution and a normalization, and a head of two dense layers for 7 classes."""
    return {
        "params": {
            "backbone": shapes({"conv": CONV, "bn": NORM_PARAMS}),
            "head": shapes({"fc1": {"kernel": (4, 5), "bias": (5,)}, "predictions": {"kernel": (5, 7), "bias": (7,)}}),
        },
        "batch_stats": {"backbone": shapes({"bn": NORM_STATS})},
    }


BACKBONE = {"conv": CONV, "bn": NORM_PARAMS | NORM_STATS}
BACKBONE_LEAVES = (
    "backbone/conv/kernel",
    "backbone/conv/bias",
    "backbone/bn/scale",
    "backbone/bn/bias",
    "backbone/bn/mean",
    "backbone/bn/var",
)


def test_a_backbone_is_loaded_and_the_head_is_new(variables):
    weights = weights_of(BACKBONE)
    merge = pretrained.merge(variables, weights)
    assert merge.loaded == BACKBONE_LEAVES
    assert merge.new == ("head/fc1/kernel", "head/fc1/bias", "head/predictions/kernel", "head/predictions/bias")
    assert merge.refused == {} and merge.notes == ()
    assert merge.params == {
        "backbone": {
            "conv": weights.layers["conv"],
            "bn": {leaf: weights.layers["bn"][leaf] for leaf in ("scale", "bias")},
        }
    }
    assert merge.batch_stats == {"backbone": {"bn": {leaf: weights.layers["bn"][leaf] for leaf in ("mean", "var")}}}


def test_head_layers_are_loaded_where_they_fit_and_refused_where_not(variables):
    tops = {"fc1": {"kernel": (4, 5), "bias": (5,)}, "predictions": {"kernel": (5, 1000), "bias": (1000,)}}
    merge = pretrained.merge(variables, weights_of(BACKBONE | tops))
    assert merge.loaded == (*BACKBONE_LEAVES, "head/fc1/kernel", "head/fc1/bias")
    assert merge.new == ("head/predictions/kernel", "head/predictions/bias")
    reason = "1000 classes or units in the file, 7 in the model"
    assert merge.refused == {"predictions/kernel": reason, "predictions/bias": reason}
    assert merge.params["head"].keys() == {"fc1"}


def test_a_head_for_another_size_of_input_is_refused(variables):
    merge = pretrained.merge(variables, weights_of(BACKBONE | {"fc1": {"kernel": (9, 5), "bias": (5,)}}))
    reason = "shape (9, 5) in the file, (4, 5) in the model"
    assert merge.refused == {"fc1/kernel": reason, "fc1/bias": reason}
    assert "head" not in merge.params


def test_dense_layers_and_norms_that_the_model_has_not_are_refused(variables):
    strangers = {"mine": {"kernel": (4, 2)}, "bn_mine": NORM_PARAMS | NORM_STATS}
    merge = pretrained.merge(variables, weights_of(BACKBONE | strangers, refused={"optimizer": "its state"}))
    leaves = [f"{name}/{leaf}" for name in strangers for leaf in strangers[name]]
    assert merge.refused == {"optimizer": "its state", **dict.fromkeys(leaves, "the model has no such layer")}


def test_a_convolution_without_biases_has_the_bias_zero(variables):
    merge = pretrained.merge(variables, weights_of(BACKBONE | {"conv": {"kernel": (3, 3, 1, 4)}}))
    np.testing.assert_array_equal(merge.params["backbone"]["conv"]["bias"], np.zeros(4))
    assert merge.loaded == BACKBONE_LEAVES
    assert merge.notes == ("the file has no biases for backbone/conv: they are zero, which is the same function",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv": None}, r"conv: it is not in the file$"),
        (
            {"conv": {"kernel": (3, 3, 1, 8), "bias": (8,)}},
            r"conv: shape \(3, 3, 1, 8\) in the file, \(3, 3, 1, 4\) in the model$",
        ),
        ({"bn": NORM_PARAMS}, "bn: the file has no mean and var for it"),
        ({"bn": {"bias": (4,)} | NORM_STATS}, "bn: the file has no scale for it"),
        ({"bn": {**NORM_PARAMS, **NORM_STATS, "kernel": (1,)}}, "bn: the file has kernel for it, the model does not"),
        ({"conv2": CONV}, "conv2: the model has no such layer"),
    ],
)
def test_a_file_of_another_backbone_is_refused(variables, change, message):
    layers = {name: leaves for name, leaves in (BACKBONE | change).items() if leaves}
    with pytest.raises(InputError, match=f"x.h5 is a weight file of another model: {message}"):
        pretrained.merge(variables, weights_of(layers))


def test_the_first_faults_are_named_and_the_rest_counted(shapes):
    variables = {"params": {"backbone": shapes({f"conv{i}": CONV for i in range(9)})}}
    with pytest.raises(InputError, match=r"conv0: .*; conv1: .*; conv2: .* and 6 more layers\. Its layers are"):
        pretrained.merge(variables, weights_of({}, models=("resnet50",)))


def test_a_name_in_both_scopes_is_the_backbones(shapes):
    names = shapes({"bn": NORM_PARAMS})
    variables = {"params": {"head": names, "backbone": names}}
    merge = pretrained.merge(variables, weights_of({"bn": NORM_PARAMS}))
    assert (merge.loaded, merge.new) == (("backbone/bn/scale", "backbone/bn/bias"), ("head/bn/scale", "head/bn/bias"))


def test_in_a_plain_network_all_but_dense_layers_must_come_from_the_file(shapes):
    dense = {"kernel": (4, 7), "bias": (7,)}
    variables = {"params": shapes({"conv": CONV, "bn": NORM_PARAMS, "dense": dense})}
    variables["batch_stats"] = shapes({"bn": NORM_STATS})
    whole = pretrained.merge(variables, weights_of(BACKBONE | {"dense": dense}))
    assert whole.new == () and whole.params.keys() == {"conv", "bn", "dense"} and whole.batch_stats.keys() == {"bn"}
    part = pretrained.merge(variables, weights_of(BACKBONE | {"dense": {"kernel": (4, 8), "bias": (8,)}}))
    assert part.new == ("dense/kernel", "dense/bias")
    with pytest.raises(InputError, match="bn: it is not in the file"):
        pretrained.merge(variables, weights_of({"conv": CONV, "dense": dense}))


def test_the_description_is_short(shapes):
    names = [f"conv{i}" for i in range(100)]
    variables = {"params": {"backbone": shapes(dict.fromkeys(names, CONV)), "head": shapes({"dense": CONV})}}
    weights = weights_of(dict.fromkeys(names, CONV), refused={"optimizer": "the optimizer's state"})
    lines = pretrained.merge(variables, weights).describe().splitlines()
    assert lines == [
        "loaded: 200 arrays of 100 layers: backbone/conv0, backbone/conv1 ... backbone/conv99 (100)",
        "new: 2 arrays of 1 layer: head/dense",
        "refused: optimizer (the optimizer's state)",
    ]


def shapes_of(name, size_px, classes=7, **fields):
    section = config_lib.get_default().model
    section.update({"name": name, **fields})
    face = jax.ShapeDtypeStruct((1, size_px, size_px, 3), np.uint8)
    module = models.make(section, classes)
    return jax.eval_shape(lambda face: module.init(jax.random.key(0), face, train=False), face)


KERAS_WARNING = "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"


@pytest.mark.parametrize("verified", [True, False])
def test_only_a_verified_file_is_trusted(monkeypatch, variables, tmp_path, verified):
    facts = fetch.Facts("x.h5", "inception_v3", "", "md5", "", verified, "")
    asked = {}
    monkeypatch.setattr(pretrained, "locate", lambda *_, **__: (tmp_path, facts))
    monkeypatch.setattr(pretrained, "read", lambda *_, trusted: asked.update(trusted=trusted) or weights_of(BACKBONE))
    merge = pretrained.load("imagenet", "inception_v3", variables)
    assert asked == {"trusted": verified} and merge.facts == dataclasses.asdict(facts)


@pytest.mark.filterwarnings(KERAS_WARNING)
def test_a_file_goes_into_the_models_variables(vgg16, write_legacy, tmp_path):
    variables = shapes_of("vgg16", 32)
    path = write_legacy(tmp_path / "mine.h5", vgg16)
    merge = pretrained.load(str(path), "vgg16", variables, cache_dir=tmp_path)
    assert jax.tree.map(np.shape, merge.params["backbone"]) == jax.tree.map(np.shape, variables["params"]["backbone"])
    kernel = merge.params["backbone"]["block5_conv3"]["kernel"]
    np.testing.assert_array_equal(kernel, vgg16.get_layer("block5_conv3").kernel)
    assert all(path.startswith("head/") for path in merge.new)
    assert merge.facts["file"] == str(path) and merge.facts["algorithm"] == "sha256" and not merge.facts["verified"]


@pytest.mark.filterwarnings(KERAS_WARNING)
def test_what_the_files_layers_are_is_named(vgg16, efficientnetb0, write_legacy, tmp_path):
    path = write_legacy(tmp_path / "b0.h5", efficientnetb0)
    with pytest.raises(InputError, match=r"block1_conv1: it is not .*Its layers are those of efficientnetb0$"):
        pretrained.load(str(path), "vgg16", shapes_of("vgg16", 32))
    path = write_legacy(tmp_path / "vgg16.h5", vgg16)
    with pytest.raises(InputError, match=r"block3_conv4: it is not in the file; block4.*those of vgg16$"):
        pretrained.load(str(path), "vgg19", shapes_of("vgg19", 32))


def test_a_deeper_network_of_the_same_names_is_refused(shapes):
    """ResNet50's names are all ResNet101's too."""
    shallow = [layer.name for layer in keras_layers.order("resnet50") if layer.kind == "Conv2D"]
    deep = [layer.name for layer in keras_layers.order("resnet101") if layer.kind == "Conv2D"]
    assert set(shallow) < set(deep)
    variables = {"params": {"backbone": shapes(dict.fromkeys(shallow, CONV))}}
    with pytest.raises(InputError, match="another model: conv4_block7_1_conv: the model has no such layer"):
        pretrained.merge(variables, weights_of(dict.fromkeys(deep, CONV)))


def test_vggfaces_scaling_travels_with_its_weights(write_by_hand, tmp_path):
    variables = shapes_of("vgg16", 32)
    theirs = {}
    for name, leaves in variables["params"]["backbone"].items():
        old = name.replace("block", "conv").replace("_conv", "_")
        theirs[old] = {f"{old}/{leaf}:0": np.ones(leaves[leaf].shape, np.float32) for leaf in ("kernel", "bias")}
    path = write_by_hand(tmp_path / "mine.h5", theirs)
    merge = pretrained.load(str(path), "vgg16", variables)
    assert len(merge.loaded) == 26 and merge.facts["scaling"] == "vggface"


def test_vggfaces_resnet50_goes_into_no_other_resnet50(shapes):
    """Without biases it would fit into Keras's, whose maps are shifted against its own."""
    conv, mine = {"kernel": CONV["kernel"]}, shapes({"conv1_conv": CONV, "conv1_bn": NORM_PARAMS})
    theirs = {"conv1/7x7_s2": conv, "conv1/7x7_s2/bn": NORM_PARAMS}
    with pytest.raises(InputError, match=r"conv1_conv: it is not in the file; .*those of vggface_resnet50$"):
        pretrained.merge({"params": {"backbone": mine}}, weights_of(theirs, models=("vggface_resnet50",)))
    variables = {"params": {"backbone": shapes({"conv1_conv": conv})}}
    with pytest.raises(InputError, match="conv1_conv: the file has bias for it, the model does not"):
        pretrained.merge(variables, weights_of({"conv1_conv": CONV}))


@pytest.mark.full
def test_lite0_goes_into_its_network_with_its_classifier(home, tmp_path):
    variables = shapes_of("efficientnet_lite0", 32, classes=1000, head="imagenet")
    merge = pretrained.load("imagenet", "efficientnet_lite0", variables, cache_dir=tmp_path, top=True)
    assert merge.new == () and len(merge.loaded) == 296 - 49
    assert jax.tree.map(np.shape, merge.params) == jax.tree.map(np.shape, variables["params"])
    assert jax.tree.map(np.shape, merge.batch_stats) == jax.tree.map(np.shape, variables["batch_stats"])
    row = registry.find("efficientnet_lite0")
    assert merge.facts == dataclasses.asdict(fetch.verify(row, fetch.find(row)))


def test_a_plain_network_that_keras_saved_is_loaded(keras, randomize_network, tmp_path):
    text = "conv 4 3x3 same relu, batch_norm, max_pool, conv 5, flatten, dense 6 relu"
    layers = [
        keras.layers.Input((8, 8, 1)),
        keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(5, 3, padding="same"),
        keras.layers.Flatten(),
        keras.layers.Dense(6, activation="relu"),
        keras.layers.Dense(7),
    ]
    model = randomize_network(keras.Sequential(layers))
    with pytest.warns(DeprecationWarning, match="__array__ implementation"):
        model.save_weights(tmp_path / "x.weights.h5")
    section = config_lib.get_default().model
    section.update({"name": "cnn", "layers": text, "scaling": "raw"})
    module = models.make(section, 7)
    faces = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    variables = module.init(jax.random.key(0), faces, train=False)
    merge = pretrained.load(str(tmp_path / "x.weights.h5"), "cnn", variables)
    assert merge.new == () and merge.refused == {}
    ours = module.apply({"params": merge.params, "batch_stats": merge.batch_stats}, faces, train=False)
    theirs = model.predict(faces.astype(np.float32), verbose=0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
