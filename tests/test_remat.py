"""What a step keeps for its backward pass: less with each choice, with the same results; and the peak is told."""

import functools
import json
import resource
import sys

import commands
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from fer_jax import config as config_lib
from fer_jax import freezing, steps
from fer_jax.errors import InputError
from fer_jax.models import layers
from fer_jax.runtime import remat

CHOICES = ("none", "activations", "segments")
SHAPE, CLASSES = (16, 16, 1), 7


class Plain(layers.Layers):
    """A chain; its narrow places are many."""

    @nn.compact
    def __call__(self, image, *, train):
        x = image / 255.0
        for block in range(3):
            x = self.norm(nn.relu(self.conv(x, f"conv_{block}", 8, 3)), f"norm_{block}", train=train)
            x = self.dropout(x, 0.3, train=train)
        return self.dense(x.reshape(len(x), -1), "dense", CLASSES)


class Branches(layers.Layers):
    """Residual blocks, so that several maps cross most places."""

    @nn.compact
    def __call__(self, image, *, train):
        x = self.conv(image / 255.0, "stem", 8, 3)
        for block in range(3):
            y = nn.swish(self.norm(self.conv(x, f"wide_{block}", 32, 1), f"norm_{block}", train=train))
            x = x + self.dropout(self.conv(y, f"narrow_{block}", 8, 3), 0.2, train=train)
        return self.dense(x.mean((1, 2)), "dense", CLASSES)


NETWORKS = {"plain": Plain(), "branches": Branches()}


@functools.cache
def make(network):
    """Returns a network, its first state, the optimizer and a batch."""
    model, tx = NETWORKS[network], optax.sgd(1.0)
    state = jax.jit(lambda: steps.init_state(tiny.make_phase(model, tx, SHAPE), jax.random.key(0)))()
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (4, *SHAPE)), jnp.uint8),
        "label": jnp.asarray([0, 3, 6, 1], jnp.int32),
        "mask": jnp.asarray([1.0, 1.0, 1.0, 0.0]),
    }
    return model, state, tx, batch


def apply(network):
    """Returns the function that is differentiated, and its arguments."""
    model, state, _, batch = make(network)

    def apply(params, batch_stats, image):
        variables, rngs = {"params": params, "batch_stats": batch_stats}, {"dropout": jax.random.key(2)}
        return model.apply(variables, image, train=True, mutable=["batch_stats"], rngs=rngs)

    return apply, (state.params, state.batch_stats, batch["image"])


def kept_bytes(network, choice):
    """Returns the bytes that the backward pass holds from the forward pass, besides the arguments."""
    function, args = apply(network)
    function = remat.rematerialize(function, choice)
    _, back = jax.eval_shape(lambda *args: jax.vjp(lambda params: function(params, *args[1:]), args[0]), *args)
    given = {leaf.shape for leaf in jax.tree.leaves(args)}
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(back) if leaf.shape not in given)


@pytest.mark.parametrize("network", NETWORKS)
def test_each_choice_keeps_less_than_the_one_before(network):
    none, activations, segments = (kept_bytes(network, choice) for choice in CHOICES)
    assert none > 1.3 * activations
    assert none > 2 * segments


@pytest.mark.parametrize("choice", CHOICES[1:])
@pytest.mark.parametrize("network", [pytest.param("plain", marks=pytest.mark.full), "branches"])
def test_a_step_gives_the_same_with_each_choice(network, choice):
    model, state, tx, batch = make(network)

    def after(choice):
        key = jax.random.key(1)
        objective = tiny.make_objective((1,) * CLASSES, l2=1e-3)
        phase = tiny.make_phase(model, tx, SHAPE, **{"train.rematerialize": choice})
        step = steps.make_train_step(phase, objective, key=key)
        changed, sums = jax.jit(step)(state, batch)
        return changed.params, changed.batch_stats, sums

    for one, two in zip(jax.tree.leaves(after("none")), jax.tree.leaves(after(choice)), strict=True):
        np.testing.assert_allclose(np.asarray(two), np.asarray(one), rtol=1e-4, atol=1e-6)


def test_an_unknown_choice_is_refused_before_anything_is_built():
    config = config_lib.get_default()
    config.train.rematerialize = "everything"
    with pytest.raises(InputError, match="'everything'; known are auto, none, activations, segments"):
        freezing.make_phases(config, 7, image_shape=(48, 48, 1), steps_per_epoch=5)


@pytest.mark.parametrize(
    ("choice", "network", "chosen"),
    [("auto", "efficientnetb0", "activations"), ("auto", "resnet50", "none"), ("activations", "cnn", "activations")],
)
def test_auto_is_the_faster_one_of_a_network(choice, network, chosen, monkeypatch):
    config = config_lib.get_default()
    config.update_from_flattened_dict({"train.rematerialize": choice, "model.name": network})
    assert remat.choose(config) == chosen
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config.train.rematerialize = "auto"
    assert remat.choose(config) == "none"


def test_what_a_program_needs():
    program = jax.jit(lambda x, y: x + y, donate_argnums=0).lower(jnp.ones(100), jnp.ones(100)).compile()
    needs = remat.needs(program)
    assert needs["arguments_mib"] * 2**20 == 800
    assert needs["donated_mib"] * 2**20 == 400


@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage")
def test_the_peak_is_that_of_the_system():
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    assert remat.peak_mib() == pytest.approx(usage, rel=0.05)


@pytest.mark.full
@pytest.mark.parametrize("feeder", ["tfdata", "resident"])
def test_training_tells_its_memory_and_reuses_that_of_its_state(feeder, tmp_path):
    workdir, layers = tmp_path / "run", "conv 8 relu, flatten, dense 32 relu"
    flags = (f"--config.data.feeder={feeder}", "--config.train.epochs=1", "--config.train.rematerialize=segments")
    result = commands.run("main", *commands.SMALL, *flags, f"--config.model.layers={layers}", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    events = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (epoch,) = [event for event in events if event["kind"] == "epoch"]
    assert 100 < epoch["peak_memory_mib"] < 24_000
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("memory of a step: ")]
    donated = float(line.split(" MiB of which")[0].split()[-1])
    parameters = 48 * 48 * 8 * 32
    assert donated * 2**20 > 3 * 4 * parameters * 0.95  # Adam holds two moments of each
