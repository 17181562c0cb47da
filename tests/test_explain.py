"""Heat maps: Grad-CAM by hand and by Keras, occlusion by hand, and what both must show of trained and odd networks."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from scipy import ndimage, stats

from fer_jax import config as config_lib
from fer_jax import datasets, explain, inference, models, train
from fer_jax.errors import InputError
from fer_jax.models import dual_channel

RNG = np.random.default_rng(0)
FACES = RNG.integers(0, 256, (5, 48, 48, 1), dtype=np.uint8)
LABELS = np.array([0, 3, 6, 3, 1])


def make(layers, seed=0, image_shape=(48, 48, 1), **fields):
    """Returns a text-layer network and its drawn variables."""
    section = config_lib.get_default().model
    section.update({"layers": layers, **fields})
    model = models.make(section, 7)
    return model, model.init(jax.random.key(seed), np.zeros((1, *image_shape), np.uint8), train=False)


def enlarge(maps, side=48):
    """Returns maps [N, h, w] enlarged bilinearly by PIL."""
    images = [Image.fromarray(one.astype(np.float32)) for one in maps]
    return np.stack([np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) for image in images])


def to_one(heat):
    top = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(top > 0, top, 1)


def test_grad_cam_is_cam_where_the_map_is_averaged_and_weighed():
    """Zhou et al. 2016, "Learning deep features for discriminative localization": the dense layer's weights."""
    model, variables = make("conv 8 5x5 relu, max_pool, conv 6 relu, max_pool, global_avg_pool")
    params = variables["params"]
    x = jnp.asarray(FACES, jnp.float32) / 255
    for name in ("conv2d", "conv2d_1"):
        x = jax.lax.conv_general_dilated(
            x, params[name]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = nn.max_pool(nn.relu(x + params[name]["bias"].reshape(1, 1, 1, -1)), (2, 2), (2, 2))
    weights = np.asarray(params["dense"]["kernel"])[:, LABELS].T
    cam = np.maximum(np.einsum("nhwc,nc->nhw", x, weights), 0)
    assert cam.shape == (5, 12, 12) and (cam.max(axis=(1, 2)) > 0).all()
    heat = explain.grad_cam(model, variables, FACES, LABELS)
    assert heat.dtype == np.float32 and heat.shape == (5, 48, 48)
    np.testing.assert_allclose(heat, to_one(enlarge(cam)), atol=1e-4)


def test_grad_cam_is_that_of_keras(keras):
    import tensorflow as tf

    model, variables = make(
        "conv 6 relu, batch_norm, max_pool, conv 8 relu, avg_pool, dropout 0.5, flatten, dense 9 relu"
    )
    rng = np.random.default_rng(1)
    inputs = keras.Input((48, 48, 1))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.MaxPooling2D(2)(keras.layers.BatchNormalization()(x))
    maps = keras.layers.AveragePooling2D(2)(keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x))
    x = keras.layers.Dense(9, activation="relu")(keras.layers.Flatten()(maps))
    reference = keras.Model(inputs, [maps, keras.layers.Dense(7)(x)])
    conv, norm, second, hidden, top = (layer for layer in reference.layers if layer.weights)
    moved = {"mean": rng.normal(size=6) / 10, "var": rng.uniform(0.5, 2, 6)}
    variables = {**variables, "batch_stats": {"batch_normalization": moved}}
    params = variables["params"]
    names = {"conv2d": conv, "conv2d_1": second, "dense": hidden, "dense_1": top}
    for name, layer in names.items():
        layer.set_weights([params[name]["kernel"], params[name]["bias"]])
    scale = params["batch_normalization"]
    norm.set_weights([scale["scale"], scale["bias"], moved["mean"], moved["var"]])
    with tf.GradientTape() as tape:
        activations, logits = reference(tf.Variable(FACES / 255.0, dtype=tf.float32))
        score = tf.reduce_sum(tf.gather(logits, LABELS, batch_dims=1))
    weights = tf.reduce_mean(tape.gradient(score, activations), axis=(1, 2))
    cam = tf.nn.relu(tf.einsum("nhwc,nc->nhw", activations, weights))
    expected = tf.image.resize(cam[..., None], (48, 48))[..., 0].numpy()
    np.testing.assert_allclose(explain.grad_cam(model, variables, FACES, LABELS), to_one(expected), atol=1e-4)


