import jax
import numpy as np
import pytest
import tiny

from fer_jax import freezing, inference, steps, train
from fer_jax import params as params_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

BACKBONE = {"optim.freeze": ("backbone",)}
TWO_PHASES = {
    **BACKBONE,
    "train.epochs": 4,
    "optim.fine_tune.after_epochs": 2,
    "optim.fine_tune.unfreeze_from": "top_conv",
    "optim.fine_tune.learning_rate": 5e-4,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def train_once(tmp_path_factory, cache):
    """Trains each set of fields once; gives (the latest checkpoint, the history, files of features that it wrote)."""
    done = {}

    def train_once(**fields):
        key = repr(sorted(fields.items()))
        if key not in done:
            done[key] = run(tmp_path_factory.mktemp("run"), cache, **fields)
        return done[key]

    return train_once


def run(folder, cache, on_epoch=None, **fields):
    before = set(cache.glob("features/*"))
    config = tiny.make_config(cache, **fields)
    train.train(config, folder, on_epoch=on_epoch)
    return inference.load(folder, "latest"), workdir_lib.read_history(folder), set(cache.glob("features/*")) - before


def initial(config):
    plan = freezing.make_phases(config, 7, image_shape=(48, 48, 1), steps_per_epoch=11)[0]
    key = jax.random.split(jax.random.key(config.seed), 4)[0]
    return jax.jit(lambda: steps.init_state(plan, key))()


def changed_layers(before, after):
    """Returns the paths of the layers of which a value differs."""
    before, after = (params_lib.layers(jax.device_get(tree)) for tree in (before, after))
    return {path for path in before if any(np.any(before[path][k] != after[path][k]) for k in before[path])}


HEAD = {"head/dense", "head/dense_1"}
STEM, TOP = {"backbone/stem_conv", "backbone/stem_bn"}, {"backbone/top_conv", "backbone/top_bn"}


@pytest.mark.parametrize(
    "keep", [pytest.param(True, marks=pytest.mark.full), False], ids=["cached features", "plain path"]
)
def test_a_frozen_backbone_keeps_its_weights_and_its_statistics_to_the_bit(train_once, keep):
    model, _, files = train_once(**BACKBONE, **{"train.cache_features": keep})
    before = initial(model.config)
    assert changed_layers(before.params, model.variables["params"]) == HEAD
    assert changed_layers(before.batch_stats, model.variables["batch_stats"]) == set()
    assert len(files) == (2 if keep else 0)


VIEWS = {"augment.fixed_views": 2, "augment.rotate_degrees": 10.0, "train.epochs": 1}


@pytest.mark.full
@pytest.mark.parametrize("fields", [{}, VIEWS], ids=["plain faces", "fixed views"])
def test_cached_features_give_the_same_training_as_the_plain_path(train_once, fields):
    (cached, one, files), (plain, two, _) = (
        train_once(**BACKBONE, **fields, **{"train.cache_features": on}) for on in (True, False)
    )
    assert files
    assert one[-1]["step"] == 22  # two epochs of 700 faces, or one of twice as many
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        np.testing.assert_allclose([epoch[name] for epoch in one], [epoch[name] for epoch in two], rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), cached.variables, plain.variables)


@pytest.mark.full
def test_frozen_statistics_may_be_updated(train_once):
    model, _, files = train_once(**BACKBONE, **{"optim.frozen_statistics": "updated"})
    assert not files  # features that change are not kept
    before = initial(model.config)
    assert changed_layers(before.params, model.variables["params"]) == HEAD
    statistics = changed_layers(before.batch_stats, model.variables["batch_stats"])
    assert statistics == {"backbone/stem_bn", "backbone/top_bn"}


@pytest.mark.full
@pytest.mark.parametrize(
    ("fields", "still"),
    [({}, STEM), ({"optim.fine_tune.freeze": ("backbone/.*_bn",)}, STEM | {"backbone/top_bn"})],
    ids=["from a layer on", "without normalization"],
)
def test_the_second_phase_trains_from_the_named_layer_on_at_its_own_rate(train_once, fields, still):
    model, history, _ = train_once(**TWO_PHASES, **fields)
    config = model.config
    everything = HEAD | STEM | TOP
    assert changed_layers(initial(config).params, model.variables["params"]) == everything - still
    assert changed_layers(initial(config).batch_stats, model.variables["batch_stats"]) == (
        {"backbone/stem_bn", "backbone/top_bn"} - still
    )
    rates = [epoch["learning_rate"] for epoch in history]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 5e-4, 5e-4])
    assert [epoch["step"] for epoch in history] == [11, 22, 33, 44]


@pytest.mark.full
@pytest.mark.parametrize("epoch", [2, 3], ids=["between the phases", "in the second"])
def test_a_run_that_was_cut_off_resumes_in_its_phases(tmp_path, train_once, cache, epoch):
    whole, one, _ = train_once(**TWO_PHASES)

    def cut_off(done, scores):
        del scores
        if done == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, cache, cut_off, **TWO_PHASES)
    resumed, two, _ = run(tmp_path, cache, **TWO_PHASES)
    assert [e["validation_loss"] for e in one] == [e["validation_loss"] for e in two]
    jax.tree.map(np.testing.assert_array_equal, whole.variables, resumed.variables)


@pytest.mark.full
def test_early_stopping_in_the_first_phase_leads_to_the_second(tmp_path, cache):
    fields = {**TWO_PHASES, "optim.fine_tune.after_epochs": 5, "train.epochs": 7, "optim.learning_rate": 1e-9}
    patience = {"train.early_stopping.patience_epochs": 1, "train.early_stopping.min_delta": 0.5}
    _, history, _ = run(tmp_path, cache, **fields, **patience)
    assert [epoch["epoch"] for epoch in history][:3] == [1, 2, 6]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optim.freeze": ("backbon",)}, "'backbon' matches no layer; layers are, for instance, backbone, head"),
        ({"optim.freeze": ("backbone/(",)}, "is not a regular expression"),
        ({"optim.freeze": (".*",)}, "freezes every layer"),
        ({"optim.freeze_first_layers": 3}, f"Keras has no network '{tiny.NAME}': use optim.freeze"),
        ({"optim.freeze_first_layers": 1, "model.name": "vgg16"}, "the first layer with weights is 1"),
        ({"optim.frozen_statistics": "old"}, "known are stored, updated"),
        (
            {**TWO_PHASES, "optim.fine_tune.unfreeze_from": "conv9"},
            f"{tiny.NAME} has no layer 'conv9' with weights; it has stem_conv",
        ),
        ({**TWO_PHASES, "optim.fine_tune.after_epochs": 4}, "after_epochs is 4 of train.epochs 4: give 1 to 3"),
        ({**TWO_PHASES, "optim.freeze": ()}, "nothing to unfreeze"),
        ({**TWO_PHASES, "optim.fine_tune.learning_rate": 0.0}, "give more than 0"),
        ({"model.size_px": 4}, "needs 8 or more"),
    ],
)
def test_what_cannot_work_is_refused_with_the_mend(tmp_path, fields, message):
    with pytest.raises(InputError) as caught:
        freezing.make_phases(tiny.make_config(tmp_path, **fields), 7, image_shape=(48, 48, 1), steps_per_epoch=11)
    assert message in str(caught.value)
