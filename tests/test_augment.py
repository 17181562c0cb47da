import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from fer_jax import augment
from fer_jax import config as config_lib
from fer_jax.errors import InputError

SIZE = 16
HIGH = np.float32(1) - np.finfo(np.float32).epsneg  # the largest uniform number: the end of every range
APPLY = jax.jit(augment.apply, static_argnums=0)
EVERYTHING = {
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "rotate_degrees": 30.0,
    "shift": 0.1,
    "zoom": 0.2,
    "shear_degrees": 10.0,
    "crop_px": 13,
    "brightness": 0.3,
    "contrast": 0.4,
    "erase": 0.5,
}


def draw_faces(n=6, seed=0, size=SIZE, channels=1):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def draw_uniform(n=6, seed=1):
    return np.random.default_rng(seed).random((n, augment.DRAWS), np.float32)


def change(policy, faces, uniform):
    chosen = augment.parameters(policy, jnp.asarray(uniform), faces.shape[1])
    return np.asarray(APPLY(policy, jnp.asarray(faces), chosen))


def at_middle(**draws):
    """Uniform numbers of one face in the middle of their ranges, but for those given by their place: d2=1.0."""
    uniform = np.full((1, augment.DRAWS), 0.5, np.float32)
    for name, value in draws.items():
        uniform[0, int(name[1:])] = min(value, HIGH)
    return uniform


def bright_dot(row, column, size=SIZE + 1):
    """A dot of 3x3 pixels, so that its centroid is exact after resampling; the side is odd, so there is a centre."""
    face = np.zeros((1, size, size, 1), np.uint8)
    face[0, row - 1 : row + 2, column - 1 : column + 2] = 200
    return face


def centroid(face):
    """Returns (row, column) from the centre of the face."""
    return np.array(ndimage.center_of_mass(face[0, :, :, 0].astype(float))) - (face.shape[1] - 1) / 2


@pytest.mark.parametrize(("fill", "mode"), [("edge", "nearest"), ("zero", "grid-constant")])
def test_geometry_is_scipys_map_coordinates(fill, mode):
    geometry = {name: value for name, value in EVERYTHING.items() if name not in ("brightness", "contrast", "erase")}
    policy = augment.Policy(**geometry, fill=fill)
    faces, uniform = draw_faces(24), draw_uniform(24)
    ours = change(policy, faces, uniform)
    row, column = np.mgrid[:SIZE, :SIZE]
    near = []
    for face, changed, numbers in zip(faces, ours, augment.parameters(policy, uniform, SIZE)["affine"], strict=True):
        a, b, c, d, e, f = numbers.astype(float)
        places = [d * column + e * row + f, a * column + b * row + c]
        expected = ndimage.map_coordinates(face[..., 0].astype(float), places, order=1, mode=mode)
        near.append(np.abs(changed[..., 0] - expected))
    assert np.max(near) < 0.51  # rounding to whole greys
    assert ours.dtype == np.uint8


def test_no_policy_changes_nothing():
    faces = draw_faces()
    assert augment.apply(augment.Policy(), faces, {}) is faces
    assert not augment.Policy().active


def test_an_active_policy_at_the_middle_of_its_ranges_changes_nothing():
    policy = augment.Policy(**EVERYTHING | {"crop_px": 0, "erase": 0.1, "flip_horizontal": 0.1, "flip_vertical": 0.1})
    faces = draw_faces(1)
    np.testing.assert_array_equal(change(policy, faces, at_middle()), faces)


@pytest.mark.parametrize(("field", "axis"), [("flip_horizontal", 2), ("flip_vertical", 1)])
def test_flips_are_exact(field, axis):
    faces, uniform = draw_faces(), draw_uniform()
    np.testing.assert_array_equal(change(augment.Policy(**{field: 1.0}), faces, uniform), np.flip(faces, axis))


@pytest.mark.parametrize(("field", "axis"), [("flip_horizontal", 2), ("flip_vertical", 1)])
def test_flips_happen_with_their_probability(field, axis):
    faces = np.repeat(draw_faces(1, size=4), 4000, axis=0)
    changed = change(augment.Policy(**{field: 0.3}), faces, draw_uniform(4000))
    flipped = (changed == np.flip(faces, axis)).all(axis=(1, 2, 3))
    assert ((changed == faces).all(axis=(1, 2, 3)) ^ flipped).all()
    assert stats.binomtest(int(flipped.sum()), 4000, 0.3).pvalue > 1e-4


