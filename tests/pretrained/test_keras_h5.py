"""Files that Keras wrote, in both layouts, against the values in Keras; and files in older spellings, made by hand."""

import re

import h5py
import numpy as np
import pytest

from fer_jax import pretrained
from fer_jax.errors import InputError
from fer_jax.models import keras_layers

# Of Keras on TensorFlow with this numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
KERAS_LEAVES = {
    "kernel": "kernel",
    "bias": "bias",
    "gamma": "scale",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "var",
}


def expected(model):
    """Returns {layer: {leaf: array}} of a Keras model, by the names of its variables."""
    layers = {}
    for layer in model.layers:
        if layer.weights and type(layer).__name__ != "Normalization":
            leaves = {KERAS_LEAVES[weight.name]: np.asarray(weight) for weight in layer.weights}
            if type(layer).__name__ == "DepthwiseConv2D":
                leaves["kernel"] = np.moveaxis(leaves["kernel"], 3, 2)
            layers[layer.name] = leaves
    return layers


def assert_same(layers, wanted):
    assert layers.keys() == wanted.keys()
    for name, leaves in wanted.items():
        assert layers[name].keys() == leaves.keys(), name
        for leaf, array in leaves.items():
            np.testing.assert_array_equal(layers[name][leaf], array, err_msg=f"{name}/{leaf}")
            assert layers[name][leaf].dtype == np.float32


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def nested(keras, backbone, classes=5):
    layers = [keras.layers.Input(backbone.input_shape[1:]), backbone, keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(classes, name="mine"), keras.layers.Dropout(0.5)])


def without_names(path):
    """Takes the layers' names out of a Keras 3 file: what Keras before 3.8 wrote."""
    with h5py.File(path, "r+") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    return path


@pytest.mark.parametrize("layout", ["legacy", "keras3", "without_names"])
def test_vgg16(vgg16, write_legacy, tmp_path, layout):
    path = tmp_path / "x.weights.h5"
    if layout == "legacy":
        write_legacy(path, vgg16)
    else:
        vgg16.save_weights(path)
    weights = pretrained.read(without_names(path) if layout == "without_names" else path, "vgg16")
    assert_same(weights.layers, expected(vgg16))
    assert weights.refused == {}


@pytest.mark.parametrize("layout", ["legacy", "keras3", "without_names"])
def test_efficientnetb0(efficientnetb0, write_legacy, tmp_path, layout):
    path = tmp_path / "x.weights.h5"
    if layout == "legacy":
        write_legacy(path, efficientnetb0)
    else:
        efficientnetb0.save_weights(path)
    weights = pretrained.read(without_names(path) if layout == "without_names" else path, "efficientnetb0")
    assert_same(weights.layers, expected(efficientnetb0))
    assert weights.layers["block1a_dwconv"]["kernel"].shape == (3, 3, 1, 32)
    assert len(weights.refused) == 1 and "are not ImageNet's" in weights.refused["normalization"]


@pytest.mark.parametrize("layout", ["h5", "keras3", "without_names"])
def test_a_network_within_a_network(keras, vgg16, tmp_path, layout):
    model = nested(keras, vgg16)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    path = tmp_path / ("x.h5" if layout == "h5" else "x.weights.h5")
    model.save(path) if layout == "h5" else model.save_weights(path)
    weights = pretrained.read(without_names(path) if layout == "without_names" else path, "vgg16")
    mine = "dense" if layout == "without_names" else "mine"
    assert_same(weights.layers, expected(vgg16) | {mine: expected(model)["mine"]})
    assert "the optimizer's state" in weights.refused.values()


