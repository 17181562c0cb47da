"""Views of a picture: what they show, and where it lies."""

import numpy as np
import pytest

from fer_jax.faces import views


def ramp(height, width):
    """Red grows with x and green with y, from 0 to 250 over the picture; blue says that it is the picture."""
    y, x = np.meshgrid(np.linspace(0, 250, height), np.linspace(0, 250, width), indexing="ij")
    return np.stack([x, y, np.full((height, width), 255)], -1).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "count"), [((300, 400), 1 + 6 + 35), ((401, 123), 1 + 3 + 14), ((97, 100), 1 + 9), ((1200, 900), 42)]
)
def test_a_view_shows_what_it_says(shape, count):
    found = list(views.cut(ramp(*shape), 64, 3))
    assert len(found) == count
    for view in found:
        rows, columns = np.nonzero(view.pixels[..., 2])
        places = (np.stack([columns, rows], -1) + 0.5) * view.step + view.origin
        shown = view.pixels[rows, columns, :2] * np.array(shape[::-1]) / 250
        tolerance = 1 + np.array(shape[::-1]) / 250 + view.step  # of the ramp, of its levels, of the edges
        assert (abs(places - shown) < tolerance).all()


@pytest.mark.parametrize("shape", [(300, 400), (401, 123), (500, 500)])
def test_a_face_of_up_to_half_a_tile_is_whole_in_one_view_of_its_level(shape):
    rng = np.random.default_rng(0)
    bounds = np.array([view.bounds for view in views.cut(np.zeros((*shape, 3), np.uint8), 64, 3)])
    for level in (1, 2):
        side = max(shape) / 2**level
        size = rng.uniform(0.1, 0.5, 200) * side
        corners = rng.uniform(0, 1, (200, 2)) * (np.array(shape[::-1]) - size[:, None])
        boxes = np.concatenate([corners, corners + size[:, None]], 1)
        within = (boxes[:, None, :2] >= bounds[:, :2]) & (boxes[:, None, 2:] <= bounds[:, 2:])
        of_level = abs(bounds[:, 2] - bounds[:, 0] - side) < 1e-6  # those in the midst of the picture
        of_level |= ~np.isfinite(bounds[:, [0, 2]]).all(1)
        assert within.all(-1)[:, of_level].any(1).all()


def test_shrinking_takes_means():
    picture = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    small, factor = views.shrink(picture, 900)
    assert factor == 4 and small.shape == (750, 1000, 3)
    means = picture.reshape(750, 4, 1000, 4, 3).mean((1, 3))
    assert abs(small - means).max() <= 1


def test_a_picture_that_fits_stays_as_it_is():
    picture = ramp(30, 40)
    small, step = views.fit(picture, 40)
    assert small is picture and step.tolist() == [1, 1, 1, 1]
    small, step = views.fit(ramp(333, 1001), 100)
    assert small.shape == (33, 100, 3)
    np.testing.assert_allclose(step, [10.01, 333 / 33] * 2)
    np.testing.assert_allclose(small[0, :, 0], np.linspace(0, 250, 100), atol=3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (7, 3)])
def test_pictures_of_few_px_have_views(shape):
    picture = np.full((*shape, 3), 9, np.uint8)
    assert all(view.pixels.max() == 9 for view in views.cut(picture, 64, 3))
    assert views.fit(picture, 100)[0].max() == 9
