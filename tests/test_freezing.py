"""Freezing on real networks: what is held, that it stays, and that it costs no backward work."""

import jax
import numpy as np
import optax
import pytest
import tiny

from fer_jax import config as config_lib
from fer_jax import freezing, optim, params, steps
from fer_jax.errors import InputError
from fer_jax.models import keras_layers

packaged_weights = config_lib.load_module(config_lib.find("packaged_weights"))


def plan(**fields):
    """Returns the only phase of a config, whose head is a classifier on pooled features."""
    config = config_lib.get_default()
    config.model.head = "global_avg_pool"
    config.update_from_flattened_dict(fields)
    (phase,) = freezing.make_phases(config, 7, image_shape=(48, 48, 1), steps_per_epoch=10)
    return phase


@pytest.mark.parametrize(("first", "name", "keras_name"), [(165, "resnet50", "ResNet50"), (12, "vgg16", "VGG16")])
def test_the_first_layers_are_those_of_keras(keras, first, name, keras_name):
    theirs = getattr(keras.applications, keras_name)(include_top=False, weights=None, input_shape=(48, 48, 3))
    for layer in theirs.layers[:first]:
        layer.trainable = False
    held = {layer.name for layer in theirs.layers[:first] if layer.weights}
    phase = plan(**{"model.name": name, "optim.freeze_first_layers": first})
    free, _ = params.split(phase.abstract.params, phase.frozen)
    assert phase.frozen == {f"backbone/{layer}" for layer in held}
    trainable = sum(int(np.prod(weight.shape)) for weight in theirs.trainable_weights)
    assert params.count(free["backbone"]) == trainable


def trained_backbone(config, classes=7):
    """Returns the layers of the backbone that a config trains, without the scope."""
    (phase,) = freezing.make_phases(config, classes, image_shape=(48, 48, 1), steps_per_epoch=10)
    return {
        path.removeprefix("backbone/")
        for path in params.layers(phase.abstract.params).keys() - phase.frozen
        if path.startswith("backbone/")
    }


LAST_LAYERS = {"lite0": {"top_conv", "top_bn"}, "mobilenet_v2": {"Conv_1", "Conv_1_bn"}}


@pytest.mark.full
@pytest.mark.parametrize("network", packaged_weights.NETWORKS)
def test_the_regimes_with_packaged_weights_train_what_they_say(network):
    regimes = {regime: packaged_weights.get_config(f"{network}_{regime}") for regime in packaged_weights.REGIMES}
    trained = {regime: trained_backbone(config, len(config.data.classes) or 7) for regime, config in regimes.items()}
    assert trained["r2"] == trained["r4_frozen"] == set()
    assert trained["r4_last_layer"] == LAST_LAYERS[network]
    table = {layer.name for layer in keras_layers.order(packaged_weights.NETWORKS[network]) if layer.kind != "Dense"}
    assert trained["r4_unfrozen"] == table
    r2 = regimes.pop("r2")
    assert (r2.optim.name, r2.optim.momentum, r2.model.init) == ("sgd", 0.9, "he_uniform")
    assert r2.train.early_stopping.patience_epochs == 15 and r2.data.max_class_share == 1
    assert {regime.data.classes for regime in regimes.values()} == {("happy", "sad", "neutral", "surprise")}
    for config in (r2, *regimes.values()):
        assert (config.model.weights, config.model.size_px) == ("imagenet", 96)
        assert not any(config.augment[field] for field in config.augment if field not in {"fill", "erase_max_share"})


def test_vggfaces_resnet50_trains_the_layers_that_r2_trains():
    assert trained_backbone(config_lib.load("vggface")) == trained_backbone(config_lib.load("resnet50:r2")) != set()


def train_steps(phase, count, batch_size=4, seed=0):
    """Takes some steps on random faces; returns the states before and after."""
    rng = np.random.default_rng(seed)
    state = jax.jit(lambda: steps.init_state(phase, jax.random.key(0)))()
    step = jax.jit(steps.make_train_step(phase, tiny.make_objective(), key=jax.random.key(1)))
    before = state
    for _ in range(count):
        batch = {
            "image": rng.integers(0, 256, (batch_size, 48, 48, 1), dtype=np.uint8),
            "label": rng.integers(0, 7, batch_size).astype(np.int32),
            "mask": np.ones(batch_size, np.float32),
        }
        state, _ = step(state, batch)
    return before, state


OPTIMIZERS = {
    "sgd": {"optim.name": "sgd"},
    "adam": {},
    "adam with weight decay": {"optim.weight_decay": 0.1},
    "sgd with clipping and l2": {"optim.name": "sgd", "optim.clip_norm": 1.0, "optim.weight_decay": 1e-3},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_layers_are_bit_identical_after_fifty_steps(optimizer):
    fields = {"model.name": tiny.NAME, "model.size_px": 32, "optim.freeze": ("backbone/stem.*",)}
    phase = plan(**fields, **OPTIMIZERS[optimizer], **{"optim.learning_rate": 1e-3})
    before, after = train_steps(phase, 50)
    for tree in ("params", "batch_stats"):
        old, new = (params.layers(jax.device_get(getattr(state, tree))) for state in (before, after))
        same = {path for path in old if all(np.array_equal(old[path][leaf], new[path][leaf]) for leaf in old[path])}
        assert same == {"backbone/stem_conv", "backbone/stem_bn"} & old.keys()


def test_the_optimizer_keeps_nothing_for_frozen_layers():
    phase = plan(**{"model.name": "efficientnet_lite0", "optim.freeze": ("backbone",)})
    moments = [leaf for leaf in jax.tree.leaves(phase.abstract.opt_state) if leaf.shape]
    head = params.count(phase.abstract.params["head"])
    assert params.count(moments) == 2 * head  # Adam's first and second


@pytest.mark.full
def test_frozen_layers_cost_no_backward_work():
    work = {}
    for frozen in ((), ("backbone",)):
        phase = plan(**{"model.name": "vgg16", "optim.freeze": frozen, "optim.name": "sgd"})
        step = steps.make_train_step(phase, tiny.make_objective(), key=jax.random.key(0))
        batch = {
            "image": jax.ShapeDtypeStruct((2, 48, 48, 1), np.uint8),
            "label": jax.ShapeDtypeStruct((2,), np.int32),
            "mask": jax.ShapeDtypeStruct((2,), np.float32),
        }
        work[frozen] = jax.jit(step).lower(phase.abstract, batch).compile().cost_analysis()["flops"]
    # Of the three convolutions of a layer's step, forward, by input and by kernel, one is left.
    assert work[("backbone",)] < 0.4 * work[()]


def test_weight_decay_and_clipping_see_only_what_is_trained():
    section = config_lib.get_default().optim
    section.update({"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "clip_norm": 1.0})
    tx, _ = optim.make(section, steps_per_epoch=1, epochs=1)
    free, _ = params.split(
        {"a": {"kernel": np.ones(4, np.float32)}, "b": {"kernel": np.ones(4, np.float32)}}, frozenset({"a"})
    )
    updates, _ = tx.update({"b": {"kernel": np.full(4, 10.0, np.float32)}}, tx.init(free), free)
    assert np.isclose(optax.tree.norm(updates), 1.0)


def test_a_network_that_keras_has_not_has_no_keras_numbers():
    for fields in ({"model.layers": "conv 4, flatten"}, {"model.name": "efficientnet_lite0"}):
        with pytest.raises(InputError, match="Keras has no network"):
            plan(**fields, **{"optim.freeze_first_layers": 3})