@pytest.fixture(scope="module")
def inception_files(inception_v3, write_legacy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inception")
    inception_v3.save_weights(folder / "keras3.weights.h5")
    inception_v3.save_weights(folder / "without_names.weights.h5")
    without_names(folder / "without_names.weights.h5")
    write_legacy(folder / "legacy.h5", inception_v3)
    return folder


def by_creation(model):
    """Names the layers of an Inception by the order in which Keras built them."""
    found = expected(model)
    return {
        f"{kind}_{rank}" if rank else kind: found[name]
        for kind in ("conv2d", "batch_normalization")
        for rank, name in enumerate(
            sorted((name for name in found if name.startswith(kind)), key=lambda name: int("0" + name[len(kind) + 1 :]))
        )
    }


@pytest.mark.parametrize("file", ["legacy.h5", "keras3.weights.h5", "without_names.weights.h5"])
def test_inceptions_layers_get_the_numbers_of_their_creation(inception_v3, inception_files, file):
    weights = pretrained.read(inception_files / file, "inception_v3")
    wanted = by_creation(inception_v3)
    assert len(wanted) == 188
    assert_same(weights.layers, wanted)
    assert weights.models == ("inception_v3",)


def relabelled(path, source, change):
    """Copies the order and shapes of an Inception's legacy file under other names; arrays are empty to be quick."""
    with h5py.File(source) as old, h5py.File(path, "w") as new:
        names = [name for name in old.attrs["layer_names"] if len(old[name].attrs["weight_names"])]
        new.attrs["layer_names"] = np.array([change(i, name).encode() for i, name in enumerate(names)])
        for i, name in enumerate(names):
            group = new.create_group(change(i, name))
            weights = [old[name][weight] for weight in old[name].attrs["weight_names"]]
            group.attrs["weight_names"] = np.array([f"w_{j}:0".encode() for j in range(len(weights))])
            for j, weight in enumerate(weights):
                group.create_dataset(f"w_{j}:0", weight.shape, "f4", fillvalue=i)
    return path


def shifted(_, name):
    stem, number = re.fullmatch(r"(\D+2?d?|\D+)(?:_(\d+))?", name).groups()
    return f"{stem}_{int(number or 0) + 95}"


def test_inceptions_numbers_may_start_anywhere(inception_files, tmp_path):
    path = relabelled(tmp_path / "x.h5", inception_files / "legacy.h5", shifted)
    weights = pretrained.read(path, "inception_v3")
    order = [layer.name for layer in keras_layers.order("inception_v3")][:-1]
    assert {name: int(leaves.get("kernel", leaves.get("var")).flat[0]) for name, leaves in weights.layers.items()} == {
        name: i for i, name in enumerate(order)
    }


def test_inceptions_numbers_that_contradict_the_order_are_refused_unless_the_hash_is_keras(inception_files, tmp_path):
    def swap(i, name):
        return {"conv2d_5": "conv2d_7", "conv2d_7": "conv2d_5"}.get(name, name)

    with h5py.File(inception_files / "legacy.h5") as file:
        numbers = [shifted(0, name) for name in file.attrs["layer_names"] if name.startswith("conv2d")]
    first = min(int(name.rpartition("_")[2]) for name in numbers) - 95

    def contradict(i, name):
        stem, _, number = shifted(i, name).rpartition("_")
        return swap(i, f"{stem}_{int(number) - 95 - first}") if stem == "conv2d" else name

    path = relabelled(tmp_path / "x.h5", inception_files / "legacy.h5", contradict)
    with pytest.raises(InputError, match=r"another order than Keras: conv2d_7 is in the place of conv2d_5 \(2 layers"):
        pretrained.read(path, "inception_v3")
    assert len(pretrained.read(path, "inception_v3", trusted=True).layers) == 188


def test_inceptions_names_given_by_hand_say_nothing(inception_files, tmp_path):
    path = relabelled(tmp_path / "x.h5", inception_files / "legacy.h5", lambda i, _: f"layer{i}")
    assert len(pretrained.read(path, "inception_v3").layers) == 188


def test_another_number_of_layers_is_another_model(inception_files):
    with pytest.raises(
        InputError, match=r"94 layers of class Conv2D, inception_resnet_v2 has 244.*those of inception_v3"
    ):
        pretrained.read(inception_files / "legacy.h5", "inception_resnet_v2")


def test_an_outer_layer_takes_no_name_of_the_inner_network(monkeypatch, tmp_path):
    """As of a convolution from grey to colour before an Inception, in a file without names."""
    table = [keras_layers.Layer("conv2d_1", "Conv2D", 1), keras_layers.Layer("conv2d", "Conv2D", 2)]
    monkeypatch.setattr(keras_layers, "order", lambda model: table)
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = random(1, 1, 1, 3)
        file["layers/functional/layers/conv2d/vars/0"] = random(3, 3, 3, 1)
        file["layers/functional/layers/conv2d_1/vars/0"] = random(3, 3, 3, 2)
    weights = pretrained.read(path, "inception_v3")
    shapes = {name: leaves["kernel"].shape for name, leaves in weights.layers.items()}
    assert shapes == {"conv2d_1": (3, 3, 3, 1), "conv2d": (3, 3, 3, 2)}
    assert weights.refused == {"conv2d": "a second layer of this name"}


def test_the_public_files_older_spelling(write_by_hand, tmp_path):
    kernel, bias = random(3, 3, 3, 64), random(64)
    path = write_by_hand(
        tmp_path / "x.h5",
        {
            "input_1": {},
            "block1_conv1": {"block1_conv1_W_1:0": kernel, "block1_conv1_b_1:0": bias},
            "block1_pool": {},
            "conv1_bn": {f"conv1_bn/{name}:0": random(i + 8) for i, name in enumerate("abcd")},
        },
    )
    # Three of four names differ in length to tell the order of the leaves apart.
    layers = pretrained.read(path, "vgg16").layers
    assert layers.keys() == {"block1_conv1", "conv1_bn"}
    np.testing.assert_array_equal(layers["block1_conv1"]["kernel"], kernel)
    np.testing.assert_array_equal(layers["block1_conv1"]["bias"], bias)
    assert [layers["conv1_bn"][leaf].size for leaf in ("scale", "bias", "mean", "var")] == [8, 9, 10, 11]


@pytest.mark.parametrize("group", ["", "model_weights"])
def test_long_lists_of_names_are_split(write_by_hand, tmp_path, group):
    layers = {f"layer{i}": {f"layer{i}/kernel:0": random(2, i + 1)} for i in range(7)}
    path = write_by_hand(tmp_path / "x.h5", layers, group=group, chunks=3)
    assert list(pretrained.read(path, "vgg16").layers) == list(layers)


def test_vggfaces_names(write_by_hand, tmp_path):
    convolutions = [f"{block}_{i}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)]
    layers = {
        f"conv{name}": {f"conv{name}/kernel:0": random(3, 3, 1, 2), f"conv{name}/bias:0": random(2)}
        for name in convolutions
    }
    weights = pretrained.read(write_by_hand(tmp_path / "x.h5", layers), "vgg16")
    table = [layer.name for layer in keras_layers.order("vgg16") if layer.kind == "Conv2D"]
    assert list(weights.layers) == table
    assert (weights.scaling, weights.models) == ("vggface", ("vgg16",))


@pytest.fixture
def vggface_resnet(write_by_hand, tmp_path):
    """Writes a file with the names of VGGFace2's ResNet50 and the shapes of its weights' classes, numbered."""

    def write(*more):
        names = ["conv1/7x7_s2", *more]
        for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
            for block in range(1, blocks + 1):
                parts = ("1x1_reduce", "3x3", "1x1_increase", *(("1x1_proj",) if block == 1 else ()))
                names += [f"conv{stage}_{block}_{part}" for part in parts]
        layers = {}
        for i, name in enumerate(names):
            layers[name] = {f"{name}/kernel:0": np.full((1, 1, 1, 1), i, np.float32)}
            leaves = ("gamma", "beta", "moving_mean", "moving_variance")
            layers[f"{name}/bn"] = {f"{name}/bn/{leaf}:0": np.full(1, i, np.float32) for leaf in leaves}
        return write_by_hand(tmp_path / "x.h5", layers), names

    return write


def test_vggfaces_names_of_its_resnet50(vggface_resnet):
    path, names = vggface_resnet()
    weights = pretrained.read(path, "vggface_resnet50")
    table = {layer.name for layer in keras_layers.order("resnet50") if layer.kind != "Dense"}
    assert weights.layers.keys() == table
    assert (weights.scaling, weights.models, weights.refused) == ("", ("vggface_resnet50",), {})
    for theirs, ours in {
        "conv1/7x7_s2": "conv1",
        "conv2_1_1x1_proj": "conv2_block1_0",
        "conv2_1_1x1_increase": "conv2_block1_3",
        "conv4_6_3x3": "conv4_block6_2",
        "conv5_3_1x1_reduce": "conv5_block3_1",
    }.items():
        assert weights.layers[f"{ours}_conv"]["kernel"] == weights.layers[f"{ours}_bn"]["var"] == names.index(theirs)


def test_vggfaces_names_are_no_other_networks(vggface_resnet):
    weights = pretrained.read(vggface_resnet()[0], "resnet50")
    assert "conv1/7x7_s2" in weights.layers and "conv1_conv" not in weights.layers
    assert weights.models == ("vggface_resnet50",)


def test_vggfaces_senet50_is_not_its_resnet50(vggface_resnet):
    path, _ = vggface_resnet("conv2_1_1x1_down")
    weights = pretrained.read(path, "vggface_resnet50")
    assert "conv2_1_1x1_down" in weights.layers and weights.models == ()


def test_keras_resnet50_is_not_vggfaces(write_by_hand, tmp_path):
    table = [layer for layer in keras_layers.order("resnet50") if layer.kind != "Dense"]
    leaves = {"Conv2D": {"k": random(1, 1, 1, 1), "b": random(1)}, "BatchNormalization": {i: random(1) for i in "gbmv"}}
    path = write_by_hand(tmp_path / "x.h5", {layer.name: leaves[layer.kind] for layer in table})
    assert pretrained.read(path, "vggface_resnet50").models == ("resnet50",)


def test_vggfaces_resnet50_without_names_is_refused(tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = random(7, 7, 3, 64)
    with pytest.raises(InputError, match="has no layer names, and their order in vggface_resnet50 is not fixed"):
        pretrained.read(path, "vggface_resnet50")


@pytest.mark.parametrize("name", ["probs", "fc1000", "predictions"])
def test_the_classifier_had_other_names(write_by_hand, tmp_path, name):
    path = write_by_hand(tmp_path / "x.h5", {name: {f"{name}/kernel:0": random(4, 3), f"{name}/bias:0": random(3)}})
    assert list(pretrained.read(path, "resnet50").layers) == ["predictions"]


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("mean", "variance", "reason"),
    [
        (MEAN, STD, "equal to ours"),
        (MEAN, STD**2, "equal to ours"),
        (MEAN, STD * 2, "its deviations .* are not ImageNet's"),
        (MEAN * 255, STD, "its means .* are not ImageNet's"),
        (np.zeros(3), np.ones(3), "its means .* are not ImageNet's"),
    ],
)
def test_efficientnets_normalization_is_refused_with_its_reason(write_by_hand, tmp_path, mean, variance, reason):
    values = {f"normalization_1/{name}:0": value for name, value in zip("mvc", (mean, variance, 0), strict=True)}
    path = write_by_hand(tmp_path / "x.h5", {"normalization_1": values})
    weights = pretrained.read(path, "efficientnetb0")
    assert weights.layers == {}
    assert re.fullmatch(f"constants of the preprocessing.*{reason}.*", weights.refused["normalization_1"])


def test_plain_networks_count_from_zero(write_by_hand, tmp_path):
    names = ["conv2d_12", "batch_normalization_7", "conv2d_9", "dense_4", "mine"]
    layers = {name: {f"{name}/kernel:0": random(3, 3, 1, i + 1)} for i, name in enumerate(names)}
    weights = pretrained.read(write_by_hand(tmp_path / "x.h5", layers), "cnn")
    widths = {name: leaves["kernel"].shape[3] for name, leaves in weights.layers.items()}
    assert widths == {"conv2d_1": 1, "batch_normalization": 2, "conv2d": 3, "dense": 4, "mine": 5}


def test_float16_becomes_float32(write_by_hand, tmp_path):
    path = write_by_hand(tmp_path / "x.h5", {"a": {"a/kernel:0": random(2, 2).astype(np.float16)}})
    assert pretrained.read(path, "vgg16").layers["a"]["kernel"].dtype == np.float32


def test_shapes_of_no_known_layer_are_refused(write_by_hand, tmp_path):
    path = write_by_hand(tmp_path / "x.h5", {"lstm": {f"lstm/{i}": random(2, i) for i in (1, 2, 3)}})
    weights = pretrained.read(path, "vgg16")
    assert weights.layers == {} and "(2, 3): no known layer" in weights.refused["lstm"]


def test_kernels_of_theano_are_refused(write_by_hand, tmp_path):
    path = write_by_hand(tmp_path / "x.h5", {"a": {"a/kernel:0": random(2, 2)}}, attrs={"backend": b"theano"})
    with pytest.raises(InputError, match="Theano"):
        pretrained.read(path, "vgg16")


def cut(path, vgg16):
    vgg16.save_weights(path)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)


def other_hdf5(path, _):
    with h5py.File(path, "w") as file:
        file["entry/data"] = np.zeros(3)


def dangling(path, _):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        file.create_group("conv").attrs["weight_names"] = [b"conv/kernel:0"]


def archive(member):
    def write(path, _):
        import zipfile

        with zipfile.ZipFile(path, "w") as file:
            file.writestr(member, "")

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (cut, "cannot be read .*truncated.*fetch it again"),
        (dangling, "cannot be read .*truncated or corrupt"),
        (other_hdf5, "HDF5 but not a Keras weight file.*it contains entry"),
        (archive("model.weights.h5"), "a Keras archive: unzip it and give the model.weights.h5"),
        (archive("archive/data.pkl"), "is a PyTorch file; vgg16 needs a Keras weight file"),
        (archive("x.h5"), "is a zip archive"),
        (
            lambda path, _: path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
            "is a PyTorch file; vgg16 needs",
        ),
        (lambda path, _: path.write_bytes(b"<html>login"), "is not an HDF5 file; vgg16 needs"),
        (lambda path, _: path.write_bytes(b""), "is empty"),
    ],
)
def test_another_kind_of_file_is_named(vgg16, tmp_path, write, message):
    path = tmp_path / "x.weights.h5"
    write(path, vgg16)
    with pytest.raises(InputError, match=f"x.weights.h5.* {message}|x.weights.h5 {message}"):
        pretrained.read(path, "vgg16")


def test_keras_mobilenet_is_no_torchvisions(write_by_hand, tmp_path):
    """Its layers have the same names and shapes, but pad and scale otherwise."""
    path = write_by_hand(tmp_path / "x.h5", {"Conv1": {"Conv1/kernel:0": random(3, 3, 3, 32)}})
    with pytest.raises(
        InputError, match=r"Keras's network of this name pads .*; mobilenet_v2 needs a PyTorch file written by torch"
    ):
        pretrained.read(path, "mobilenet_v2")