@pytest.mark.full
def test_a_dual_channel_network_shows_its_region_where_it_lies():
    model, variables = make("conv 6 relu, max_pool, max_pool", name="dual_channel_roi", head="global_avg_pool")
    params = jax.tree.map(np.asarray, variables["params"])
    params["heat"]["kernel"] = 3e3 * RNG.normal(size=params["heat"]["kernel"].shape).astype(np.float32)
    variables = {**variables, "params": params}
    face = jnp.asarray(FACES, jnp.float32) / 255
    centre = np.asarray(model.apply(variables, face, train=False, method="find"))
    assert np.abs(centre - 0.5).max() > 0.02
    weights = params["head"]["dense"]["kernel"][:, LABELS].T
    seen = {"whole": face, "region": dual_channel.sample(face, centre)}
    cams = {}
    for part, (name, x) in zip(np.split(weights, 2, axis=1), seen.items(), strict=True):
        maps = getattr(model, name).apply({"params": params[name]}, x, train=False)
        cams[name] = enlarge(np.maximum(np.einsum("nhwc,nc->nhw", maps, part), 0))
    expected = cams["whole"].copy()
    for number, row, column in itertools.product(range(5), range(48), range(48)):
        # Half a pixel apart, each point of the region gives its heat to the four pixels around it.
        places = np.clip(centre[number] * 48 - 0.5 + (np.array([row, column]) + 0.5) / 2 - 12, 0, 47)
        (top, left), (y, x) = places.astype(int), places % 1
        for down, right in itertools.product((0, 1), (0, 1)):
            share = abs(1 - down - y) * abs(1 - right - x)
            if share:
                expected[number, top + down, left + right] += share * cams["region"][number, row, column]
    found = explain.grad_cam(model, variables, FACES, LABELS)
    np.testing.assert_allclose(found, to_one(expected), atol=2e-4)


@pytest.mark.full
def test_an_average_has_the_mean_of_its_members_maps():
    layers = ("conv 4 relu, max_pool, flatten, dense 5 relu", "conv 5 relu, avg_pool, max_pool, global_avg_pool")
    members = [make(text, seed) for seed, text in enumerate(layers)]
    model = models.average.Average(tuple(model for model, _ in members))
    params = {f"members_{number}": variables["params"] for number, (_, variables) in enumerate(members)}
    maps = [explain.grad_cam(*member, FACES, LABELS) for member in members]
    found = explain.grad_cam(model, {"params": params, "batch_stats": {}}, FACES, LABELS)
    np.testing.assert_allclose(found, to_one(np.mean(maps, axis=0)), atol=1e-6)
    assert explain.choose(model, {"params": params}, (48, 48, 1)) == "grad_cam"


def test_a_backbone_is_explained_by_its_last_map(tmp_path):
    section = tiny.make_config(tmp_path).model
    model = models.make(section, 7)
    variables = model.init(jax.random.key(0), FACES[:1], train=False)
    last = explain.grad_cam(model, variables, FACES, LABELS)
    np.testing.assert_array_equal(last, explain.grad_cam(model, variables, FACES, LABELS, layer="backbone"))
    earlier = explain.grad_cam(model, variables, FACES, LABELS, layer="stem_conv")
    assert np.abs(last - earlier).max() > 0.1
    with pytest.raises(
        InputError, match="no layer 'top' that returns a map; known are backbone/stem_conv, backbone, backbone/stem_bn"
    ):
        explain.grad_cam(model, variables, FACES, LABELS, layer="top")


@pytest.mark.full
def test_a_liquid_head_and_half_precision_have_maps():
    model, variables = make("conv 4 relu, max_pool, max_pool, cfc 5", dtype="bfloat16")
    heat = explain.grad_cam(model, variables, FACES, LABELS)
    assert heat.dtype == np.float32 and heat.min() >= 0 and heat.max() == 1


@pytest.mark.parametrize("layers", ["flatten, dense 9 relu", "batch_norm, dropout 0.2, flatten, dense 9 relu"])
def test_a_network_without_maps_is_explained_by_occlusion_alone(layers):
    model, variables = make(layers)
    with pytest.raises(InputError, match="this network has none for faces of 48x48 pixels: explain it by occlusion"):
        explain.grad_cam(model, variables, FACES, LABELS)
    with pytest.raises(InputError, match="unknown method 'lime'; known are auto, grad_cam, occlusion"):
        explain.choose(model, variables, (48, 48, 1), "lime")
    with pytest.raises(InputError, match="explain it by occlusion"):
        explain.choose(model, variables, (48, 48, 1), "grad_cam")
    assert explain.choose(model, variables, (48, 48, 1)) == "occlusion"
    assert np.abs(explain.occlusion(model, variables, FACES[:1], LABELS[:1])).max() > 0


@pytest.mark.parametrize(("pools", "method"), [(3, "grad_cam"), (4, "occlusion")])
def test_a_coarse_map_is_left_for_occlusion(pools, method):
    model, variables = make(", ".join(["conv 4 same relu, max_pool"] * pools) + ", global_avg_pool")
    assert explain.choose(model, variables, (48, 48, 1)) == method
    other, others = make("conv 4 same relu, global_avg_pool")
    params = {"members_0": variables["params"], "members_1": others["params"]}
    assert explain.choose(models.average.Average((model, other)), {"params": params}, (48, 48, 1)) == method
    assert explain.choose(model, variables, (48, 48, 1), "grad_cam") == "grad_cam"


