"""torchvision's MobileNetV2 against one made of Keras's layers, through files in PyTorch's layout; its real weights."""

import os
import pathlib

import jax
import numpy as np
import pytest
import reference
import torch_files
from PIL import Image
from sklearn import datasets

from fer_jax import params, pretrained
from fer_jax.pretrained import fetch, registry

NAME = "mobilenet_v2"
# expansion, channels, strides of each block (Sandler et al. 2018, table 2, its repeats written out)
BLOCKS = (
    (1, 16, 1),
    *((6, 24, 2), (6, 24, 1)),
    *((6, 32, 2), (6, 32, 1), (6, 32, 1)),
    *((6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1)),
    *((6, 96, 1), (6, 96, 1), (6, 96, 1)),
    *((6, 160, 2), (6, 160, 1), (6, 160, 1)),
    (6, 320, 1),
)
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
TORCH_LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def build(keras):
    """Builds the network of Keras's layers with random weights, padded as PyTorch pads; it takes scaled faces.

    Its layers are named by stage and place, `1.0` for the first convolution of the first block, `1.0n` for its norm.
    """
    layers = keras.layers
    keras.backend.clear_session()

    def norm(x, name, *, active):
        x = layers.BatchNormalization(name=f"{name}n", epsilon=1e-5, momentum=0.9)(x)
        return layers.ReLU(max_value=6)(x) if active else x

    def conv(x, name, filters, size=1, strides=1, *, active=True):
        x = layers.ZeroPadding2D(size // 2)(x)
        return norm(layers.Conv2D(filters, size, strides, use_bias=False, name=name)(x), name, active=active)

    def depthwise(x, name, strides):
        x = layers.DepthwiseConv2D(3, strides, use_bias=False, name=name)(layers.ZeroPadding2D(1)(x))
        return norm(x, name, active=True)

    faces = layers.Input((None, None, 3))
    x = conv(faces, "0.0", 32, 3, 2)
    for number, (expansion, filters, strides) in enumerate(BLOCKS, 1):
        start, channels = x, x.shape[-1]
        if expansion > 1:
            x = conv(x, f"{number}.0", channels * expansion)
        x = depthwise(x, f"{number}.{int(expansion > 1)}", strides)
        x = conv(x, f"{number}.{1 + int(expansion > 1)}", filters, active=False)
        if strides == 1 and channels == filters:
            x = layers.Add()([x, start])
    model = keras.Model(faces, conv(x, f"{len(BLOCKS) + 1}.0", 1280))
    reference.randomize(model)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.gamma.assign(3 * layer.gamma)  # so that maps reach the 6 of ReLU6
    reference.calibrate(model, scaled(reference.draw_faces(96, count=8)))
    return model


def scaled(faces):
    return (faces.astype(np.float32) / 255 - MEAN) / STD


def torch_name(layer, *, nested):
    """Returns the name in a state dict of a layer of `build`.

    torch.nn.Sequential counts its parts, activations too. A block is [conv, norm, ReLU6], once or twice, and
    [conv, norm]; torchvision nests the threes, the older spelling does not.
    """
    stage, place = layer.removesuffix("n").split(".")
    norm = int(layer.endswith("n"))
    if stage in ("0", str(len(BLOCKS) + 1)):
        return f"features.{stage}.{norm}"
    place, last = int(place), 1 if stage == "1" else 2
    if not nested:
        return f"features.{stage}.conv.{3 * place + norm}"
    return f"features.{stage}.conv.{place + norm}" if place == last else f"features.{stage}.conv.{place}.{norm}"


def load(theirs, path, *, nested=False):
    """Returns Keras's weights as our variables by way of a file in PyTorch's layout."""
    arrays = {}
    for layer in theirs.layers:
        name = torch_name(layer.name, nested=nested) if layer.get_weights() else ""
        for weight in layer.weights:
            array, leaf = np.asarray(weight), weight.name.rpartition("/")[2]
            if leaf == "kernel":
                axes = (2, 3, 0, 1) if type(layer).__name__ == "DepthwiseConv2D" else (3, 2, 0, 1)
                arrays[f"{name}.weight"] = array.transpose(axes)
            else:
                arrays[f"{name}.{TORCH_LEAVES[leaf]}"] = array
    torch_files.write_arrays(path, arrays)
    merged = pretrained.load(str(path), NAME, shapes_of(head="global_avg_pool"))
    assert all(path.startswith("head/") for path in merged.new)
    assert merged.refused == {} and len(merged.loaded) == len(arrays) == 260
    return {"params": merged.params, "batch_stats": merged.batch_stats}


def shapes_of(**fields):
    network, face = reference.network(NAME, **fields), np.zeros((1, 32, 32, 3), np.uint8)
    return jax.eval_shape(lambda: network.init(jax.random.key(0), face, train=False))


@pytest.mark.full
@pytest.mark.parametrize(("size_px", "nested"), [(64, False), (97, True)])
def test_features_equal_those_of_keras_layers_at_even_and_odd_sizes(keras, tmp_path, size_px, nested):
    theirs, faces = build(keras), reference.draw_faces(size_px)
    variables = load(theirs, tmp_path / "x.pt", nested=nested)
    expected = theirs(scaled(faces), training=False)
    reference.assert_varied(expected)
    reference.assert_close(reference.maps(reference.network(NAME), variables, faces), expected)


@pytest.mark.full
def test_running_statistics_after_a_training_step_equal_those_of_keras_layers(keras, tmp_path):
    theirs, faces = build(keras), reference.draw_faces(96, count=4)
    before = load(theirs, tmp_path / "before.pt")
    changed = reference.train(reference.network(NAME), before, faces)
    theirs(scaled(faces), training=True)
    reference.assert_same_change(before, changed, load(theirs, tmp_path / "after.pt"))


def test_it_has_the_published_number_of_parameters():
    """torchvision's `num_params` of both its weights, and that without the 1,281,000 of the classifier."""
    shapes = shapes_of()["params"]
    assert (params.count(shapes), params.count(shapes["backbone"])) == (3_504_872, 2_223_872)


@pytest.fixture(scope="module")
def real_variables():
    """The package's weights as our variables; $MOBILENET_V2_WEIGHTS names the file where it is not installed."""
    path = os.environ.get("MOBILENET_V2_WEIGHTS") or fetch.find(registry.find(NAME))
    if not path or not pathlib.Path(path).is_file():
        pytest.skip(f"MOBILENET_V2_WEIGHTS is not set, and {registry.find(NAME).source} is not installed")
    merged = pretrained.load(str(path), NAME, shapes_of(head="global_avg_pool"))
    assert merged.facts["verified"]
    return {"params": merged.params, "batch_stats": merged.batch_stats}


def load_photo(file, size_px):
    """Returns the middle of a photo, 224 of 256 pixels of its shorter side, bicubic."""
    photo = Image.fromarray(datasets.load_sample_image(file))
    side = int(min(photo.size) * 224 / 256)
    left, top = ((length - side) // 2 for length in photo.size)
    middle = photo.crop((left, top, left + side, top + side))
    return np.asarray(middle.resize((size_px, size_px), Image.Resampling.BICUBIC))


# size -> the four largest features of a flower and of a palace, by their channels, and the mean of all 1280: of
# torchvision 0.28.0 on PyTorch 2.13.0 (CPU) with these weights; the package's own network gives the same to 1e-6.
TORCH_FEATURES = {
    224: (
        ({430: 3.0113, 317: 3.0010, 987: 2.9856, 892: 2.8655}, 0.51413),
        ({284: 3.0101, 360: 2.9158, 864: 2.7153, 1234: 2.6798}, 0.53743),
    ),
    97: (
        ({1254: 5.0072, 892: 4.6869, 1135: 4.6770, 1081: 4.5742}, 0.83912),
        ({1164: 4.1343, 357: 4.1243, 921: 3.9824, 274: 3.8219}, 0.77949),
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("size_px", TORCH_FEATURES)
def test_the_real_weights_give_the_features_that_torchvision_gives(real_variables, size_px):
    photos = np.stack([load_photo(file, size_px) for file in ("flower.jpg", "china.jpg")])
    maps = np.asarray(reference.maps(reference.network(NAME), real_variables, photos))
    for features, (largest, mean) in zip(maps.mean(axis=(1, 2)), TORCH_FEATURES[size_px], strict=True):
        assert np.argsort(features)[::-1][:4].tolist() == list(largest)
        np.testing.assert_allclose(features[list(largest)], list(largest.values()), atol=1e-3)
        assert features.mean() == pytest.approx(mean, abs=1e-4)


@pytest.mark.full
def test_the_real_statistics_are_those_of_photos_in_the_scaling_of_imagenet(real_variables):
    """What the first convolution makes of photos varies as the file says it does; in other scalings it does not."""
    photos = np.stack([load_photo(file, 224) for file in ("flower.jpg", "china.jpg")])
    kernel = real_variables["params"]["backbone"]["Conv1"]["kernel"]
    stored = np.asarray(real_variables["batch_stats"]["backbone"]["bn_Conv1"]["var"])
    inputs = {"imagenet": scaled(photos), "unit": photos / 255, "symmetric": photos / 127.5 - 1, "raw": photos * 1.0}
    off = {}
    for name, values in inputs.items():
        maps = jax.lax.conv_general_dilated(
            values.astype(np.float32), kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        off[name] = np.median(np.abs(np.log(np.asarray(maps).var(axis=(0, 1, 2)) / stored)))
    assert 2 * off.pop("imagenet") < min(off.values())