def test_rotation_turns_about_the_centre_by_up_to_its_angle():
    policy = augment.Policy(rotate_degrees=30)
    right = bright_dot(8, 13)
    for draw, turned in ((0.0, -30), (0.75, 15), (1.0, 30)):
        row, column = centroid(change(policy, right, at_middle(d2=draw)))
        assert np.isclose(np.hypot(row, column), 5, atol=0.1)
        assert np.isclose(np.degrees(np.arctan2(-row, column)), turned, atol=1)
    middle = bright_dot(8, 8)
    np.testing.assert_allclose(centroid(change(policy, middle, at_middle(d2=1.0))), 0, atol=0.01)


def test_shift_moves_each_axis_by_itself_up_to_a_share_of_the_side():
    policy = augment.Policy(shift=2 / 17)
    face = bright_dot(8, 8)
    np.testing.assert_allclose(centroid(change(policy, face, at_middle(d3=0.0))), [0, 2], atol=0.01)
    np.testing.assert_allclose(centroid(change(policy, face, at_middle(d3=1.0))), [0, -2], atol=0.01)
    np.testing.assert_allclose(centroid(change(policy, face, at_middle(d4=0.0))), [2, 0], atol=0.01)
    np.testing.assert_allclose(centroid(change(policy, face, at_middle(d4=0.25))), [1, 0], atol=0.01)


@pytest.mark.parametrize(("draw", "scale"), [(1.0, 1.25), (0.0, 0.75)])
def test_zoom_over_one_enlarges_about_the_centre(draw, scale):
    policy = augment.Policy(zoom=0.25)
    np.testing.assert_allclose(
        centroid(change(policy, bright_dot(8, 12), at_middle(d5=draw))), [0, 4 * scale], atol=0.15
    )
    row, column = np.mgrid[-16:17, -16:17]
    disc = (200 * (np.hypot(row, column) < 8)).astype(np.uint8)[None, :, :, None]
    grown = change(policy, disc, at_middle(d5=draw)).sum() / disc.sum()
    assert np.isclose(grown, scale**2, rtol=0.05)


def test_shear_moves_rows_sideways_by_their_height():
    policy = augment.Policy(shear_degrees=20)
    for row in (3, 8, 13):
        moved = centroid(change(policy, bright_dot(row, 8), at_middle(d6=0.0)))
        np.testing.assert_allclose(moved, [row - 8, np.tan(np.radians(20)) * (row - 8)], atol=0.05)


@pytest.mark.parametrize("corner", [(0, 0), (3, 8), (8, 5)])
def test_a_crop_is_a_window_at_full_size(corner):
    top, left = corner
    face = draw_faces(1)
    changed = change(augment.Policy(crop_px=8), face, at_middle(d7=left / 8, d8=top / 8))
    window = face[0, top : top + 8, left : left + 8, 0].astype(float)
    expected = ndimage.zoom(window, 2, order=1, mode="nearest", grid_mode=True)
    # at the rim of the window the faces' own pixels go on, where SciPy repeats the last one
    np.testing.assert_allclose(changed[0, 1:-1, 1:-1, 0], expected[1:-1, 1:-1], atol=0.51)


@pytest.mark.parametrize("fill", augment.FILLS)
def test_each_channel_of_an_rgb_face_moves_as_a_grey_face_would(fill):
    geometry = {name: value for name, value in EVERYTHING.items() if name not in ("brightness", "contrast")}
    policy, faces, uniform = augment.Policy(**geometry, fill=fill), draw_faces(channels=3), draw_uniform()
    changed = change(policy, faces, uniform)
    assert changed.shape == faces.shape and changed.dtype == np.uint8
    for channel in range(3):
        alone = change(policy, faces[..., channel : channel + 1], uniform)
        np.testing.assert_array_equal(changed[..., channel : channel + 1], alone)


