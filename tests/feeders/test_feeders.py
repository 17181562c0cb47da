import collections
import functools
import itertools
import subprocess
import sys
import textwrap
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import augment, feeders
from fer_jax.errors import InputError
from fer_jax.feeders import sampler
from fer_jax.runtime import dispatch

SIZE, BATCH = 12, 8
POLICY = augment.Policy(
    flip_horizontal=0.5,
    flip_vertical=0.2,
    rotate_degrees=20,
    shift=0.1,
    zoom=0.2,
    shear_degrees=10,
    crop_px=11,
    brightness=0.2,
    contrast=0.3,
    erase=0.5,
)
FILLS = {"edge": POLICY, "zero": augment.Policy(rotate_degrees=30, shift=0.3, fill="zero")}


def make_faces(n=30, channels=1, **more):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, SIZE, SIZE, channels), dtype=np.uint8)
    return types.SimpleNamespace(images=images, labels=rng.integers(0, 7, n).astype(np.int32), **more)


FACES, COLOURED = make_faces(), make_faces(channels=3)
TARGETS = np.random.default_rng(1).dirichlet(np.ones(7), 30).astype(np.float32)
# one for all, so that its programs are compiled once
ORDER = sampler.Sampler(FACES.labels, classes=7, batch_size=BATCH, key=jax.random.key(3))


# The feeders where they change faces: that of tf.data then needs TensorFlow.
CHANGING = pytest.mark.parametrize("name", [pytest.param("tfdata", marks=pytest.mark.full), "resident"])


@pytest.fixture(scope="module")
def make(make_shardings):
    """Makes feeders; equal ones are one, so that its programs are compiled once."""

    @functools.cache
    def make(name, policy=POLICY, *, channels=1, devices=2, seed=4, steps_per_dispatch=0, targets=False):
        faces = COLOURED if channels == 3 else FACES
        return feeders.make(
            name,
            faces=make_faces(targets=TARGETS) if targets else faces,
            sampler=ORDER,
            policy=policy,
            key=jax.random.key(seed),
            shardings=make_shardings(devices),
            steps_per_dispatch=steps_per_dispatch,
            log_every_steps=4,
        )

    return make


def first(feeder, step, steps=3):
    """Returns some batches from a step on, as NumPy arrays."""
    batch, batches = jax.jit(feeder.batch), []
    for chunk in feeder.chunks(step, step + steps):
        rows = (
            [chunk.items]
            if chunk.steps == 1
            else [jax.tree.map(lambda x, i=i: x[i], chunk.items) for i in range(chunk.steps)]
        )
        batches += [batch(feeder.arrays, row) for row in rows]
    feeder.close()
    return jax.device_get(batches)


def assert_same(ours, theirs, greys):
    for one, other in zip(ours, theirs, strict=True):
        assert {name: value.dtype for name, value in one.items()} == {
            "image": np.uint8,
            "label": np.int32,
            "mask": np.float32,
        }
        np.testing.assert_array_equal(one["label"], other["label"])
        np.testing.assert_array_equal(one["mask"], np.ones(BATCH))
        off = np.abs(one["image"].astype(int) - other["image"])
        assert off.max() <= greys, np.unravel_index(off.argmax(), off.shape)
        assert (off > 0).mean() < 0.01


@pytest.mark.full
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", FILLS)
def test_both_feeders_deliver_the_same_augmented_batches(make, fill, channels):
    host, resident = (make(name, FILLS[fill], channels=channels) for name in ("tfdata", "resident"))
    for step in (0, 33):
        ours = first(resident, step)
        assert_same(ours, first(host, step), greys=1)
        plain = (COLOURED if channels == 3 else FACES).images[np.asarray(ORDER.indices(step, 3))]
        assert all((batch["image"] != some).mean() > 0.5 for batch, some in zip(ours, plain, strict=True))


@pytest.mark.parametrize("name", feeders.FEEDERS)
def test_without_augmentation_the_faces_come_as_they_are(make, name):
    feeder = make(name, augment.Policy())
    for step in (0, 5):
        picked = np.asarray(ORDER.indices(step, 3))
        expected = [
            {"image": FACES.images[some], "label": FACES.labels[some], "mask": np.ones(BATCH)} for some in picked
        ]
        assert_same(first(feeder, step), expected, greys=0)


@pytest.mark.parametrize("policy", [augment.Policy(), augment.Policy(flip_horizontal=0.5)], ids=["plain", "changed"])
@CHANGING
def test_targets_come_with_their_faces_and_change_nothing_else(make, name, policy):
    batches = first(make(name, policy, targets=True), 3)
    for batch, picked in zip(batches, np.asarray(ORDER.indices(3, 3)), strict=True):
        target = batch.pop("target")
        assert target.dtype == np.float32
        np.testing.assert_array_equal(target, TARGETS[picked])
    assert_same(batches, first(make(name, policy), 3), greys=0)