class Scanned(nn.Module):
    """A convolution, and one that a scan repeats, whose maps cannot be had from outside."""

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2), name="first")(image / 255))
        scan = nn.scan(Repeated, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return nn.Dense(7)(scan(name="repeated")(x, None)[0].mean(axis=(1, 2)))


class Repeated(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Conv(4, (3, 3))(x)), None


@pytest.mark.full
def test_maps_in_a_scan_are_passed_over():
    model = Scanned()
    variables = model.init(jax.random.key(0), FACES[:1], train=False)
    np.testing.assert_array_equal(
        explain.grad_cam(model, variables, FACES, LABELS), explain.grad_cam(model, variables, FACES, LABELS, "first")
    )


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(4, (3, 3), (2, 2))(x))


class Blocks(nn.Module):
    """Three convolutions, each a `block`."""

    block: type

    @nn.compact
    def __call__(self, image, *, train):
        x = image / 255
        for name in ("first", "second", "third"):
            x = self.block(name=name)(x)
        return nn.Dense(7, name="top")(x.mean(axis=(1, 2)))


@pytest.mark.parametrize("transform", [nn.jit, nn.remat])
def test_maps_are_found_in_transformed_layers(transform):
    model, plain = Blocks(transform(Block)), Blocks(Block)
    variables = model.init(jax.random.key(0), FACES[:1], train=False)
    for layer in (None, "first"):
        found, expected = (explain.grad_cam(one, variables, FACES, LABELS, layer) for one in (model, plain))
        assert np.ptp(expected) == 1
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_face_has_the_same_map_in_any_batch():
    model, variables = make("conv 4 relu, max_pool, flatten")
    many = RNG.integers(0, 256, (35, 48, 48, 1), dtype=np.uint8)
    labels = np.arange(35) % 7
    together = explain.grad_cam(model, variables, many, labels)
    for row in (0, 31, 34):
        alone = explain.grad_cam(model, variables, many[row : row + 1], labels[row : row + 1])
        np.testing.assert_allclose(together[row : row + 1], alone, atol=1e-5)
    assert explain.grad_cam(model, variables, many[:0], labels[:0]).shape == (0, 48, 48)


@pytest.mark.parametrize("channels", [1, 3])
def test_occlusion_is_the_mean_drop_of_the_patches_over_a_pixel(channels):
    model, variables = make("conv 4 relu, max_pool, flatten", image_shape=(48, 48, channels), channels=channels)
    faces = RNG.integers(0, 256, (2, 48, 48, channels), dtype=np.uint8)
    labels, patch, stride = np.array([2, 5]), 14, 9
    total, count = np.zeros((2, 48, 48)), np.zeros((48, 48))

    def probs(images):
        return np.asarray(jax.nn.softmax(model.apply(variables, images, train=False)))[np.arange(2), labels]

    for top, left in itertools.product([0, 9, 18, 27, 34], repeat=2):
        covered = faces.copy()
        box = (slice(top, top + patch), slice(left, left + patch))
        covered[:, *box] = np.rint(faces.mean(axis=(1, 2), keepdims=True))
        total[:, *box] += (probs(faces) - probs(covered))[:, None, None]
        count[box] += 1
    found = explain.occlusion(model, variables, faces, labels, patch=patch, stride=stride)
    assert found.dtype == np.float32 and found.min() < 0 < found.max()
    np.testing.assert_allclose(found, total / count, atol=1e-6)


@pytest.mark.parametrize(
    ("patch", "stride", "message"),
    [(49, 4, "the patch has 49 px: give 1 to 48"), (8, 9, "stride is 9 px: give 1 to 8")],
)
def test_patches_that_do_not_fit_are_refused(patch, stride, message):
    model, variables = make("flatten")
    with pytest.raises(InputError, match=message):
        explain.occlusion(model, variables, FACES, LABELS, patch=patch, stride=stride)


class Corner(nn.Module):
    """A network that sees one corner of 16x16 pixels of the face and nothing else."""

    down: bool
    right: bool

    @nn.compact
    def __call__(self, image, *, train):
        rows, columns = (np.arange(48) >= 32 if far else np.arange(48) < 16 for far in (self.down, self.right))
        seen = image / 255 * np.outer(rows, columns).reshape(1, 48, 48, 1)
        x = nn.relu(nn.Conv(8, (3, 3), use_bias=False)(seen))
        x = nn.relu(nn.Conv(8, (3, 3), (2, 2), use_bias=False)(x))
        return nn.Dense(7)(x.mean(axis=(1, 2)))