@pytest.mark.parametrize("channels", [1, 3])
def test_tone_is_a_factor_about_the_mean_and_an_added_grey(channels):
    policy = augment.Policy(brightness=0.3, contrast=0.5)
    faces, uniform = draw_faces(channels=channels) // np.arange(1, channels + 1, dtype=np.uint8), draw_uniform()
    spread = 2 * uniform.astype(float) - 1
    x = faces.astype(float)
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    factor, added = 1 + 0.5 * spread[:, 10], 0.3 * 255 * spread[:, 9]
    expected = (x - mean) * factor[:, None, None, None] + mean + added[:, None, None, None]
    np.testing.assert_allclose(change(policy, faces, uniform), np.clip(expected, 0, 255), atol=0.51)


def test_erased_boxes_have_the_papers_sizes_and_happen_with_their_probability():
    policy = augment.Policy(erase=0.4, erase_max_share=0.25)
    top, left, bottom, right, grey = augment.parameters(policy, draw_uniform(5000), 48)["box"].T
    height, width = bottom - top, right - left
    happens = height * width > 0
    assert stats.binomtest(int(happens.sum()), 5000, 0.4).pvalue > 1e-4
    assert (top >= 0).all() and (left >= 0).all() and (bottom <= 48).all() and (right <= 48).all()
    height, width, share = height[happens], width[happens], (height * width / 48**2)[happens]
    slack = (height + width + 1) / 2 / 48**2  # of rounding two sides
    assert (share > 0.02 - slack).all() and (share < 0.25 + slack).all()
    assert stats.kstest(share, stats.uniform(0.02, 0.23).cdf).statistic < 0.03
    assert (height / width < 4.5).all() and (height / width > 1 / 4.5).all()
    assert 0.45 < (height > width).mean() < 0.55
    assert {0, 255} <= set(grey.astype(int)) <= set(range(256))
    for first, end in ((top, bottom), (left, right)):
        small = (end - first > 0) & (end - first < 10)
        assert first[small].min() == 0 and end[small].max() == 48


@pytest.mark.parametrize("channels", [1, 3])
def test_an_erased_box_is_one_grey_and_the_rest_stays(channels):
    faces = draw_faces(channels=channels)
    policy = augment.Policy(erase=1.0)
    uniform = draw_uniform()
    boxes = augment.parameters(policy, uniform, SIZE)["box"].astype(int)
    expected = faces.copy()
    for face, (top, left, bottom, right, grey) in zip(expected, boxes, strict=True):
        face[top:bottom, left:right] = grey
    np.testing.assert_array_equal(change(policy, faces, uniform), expected)


def test_the_largest_boxes_fit_the_face():
    uniform = draw_uniform(2000)
    uniform[:, 12] = HIGH
    top, left, bottom, right, _ = augment.parameters(augment.Policy(erase=1.0, erase_max_share=1.0), uniform, 48)[
        "box"
    ].T
    assert (bottom - top).max() == 48
    assert min(top.min(), left.min()) == 0
    assert max(bottom.max(), right.max()) == 48


def columns(**fields):
    """Returns which uniform numbers a policy's outcome depends on."""
    policy, base = augment.Policy(**fields), draw_uniform(64)
    outcome = augment.parameters(policy, base, SIZE)
    used = set()
    for column in range(augment.DRAWS):
        other = base.copy()
        other[:, column] = draw_uniform(64, seed=2)[:, column]
        changed = augment.parameters(policy, other, SIZE)
        empty = (outcome["box"][:, 0] == outcome["box"][:, 2]) & (changed["box"][:, 0] == changed["box"][:, 2])
        outcomes = ((outcome[name], changed[name]) for name in ("affine", "tone"))
        if any((a != b).any() for a, b in outcomes) or (outcome["box"] != changed["box"])[~empty].any():
            used.add(column)
    return used


def test_each_draw_belongs_to_one_part():
    assert columns() == set()
    used = {name: columns(**{name: value}) for name, value in EVERYTHING.items()}
    assert all(used.values())
    assert sum(map(len, used.values())) == len(set().union(*used.values())) == augment.DRAWS


@pytest.mark.parametrize("name", EVERYTHING)
def test_switching_one_part_on_leaves_the_others_alone(name):
    kind = {"brightness": "tone", "contrast": "tone", "erase": "box"}.get(name, "affine")
    uniform = draw_uniform()
    without = augment.parameters(augment.Policy(**EVERYTHING | {name: 0}), uniform, SIZE)
    with_all = augment.parameters(augment.Policy(**EVERYTHING), uniform, SIZE)
    assert (without[kind] != with_all[kind]).any()
    for other in {"affine", "tone", "box"} - {kind}:
        np.testing.assert_array_equal(without[other], with_all[other])