@CHANGING
def test_batches_follow_from_step_and_key_alone(make, name):
    batches = first(make(name), 2, 4)
    assert_same(batches, first(make(name), 2, 4), greys=0)
    assert_same(batches[2:], first(make(name), 4, 2), greys=0)
    other = first(make(name, seed=5), 2, 4)
    np.testing.assert_array_equal(batches[0]["label"], other[0]["label"])
    assert (batches[0]["image"] != other[0]["image"]).mean() > 0.3


def test_a_face_is_changed_anew_in_each_step(make):
    policy = augment.Policy(erase=1.0, erase_max_share=0.1)
    picked = np.zeros((2, BATCH), np.int32)
    uniform = [np.asarray(make("tfdata", policy)._draw(step, picked)) for step in (0, 1)]
    np.testing.assert_array_equal(uniform[0][1], uniform[1][0])
    assert (uniform[0][0] != uniform[0][1]).all()


@CHANGING
def test_alternating_flips_show_each_face_both_ways_in_two_epochs(make, name):
    """A face has one flip an epoch, the other one in the next; about half of the faces are flipped at first."""
    feeder = make(name, augment.Policy(flip_horizontal=0.5, flip_alternating=True))
    plan, shown = feeder._sampler, collections.defaultdict(list)
    for step, batch in enumerate(first(feeder, 0, 3 * plan.steps_per_epoch)):
        faces, epochs = np.asarray(plan.indices(step, 1))[0], np.asarray(plan.epochs(step))
        for face, epoch, image in zip(faces, epochs, np.asarray(batch["image"]), strict=True):
            plain = feeder._faces.images[face] if name == "tfdata" else np.asarray(feeder.arrays["images"][face])
            flipped = plain[:, ::-1]
            assert (image == flipped).all() or (image == plain).all()
            shown[face.item()].append((epoch.item(), bool((image == flipped).all())))
    for views in shown.values():
        assert {(epoch % 2, flip) for epoch, flip in views} in ({(0, False), (1, True)}, {(0, True), (1, False)})
    share = np.mean([dict(views)[0] for views in shown.values()])
    assert 0.2 < share < 0.8


@CHANGING
def test_batches_lie_on_the_devices_a_share_each(make, make_shardings, name):
    assert jax.device_count() == 2
    feeder = make(name, targets=True)
    chunk = next(feeder.chunks(0, 1))
    batch = jax.jit(feeder.batch)(feeder.arrays, chunk.items)
    for value in batch.values():
        assert value.sharding.is_equivalent_to(make_shardings(2)[0], value.ndim)
        assert {shard.data.shape[0] for shard in value.addressable_shards} == {BATCH // 2}
    assert batch.pop("target").shape == (BATCH, 7)
    assert_same(jax.device_get([batch]), first(make(name, devices=1), 0, 1), greys=0)


def count_step(state, batch, constants):
    """A training step whose state depends on the batches and their order."""
    labels = jnp.sum(batch["label"] * jnp.arange(1, BATCH + 1))
    grey = jnp.sum(batch["image"].astype(jnp.int32) * jnp.arange(SIZE).reshape(1, 1, -1, 1))
    sums = {"loss": grey.astype(jnp.float32), "count": jnp.sum(batch["mask"]), "anything": labels.astype(jnp.float32)}
    return (state * 31 + labels) % 10007, sums


DISPATCHES = pytest.mark.parametrize(
    ("name", "steps_per_dispatch"),
    [pytest.param("tfdata", 0, marks=pytest.mark.full), ("resident", 0), ("resident", 2), ("resident", 4)],
)


@pytest.fixture
def take(make_shardings):
    """Takes the steps from start to stop; returns (state, sums over all of them)."""
    replicated = make_shardings(2)[1]

    def take(feeder, spans):
        train_steps = dispatch.jit_steps(count_step, feeder, shardings=(replicated, replicated))
        state, totals = feeders.put(np.zeros([], np.int32), replicated), collections.Counter()
        for start, stop in spans:
            for chunk in feeder.chunks(start, stop):
                state, sums = train_steps(state, {"feeder": feeder.arrays}, chunk)
                totals.update({name: float(value) for name, value in sums.items()})
        return int(state), totals

    return take


@DISPATCHES
def test_train_steps_follow_the_plan(make, take, name, steps_per_dispatch):
    policy = augment.Policy(flip_horizontal=0.5)
    expected, totals = 0, collections.Counter()
    for batch in first(make("resident", policy), 2, 5):
        state, sums = count_step(expected, batch, {})
        expected = int(state)
        totals.update({key: float(value) for key, value in sums.items()})
    feeder = make(name, policy, steps_per_dispatch=steps_per_dispatch)
    for spans in ([(2, 6), (6, 7)], [(2, 7)]):  # and back to where it was, as a resumed run goes
        state, sums = take(feeder, spans)
        assert state == expected
        assert sums == pytest.approx(totals)


@DISPATCHES
def test_chunks_cover_their_span_and_end_where_a_line_is_logged(make, name, steps_per_dispatch):
    feeder = make(name, augment.Policy(), steps_per_dispatch=steps_per_dispatch)
    chunks = list(feeder.chunks(3, 13))
    assert np.cumsum([chunk.steps for chunk in chunks]).tolist() == [chunk.step - 3 for chunk in chunks]
    assert {7, 11, 13} <= {chunk.step for chunk in chunks}
    assert max(chunk.steps for chunk in chunks) == max(steps_per_dispatch, 1)
    feeder.close()


@DISPATCHES
def test_one_program_serves_all_steps(make, take, name, steps_per_dispatch):
    feeder, compiled = make(name, augment.Policy(flip_horizontal=0.5), steps_per_dispatch=steps_per_dispatch), []
    listener = lambda event, _, fun_name="", **__: "backend_compile" in event and compiled.append(fun_name)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        take(feeder, [(0, 4), (4, 8), (8, 12)])
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert sum(name in ("jit(one)", "jit(several)") for name in compiled) == 1


def test_blocks_of_the_plan_follow_each_other(make):
    _, second = itertools.islice(make("tfdata")._plan(5), 2)
    later = next(make("tfdata")._plan(5 + len(second["picked"])))
    for name, value in second.items():
        np.testing.assert_array_equal(value, later[name])


def test_each_process_plans_its_own_rows(make, monkeypatch):
    whole = next(make("tfdata")._plan(5))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    parts = []
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(next(make("tfdata")._plan(5)))
    assert whole.keys() == {"picked", "affine", "tone", "box"}
    for name, value in whole.items():
        assert parts[0][name].shape[1] == BATCH // 2
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts], axis=1), value)