@pytest.mark.parametrize(("down", "right"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("method", explain.METHODS)
def test_the_heat_is_where_the_network_looks(method, down, right):
    model = Corner(down, right)
    variables = model.init(jax.random.key(3), FACES[:1], train=False)
    labels = np.argmax(model.apply(variables, FACES, train=False), axis=-1)
    heat = explain.METHODS[method](model, variables, FACES, labels)
    box = np.s_[:, 24 * down : 24 * down + 24, 24 * right : 24 * right + 24]
    assert (heat.max(axis=(1, 2)) == 1).all()
    np.testing.assert_allclose(heat[box].sum(), heat.sum(), rtol=1e-5)


# Adebayo et al. 2018, "Sanity checks for saliency maps": a map that explains a network must change with its weights.


LAYERS = (
    "conv 8 relu, batch_norm, max_pool, conv 16 relu, batch_norm, max_pool, conv 16 relu, max_pool, "
    "flatten, dense 16 relu"
)
TOP_DOWN = ("dense_1", "dense", "conv2d_2", "batch_normalization_1", "conv2d_1", "batch_normalization", "conv2d")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that knows its training faces, 12 of these, and the classes that it gives them."""
    folder = tmp_path_factory.mktemp("explained")
    config = tiny.make_config(folder / "cache", **{"model.name": "cnn", "model.layers": LAYERS, "model.size_px": 0})
    config.update_from_flattened_dict({"train.epochs": 20, "train.batch_size": 32, "optim.learning_rate": 5e-3})
    config.model.head = ""
    train.train(config, folder / "run")
    model, faces = inference.load(folder / "run", "latest"), datasets.load(config.data).train
    predicted = np.argmax(model.model.apply(model.variables, faces.images[:300], train=False), axis=-1)
    assert np.mean(predicted == faces.labels[:300]) > 0.4  # chance: 0.25, all happy
    return model, faces.images[:12], predicted[:12]


def cascade(trained, count, seed):
    """Returns the variables with the `count` uppermost layers drawn anew."""
    drawn = trained.model.init(jax.random.key(seed), FACES[:1], train=False)

    def pick(path, old, new):
        return new if path[1].key in TOP_DOWN[:count] else old

    return jax.tree_util.tree_map_with_path(pick, jax.device_get(trained.variables), drawn)


def rank_correlations(trained, map_fn):
    """Returns the mean rank correlation with the maps of the trained network for each number of layers drawn anew.

    map_fn: variables -> maps [N, H, W]. Faces of which the trained network's map has no heat are left out; other maps
    without heat correlate with nothing.
    """
    maps, found = map_fn(trained.variables), []
    assert sum(np.ptp(one) > 0 for one in maps) > 6
    for count in range(len(TOP_DOWN) + 1):
        pairs = [pair for seed in (7, 8, 9) for pair in zip(maps, map_fn(cascade(trained, count, seed)), strict=True)]
        pairs = [pair for pair in pairs if np.ptp(pair[0])]
        values = [stats.spearmanr(a.ravel(), b.ravel()).statistic if np.ptp(b) else 0.0 for a, b in pairs]
        found.append(np.mean(values))
    return found


@pytest.mark.full
@pytest.mark.parametrize(("method", "options"), [("grad_cam", {}), ("occlusion", {"patch": 12, "stride": 6})])
def test_maps_change_with_the_weights(trained, method, options):
    model, faces, labels = trained

    def map_fn(variables):
        return getattr(explain, method)(model.model, variables, faces, labels, **options)

    same, *others = rank_correlations(model, map_fn)
    assert same > 0.999
    assert others[0] < 0.7 and max(others[1:]) < 0.35, others


@pytest.mark.full
def test_a_map_that_ignores_the_weights_does_not(trained):
    """The edges of a face look like an explanation, and are none."""
    model, faces, _ = trained

    def map_fn(_):
        return [np.abs(ndimage.sobel(face[..., 0].astype(float))) for face in faces]

    assert min(rank_correlations(model, map_fn)) > 0.999


def test_an_overlay_is_the_face_where_there_is_no_heat_and_bright_where_there_is_most():
    heat = np.zeros((48, 48), np.float32)
    heat[10, 20] = 1
    grey = np.full((48, 48, 1), 100, np.uint8)
    painted = explain.overlay(grey, heat)
    assert painted.shape == (48, 48, 3) and painted.dtype == np.uint8
    assert (np.delete(painted.reshape(-1, 3), 10 * 48 + 20, axis=0) == 100).all()
    assert painted[10, 20].sum() > 3 * 100 and np.ptp(painted[10, 20].astype(int)) > 40
    colour = RNG.integers(0, 256, (96, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(explain.overlay(colour, heat * 0), colour)
    assert explain.overlay(colour, heat).shape == (96, 64, 3)
