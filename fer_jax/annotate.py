"""Draws predictions on pictures: a box, the label, and a bar chart of the probabilities for each face."""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LEAST_SIDE_PX = 320  # smaller pictures are enlarged to make room for text
LINES_PER_SIDE = 34  # lines of text in the shorter side
FONT_PX = (12, 44)
DARK, LIGHT, ACCENT, DIM = (17, 24, 39), (255, 255, 255), (255, 176, 46), (156, 163, 175)
PLATE_OPACITY = 0.82  # with less, white text on it would be hard to read over white parts of the picture
MAX_HIDDEN = 0.02  # of a chart, over other faces and charts; charts that would hide more are omitted


def draw(pixels, faces, *, tracks=None) -> np.ndarray:
    """Returns the picture with the predictions drawn on it, uint8 [H', W', 3].

    A picture smaller than LEAST_SIDE_PX is enlarged by an integer factor. If a face is the whole picture (its box is
    None), its chart is placed to the right of the picture.

    Args:
      pixels: uint8 [H, W, 3].
      faces: `recognizer.FacePrediction`s, with boxes in pixels of the picture.
      tracks: the faces' numbers, written before the label; None: no numbers.
    """
    factor = max(1, math.ceil(LEAST_SIDE_PX / min(pixels.shape[:2])))
    height, width = (side * factor for side in pixels.shape[:2])
    picture = Image.fromarray(pixels)
    if factor > 1:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    font = _font(round(min(max(min(width, height) / LINES_PER_SIDE, FONT_PX[0]), FONT_PX[1])))
    labels = [_label(face, number) for face, number in zip(faces, tracks or [None] * len(faces), strict=True)]
    whole = [place for place, face in enumerate(faces) if face.box is None]
    for place in whole:
        picture = _beside(picture, faces[place], labels[place], font)
    boxes = {
        place: tuple(value * factor for value in face.box) for place, face in enumerate(faces) if face.box is not None
    }
    for box in boxes.values():
        _draw_box(picture, box, font.size)
    taken = [*boxes.values()]
    for place, box in boxes.items():
        taken.append(_draw_label(picture, box, labels[place], font))
    for place, box in boxes.items():
        chart = _chart_size(faces[place], font)
        spot = _free_spot(chart, box, [other for other in taken if other is not box], picture.size)
        if spot is not None:
            _draw_chart(picture, spot, faces[place], font)
            taken.append((*spot, *chart))
    return np.asarray(picture)


@functools.cache
def _font(size):
    return ImageFont.load_default(size)


def _label(face, number):
    name, prob = face.top[0]
    return f"{f'{number}: ' if number else ''}{name}{'?' if face.uncertain else ''} {_percent(prob)}"


def _percent(prob):
    return f"{100 * prob:.0f}%"


def _line_px(font):
    return math.ceil(font.size * 1.3)


def _draw_box(picture, box, unit):
    x, y, width, height = box
    line = max(2, round(unit / 7))
    brush = ImageDraw.Draw(picture)
    for colour, grown, thick in ((DARK, line, 3 * line), (LIGHT, 0, line)):
        corners = (x - grown, y - grown, max(x, x + width) + grown, max(y, y + height) + grown)
        brush.rectangle(corners, outline=colour, width=thick)


def _plate(picture, box):
    """Darkens a box, which must be inside the picture."""
    x, y, width, height = box
    part = (x, y, x + width, y + height)
    dark = Image.new("RGB", (width, height), DARK)
    picture.paste(Image.blend(picture.crop(part), dark, PLATE_OPACITY), part)


def _draw_label(picture, box, text, font):
    """Writes the label above the box, or inside it if there is no room; returns the label's box."""
    pad = font.size // 3
    width, height = min(math.ceil(font.getlength(text)) + 2 * pad, picture.width), _line_px(font)
    x = _within(round(box[0]), width, picture.width)
    y = round(box[1]) - height - font.size // 4
    y = _within(y if y >= 0 else round(box[1]), height, picture.height)
    _plate(picture, (x, y, width, height))
    ImageDraw.Draw(picture).text((x + pad, y + height // 2), text, LIGHT, font, anchor="lm")
    return x, y, width, height


def _within(start, length, whole):
    return max(0, min(start, whole - length))


def _columns(face, font):
    """Returns the widths of a chart's columns (names, bars, numbers) and its padding."""
    names = max(font.getlength(name) for name in face.probs)
    return math.ceil(names), 5 * round(font.size), math.ceil(font.getlength("100%")), round(font.size / 2)


def _chart_size(face, font):
    *widths, pad = _columns(face, font)
    return sum(widths) + 4 * pad, _line_px(font) * len(face.probs) + 2 * pad


def _free_spot(size, box, taken, picture_size):
    """Returns the position next to a box where a chart hides least; None if it hides too much everywhere."""
    if size[0] > picture_size[0] or size[1] > picture_size[1]:
        return None
    (x, y, width, height), (wide, high), gap = box, size, 0.04 * size[0]
    beside, under = (x + width + gap, x - wide - gap), (y + height + gap, y - high - 4 * gap)
    spots = [(left, top) for left in beside for top in (y, y + height - high)]
    spots += [(left, top) for top in under for left in (x, x + width - wide)]
    spots = [
        tuple(
            _within(round(start), length, whole) for start, length, whole in zip(spot, size, picture_size, strict=True)
        )
        for spot in spots
    ]
    # Its own face gets more weight, since a chart that is shifted into the picture may cover it.
    hidden = [sum(_shared((*spot, *size), other) for other in (*taken, box, box)) for spot in spots]
    best = int(np.argmin(hidden))
    return spots[best] if hidden[best] <= MAX_HIDDEN * wide * high else None


def _shared(first, second):
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def _draw_chart(picture, spot, face, font):
    """Draws one bar per class on a dark plate, the most probable class in colour."""
    _plate(picture, (*spot, *_chart_size(face, font)))
    names, bars, _, pad = _columns(face, font)
    brush, line = ImageDraw.Draw(picture), _line_px(font)
    x, y = spot[0] + pad, spot[1] + pad
    for row, (name, prob) in enumerate(face.probs.items()):
        middle = y + row * line + line // 2
        brush.text((x, middle), name, LIGHT, font, anchor="lm")
        left, thick = x + names + pad, round(font.size * 0.3)
        colour = ACCENT if name == face.top[0][0] else DIM
        brush.rectangle((left, middle - thick, left + max(1, round(bars * prob)), middle + thick), fill=colour)
        brush.text((left + bars + pad, middle), _percent(prob), LIGHT, font, anchor="lm")


def _beside(picture, face, label, font):
    """Returns the picture with a panel on its right: the label, with the chart below it."""
    wide, high = _chart_size(face, font)
    wide = max(wide, math.ceil(font.getlength(label)) + font.size)
    wider = Image.new("RGB", (picture.width + wide, max(picture.height, high + _line_px(font))), DARK)
    wider.paste(picture, (0, 0))
    place = (picture.width + font.size // 2, _line_px(font) // 2 + font.size // 4)
    ImageDraw.Draw(wider).text(place, label, LIGHT, font, anchor="lm")
    _draw_chart(wider, (picture.width, _line_px(font)), face, font)
    return wider