def test_numpy_and_jax_draw_the_same():
    policy, uniform = augment.Policy(**EVERYTHING), draw_uniform(50)
    host, device = augment.parameters(policy, uniform, 48), augment.parameters(policy, jnp.asarray(uniform), 48)
    for name, value in host.items():
        assert isinstance(value, np.ndarray) and isinstance(device[name], jax.Array)
        assert value.dtype == device[name].dtype == np.float32
        np.testing.assert_allclose(device[name], value, rtol=1e-4, atol=1e-4)


def test_the_policys_fields_and_defaults_are_those_of_the_config():
    section = config_lib.get_default().augment
    fields = section.to_dict()
    assert [fields.pop(name) for name in ("fixed_views", "mixup_alpha", "cutmix_alpha")] == [0, 0, 0]
    assert dataclasses.asdict(augment.Policy()) == fields
    section.zoom = 0.3
    assert augment.make(section, 48) == augment.Policy(zoom=0.3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flip_alternating": True}, "augment.flip_alternating flips half of the faces in each epoch: set"),
        ({"flip_horizontal": 1.5}, "augment.flip_horizontal is 1.5: give 0 to 1 (probability"),
        ({"flip_vertical": -0.1}, "augment.flip_vertical is -0.1: give 0 to 1"),
        ({"erase": 2.0}, "augment.erase is 2.0: give 0 to 1"),
        ({"shift": 1.0}, "augment.shift is 1.0: give 0 to under 1"),
        ({"zoom": 20.0}, "augment.zoom is 20.0: give 0 to under 1"),
        ({"contrast": -0.5}, "augment.contrast is -0.5: give 0 to under 1"),
        ({"brightness": 32.0}, "augment.brightness is 32.0: give 0 to under 1"),
        ({"rotate_degrees": -10.0}, "augment.rotate_degrees is -10.0: give 0 or more"),
        ({"shear_degrees": 90.0}, "augment.shear_degrees is 90.0: give 0 to under 90"),
        ({"erase_max_share": 0.01}, "augment.erase_max_share is 0.01: give 0.02 to 1"),
        ({"crop_px": -1}, "augment.crop_px is -1: give 0 or more (a random crop of this side"),
        ({"crop_px": 49}, "augment.crop_px is 49, more than the face's 48 pixels"),
        ({"fill": "reflect"}, "augment.fill is 'reflect'; known are edge, zero"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(fields, message):
    section = config_lib.get_default().augment
    section.update(fields)
    with pytest.raises(InputError) as caught:
        augment.make(section, 48)
    assert message in str(caught.value)


@pytest.mark.full
@pytest.mark.parametrize("channels", [1, 3])
def test_fixed_views_change_each_face_by_its_own_draw_and_always_the_same(monkeypatch, channels):
    images = draw_faces(5, size=48, channels=channels)
    policy, key = augment.Policy(rotate_degrees=20.0, flip_horizontal=0.5), jax.random.key(3)
    views = augment.fixed_views(policy, images, key, 2)
    assert views.shape == (10, 48, 48, channels) and views.dtype == np.uint8
    monkeypatch.setattr(augment, "VIEW_VALUES", 2 * 48 * 48)  # how many at a time makes no difference
    np.testing.assert_array_equal(views, augment.fixed_views(policy, images, key, 2))
    assert not np.array_equal(views[:5], views[5:])
    for view in (0, 1):
        uniform = jax.random.uniform(jax.random.fold_in(key, view), (5, augment.DRAWS))
        expected = augment.apply(policy, images, augment.parameters(policy, uniform, 48))
        np.testing.assert_array_equal(views[5 * view :][:5], expected)
    some = augment.fixed_views(policy, images, key, 2, faces=[4, 1])
    np.testing.assert_array_equal(some, views[[4, 1, 9, 6]])


@pytest.mark.parametrize(
    ("views", "message"), [(-1, "augment.fixed_views is -1: give 0 or more"), (3, "needs a change to make")]
)
def test_fixed_views_that_make_no_sense_are_refused(views, message):
    section = config_lib.get_default().augment
    section.fixed_views = views
    with pytest.raises(InputError, match=message):
        augment.make(section, 48)
