"""Cropping, on pictures whose values say where they lie: r = 2 x, g = 2 y in px."""

import math

import numpy as np
import pytest

from fer_jax import faces
from fer_jax.faces import geometry


@pytest.fixture(scope="module")
def ramp():
    """uint8 [100, 120, 3]: at the middle of a px, red is twice its x, green twice its y."""
    y, x = np.mgrid[:100, :120] + 0.5
    return np.stack([2 * x, 2 * y, np.zeros_like(x)], -1).astype(np.uint8)


def where(picture):
    """Returns x, y [H, W] of the ramp."""
    return picture[..., 0] / 2, picture[..., 1] / 2


def expected(x, y, side, tilt, size_px):
    """Returns x, y [S, S] of the px of a square."""
    v, u = (np.mgrid[:size_px, :size_px] + 0.5 - size_px / 2) * side / size_px
    return x + math.cos(tilt) * u - math.sin(tilt) * v, y + math.sin(tilt) * u + math.cos(tilt) * v


@pytest.mark.parametrize("size_px", [8, 20, 40, 48])
@pytest.mark.parametrize("box", [(30, 20, 40, 40), (41.3, 37.7, 20, 20), (35, 25, 50, 30)])
def test_the_crop_of_a_ramp_is_where_the_box_is(ramp, box, size_px):
    x, y = where(faces.crop(ramp, faces.Face(box, 1.0), size_px))
    x0, y0 = expected(box[0] + box[2] / 2, box[1] + box[3] / 2, (box[2] + box[3]) / 2, 0, size_px)
    assert abs(x - x0).max() < 1.1 and abs(y - y0).max() < 1.1
    assert abs((x - x0).mean()) < 0.6 and abs((y - y0).mean()) < 0.6  # whole numbers in both the ramp and the crop


def test_the_framing_moves_and_scales_the_square(ramp):
    face = faces.Face((40, 30, 20, 20), 1.0, framing=faces.Framing(1.5, 0.1, -0.2))
    assert faces.square(face) == pytest.approx((52, 36, 30))
    x, y = where(faces.crop(ramp, face, 30))
    x0, y0 = expected(52, 36, 30, 0, 30)
    assert abs(x - x0).max() < 1.1 and abs(y - y0).max() < 1.1


@pytest.mark.parametrize("degrees", [-60, -20, 10, 45, 80])
def test_aligned_eyes_are_level(ramp, degrees):
    tilt = math.radians(degrees)
    eyes = tuple((50 + sign * 8 * math.cos(tilt), 45 + sign * 8 * math.sin(tilt)) for sign in (-1, 1))
    face = faces.Face((35, 30, 30, 30), 1.0, eyes, faces.Framing(1.2, 0.05, -0.1))
    assert face.tilt == pytest.approx(tilt)
    centre = expected(50, 45, 2, tilt, 1)  # of the box
    shift = 30 * np.array([math.cos(tilt) * 0.05 + math.sin(tilt) * 0.1, math.sin(tilt) * 0.05 - math.cos(tilt) * 0.1])
    x, y = where(faces.crop(ramp, face, 36, align=True))
    x0, y0 = expected(centre[0].item() + shift[0], centre[1].item() + shift[1], 36, tilt, 36)
    assert abs(x - x0).max() < 1.6 and abs(y - y0).max() < 1.6
    upright = faces.crop(ramp, face, 36, align=False)
    assert (faces.crop(ramp, faces.Face(face.box, 1.0, None, face.framing), 36, align=True) == upright).all()


def test_points_of_a_square_are_found_again():
    place, tilt = (50.0, 40.0, 30.0), 0.3
    points = np.array([[0.5, 0.5], [9.5, 3.5]])
    x, y = expected(*place, tilt, 10)
    located = geometry.locate(points, place, tilt, 10)
    np.testing.assert_allclose(located, [[x[0, 0], y[0, 0]], [x[3, 9], y[3, 9]]])


@pytest.mark.parametrize("box", [(-30, -30, 60, 60), (90, 70, 80, 80), (-200, 10, 20, 20), (50, 300, 40, 40)])
def test_the_edge_is_repeated_outside_of_the_picture(ramp, box):
    x, y = where(faces.crop(ramp, faces.Face(box, 1.0), 20))
    x0, y0 = expected(box[0] + box[2] / 2, box[1] + box[3] / 2, box[2], 0, 20)
    inside = box[2] / 20 + 1.1  # what is shrunk together there
    assert abs(x - x0.clip(0, 120)).max() < inside and abs(y - y0.clip(0, 100)).max() < inside


def test_what_is_shrunk_is_averaged():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    for side in (200, 333, 390):
        small = faces.crop(stripes, faces.Face((5, 5, side, side), 1.0), 48)
        assert abs(small.astype(int) - 127).max() < 40
    same = faces.crop(stripes, faces.Face((10, 10, 40, 40), 1.0), 40)
    assert (same == stripes[10:50, 10:50]).all()