@pytest.mark.parametrize("count", [30, 32, 5])
def test_padded_batches_hold_every_face_once(make_shardings, count):
    faces = types.SimpleNamespace(images=make_faces(32).images[:count], labels=make_faces(32).labels[:count])
    batches = list(feeders.padded_batches(faces, BATCH, make_shardings(2)[0]))
    assert len(batches) == -(-count // BATCH)
    assert all(value.shape[0] == BATCH for batch in batches for value in batch.values())
    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in ("image", "label", "mask")}
    np.testing.assert_array_equal(whole["mask"], np.arange(len(whole["mask"])) < count)
    np.testing.assert_array_equal(whole["image"][:count], faces.images)
    np.testing.assert_array_equal(whole["label"][:count], faces.labels)


def test_an_unknown_feeder_is_refused(make):
    with pytest.raises(InputError, match=r"data\.feeder is 'torch'; known are tfdata, resident"):
        make("torch")


@pytest.mark.full
def test_the_resident_feeder_needs_no_tensorflow():
    script = """
        import sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("tensorflow", "tensorflow_datasets", "keras"):
                    raise ImportError(f"refused {name}")

        sys.meta_path.insert(0, Refuse())
        import jax, numpy as np, types
        from fer_jax import augment, feeders
        from fer_jax.feeders import sampler
        from fer_jax.runtime import dispatch

        faces = types.SimpleNamespace(images=np.zeros((9, 8, 8, 1), np.uint8), labels=np.arange(9, dtype=np.int32))
        plan = sampler.Sampler(faces.labels, classes=9, batch_size=4, key=jax.random.key(0))
        mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        shardings = tuple(jax.sharding.NamedSharding(mesh, spec) for spec in (jax.P("data"), jax.P()))

        def make(name):
            policy, key = augment.Policy(rotate_degrees=9), jax.random.key(1)
            given = dict(faces=faces, sampler=plan, policy=policy, key=key, shardings=shardings, steps_per_dispatch=3)
            return feeders.make(name, **given)

        def step(state, batch, constants):
            return state + 1, {"count": batch["mask"].sum()}

        feeder = make("resident")
        (chunk,) = feeder.chunks(0, 3)
        train_steps = dispatch.jit_steps(step, feeder, shardings=(shardings[1], shardings[1]))
        state, sums = train_steps(jax.device_put(0, shardings[1]), {"feeder": feeder.arrays}, chunk)
        print(int(state), int(sums["count"]), sum(1 for _ in feeders.padded_batches(faces, 4, shardings[0])))
        try:
            make("tfdata").dataset()
        except ImportError as error:
            print(error)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines() == ["3 12 3", "refused tensorflow"], ran.stderr
