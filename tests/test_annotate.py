"""What is drawn can be read on any background, lies at the faces, and hides none."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from fer_jax import annotate

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@dataclasses.dataclass(frozen=True)
class Face:
    box: tuple | None
    probs: dict
    uncertain: bool = False

    @property
    def top(self):
        return tuple(sorted(self.probs.items(), key=lambda item: -item[1])[:2])


def face(box, happy=0.9, **options):
    rest = {name: (1 - happy) / 6 for name in CLASSES}
    return Face(box, {**rest, "happy": happy}, **options)


BACKGROUNDS = {
    "white": np.full((480, 640, 3), 255, np.uint8),
    "black": np.zeros((480, 640, 3), np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8),
}


def luminance(pixels):
    """WCAG's relative luminance of sRGB."""
    shares = np.asarray(pixels, np.float64) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_text_has_the_contrast_that_is_asked_of_web_pages(name):
    drawn = annotate.draw(BACKGROUNDS[name], [face((100, 100, 120, 120))])
    changed = (drawn != BACKGROUNDS[name]).any(axis=2)
    assert not changed[300:, :].any() and not changed[:, 500:].any()
    plate = drawn[100:220, 240:420]  # the chart, right of the box
    bright = np.quantile(luminance(plate), 0.995)
    dark = np.quantile(luminance(plate), 0.5)
    assert (bright + 0.05) / (dark + 0.05) > 4.5


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_the_box_can_be_seen_and_the_face_is_left_as_it_was(name):
    before = BACKGROUNDS[name]
    drawn = annotate.draw(before, [face((100, 100, 120, 120))])
    assert np.array_equal(drawn[106:214, 106:214], before[106:214, 106:214])
    edge = luminance(drawn[150:170, 92:106])
    assert edge.max() > 0.9 and edge.min() < 0.05


def accent_width(drawn, part=np.s_[:, :]):
    rows = (np.abs(drawn[part].astype(int) - annotate.ACCENT).max(axis=2) <= 2).sum(axis=1)
    return rows.max()


def test_the_bar_is_as_long_as_the_probability():
    widths = [
        accent_width(annotate.draw(BACKGROUNDS["black"], [face((100, 100, 120, 120), happy)]))
        for happy in (0.3, 0.6, 0.9)
    ]
    assert widths[1] == pytest.approx(2 * widths[0], abs=2) and widths[2] == pytest.approx(3 * widths[0], abs=3)


@pytest.mark.parametrize(
    "box", [(0, 0, 100, 100), (540, 0, 100, 100), (0, 380, 100, 100), (540, 380, 100, 100), (-30, -30, 90, 90)]
)
def test_boxes_at_the_edge_keep_their_chart(box):
    drawn = annotate.draw(BACKGROUNDS["black"], [face(box)])
    assert drawn.shape == (480, 640, 3)
    assert accent_width(drawn) > 40


def test_charts_hide_no_other_face():
    boxes = [(60 + 150 * column, 60 + 150 * row, 90, 90) for row in range(2) for column in range(4)]
    before = BACKGROUNDS["noise"]
    drawn = annotate.draw(before, [face(box) for box in boxes])
    for x, y, width, height in boxes:
        inside = np.s_[y + 30 : y + height - 30, x + 30 : x + width - 30]
        assert np.array_equal(drawn[inside], before[inside])


def test_a_small_picture_that_is_a_face_is_enlarged_and_has_its_chart_beside_it():
    pixels = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    drawn = annotate.draw(pixels, [face(None)])
    enlarged = np.asarray(Image.fromarray(pixels).resize((336, 336), Image.Resampling.BICUBIC))
    assert np.array_equal(drawn[:336, :336], enlarged)
    assert accent_width(drawn, np.s_[:, 336:]) > 40


def test_boxes_of_a_small_picture_are_enlarged_with_it():
    drawn = luminance(annotate.draw(np.zeros((100, 100, 3), np.uint8), [face((40, 40, 50, 50))]))
    assert drawn.shape == (400, 400)
    assert (drawn[200:300, 155:170] > 0.9).any(axis=1).all() and (drawn[200:300, 350:365] > 0.9).any(axis=1).all()


def test_labels_differ_by_class_doubt_and_number():
    drawn = [
        annotate.draw(BACKGROUNDS["black"], faces, tracks=tracks)[60:98, :]
        for faces, tracks in (
            ([face((100, 100, 120, 120))], None),
            ([face((100, 100, 120, 120), uncertain=True)], None),
            ([face((100, 100, 120, 120))], [7]),
            ([face((100, 100, 120, 120), 0.1)], None),
        )
    ]
    assert all(not np.array_equal(drawn[i], drawn[j]) for i in range(4) for j in range(i))


def test_without_faces_the_picture_stays():
    assert np.array_equal(annotate.draw(BACKGROUNDS["noise"], []), BACKGROUNDS["noise"])
