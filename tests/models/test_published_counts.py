"""The parameter counts that the reports print, against the configs of their systems."""

import pathlib

import jax
import numpy as np
import pytest

from fer_jax import config as config_lib
from fer_jax import models, params
from fer_jax.models import stack

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
# config, variant -> total, trained by the optimizer where the report says it; both as Keras counts
COUNTS = {
    ("r3_cnn", "four_layer"): (1_949_447, 1_947_527),
    ("r3_cnn", "seven_layer"): (1_394_183, 1_391_943),
    ("r3_cnn", "bayesian"): (2_901_831, 2_898_759),
    ("r4_cnn", "model_1"): (605_572, None),
    ("r4_cnn", "model_1_grey"): (605_060, None),
    ("r4_cnn", "model_2"): (391_652, 390_692),
    ("r4_cnn", "final"): (1_782_852, 1_778_628),
    ("r4_cnn", "final_relu"): (1_782_852, 1_778_628),
    ("r4_cnn", "final_plain"): (1_782_852, 1_778_628),
    ("r4_cnn", "final_grey"): (1_782_340, 1_778_116),
    ("r5_cnn", "adam"): (5_810_183, 5_805_191),
    ("resnet50", "r3"): (24_114_055, None),
    ("inception_v3", None): (22_329_127, None),
    ("vgg16", "r3"): (15_620_615, None),
    ("efficientnet", "r1"): (4_214_442, None),
}
KERAS_CONSTANTS = {("efficientnet", "r1"): 7}  # of its scaling layer, which we hold as code


def get_config(name, variant):
    return config_lib.load(CONFIGS / (f"{name}.py:{variant}" if variant else f"{name}.py"))


def count(name, variant):
    config = get_config(name, variant)
    network = models.make(config.model, len(config.data.classes) or 7)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), np.zeros((1, 48, 48, 1), np.uint8), train=False))
    return params.count(shapes), params.count(shapes["params"])


@pytest.mark.full
@pytest.mark.parametrize(("name", "variant"), COUNTS)
def test_a_system_has_the_published_count(name, variant):
    total, trained = COUNTS[name, variant]
    ours, ours_trained = count(name, variant)
    assert ours == total - KERAS_CONSTANTS.get((name, variant), 0)
    assert trained in (None, ours_trained)


def r4_blocks(variant):
    """Returns the kinds of layers before R4's dense ones, and the activations inside its convolutions."""
    layers = stack.parse(get_config("r4_cnn", variant).model.layers)
    kinds = [layer.kind for layer in layers]
    inside = {layer.activation for layer in layers if layer.kind == "conv"}
    return kinds[: kinds.index("flatten")], inside


@pytest.mark.parametrize(("variant", "inside"), [("final", "linear"), ("final_grey", "linear"), ("final_relu", "relu")])
def test_r4s_final_cnn_is_conv_batchnorm_leakyrelu_maxpool(variant, inside):
    assert r4_blocks(variant) == (["conv", "batch_norm", "leaky_relu", "max_pool"] * 5, {inside})


@pytest.mark.parametrize(
    ("variant", "sections"), [("final_plain", {"augment"}), ("final_grey", {"model"}), ("final_relu", {"model"})]
)
def test_a_variant_of_r4s_final_cnn_differs_in_one_section(variant, sections):
    final, other = (config_lib.to_dict(get_config("r4_cnn", name)) for name in ("final", variant))
    assert {name for name in final if final[name] != other[name]} == sections


@pytest.mark.parametrize(("variant", "twin"), [("cfc", "cfc_plain"), ("roi", "roi_plain")])
def test_r4s_next_steps_have_the_parameters_and_the_protocol_of_their_plain_twins(variant, twin):
    total, trained = count("r4_next", variant)
    for other in (("r4_next", twin), ("r4_cnn", "final")):
        assert count(*other) == pytest.approx((total, trained), rel=0.01)
        ours, theirs = (config_lib.to_dict(get_config(*config)) for config in (("r4_next", variant), other))
        assert {name for name in ours if ours[name] != theirs[name]} == {"model"}


@pytest.mark.full
def test_r3s_ensemble_is_the_sum_of_its_members():
    members = (("resnet50", "r3"), ("r3_cnn", "bayesian"), ("vgg16", "r3"))
    assert sum(count(*member)[0] for member in members) == 42_636_501
