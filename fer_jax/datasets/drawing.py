"""Draws a 48x48 grey face: paints the landmarks of `anatomy` under a view (pose, light, camera)."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fer_jax.datasets import facts
from fer_jax.datasets.anatomy import Units, between, landmarks

SIZE_PX = facts.IMAGE_SIZE_PX
SUPERSAMPLING = 4

# How the picture is taken: (lowest, highest), drawn uniformly. Angles in radians, lengths in pixels.
VIEW = {
    "roll": (-0.17, 0.17),
    "yaw": (-0.31, 0.31),
    "pitch": (-0.14, 0.14),
    "unit_px": (21.5, 25.5),
    "shift_x": (-2.0, 2.0),
    "shift_y": (-2.0, 2.0),
    "gaze_x": (-0.05, 0.05),
    "gaze_y": (-0.02, 0.02),
    "background": (20.0, 235.0),
    "background_step": (-70.0, 70.0),  # its upper part against its lower part
    "background_edge": (-1.0, 1.0),
    "light_x": (-0.9, 0.9),
    "light_y": (-0.8, 0.3),
    "light_share": (0.1, 0.45),
    "gamma": (0.8, 1.3),
    "contrast": (0.75, 1.15),
    "brightness": (-25.0, 25.0),
    "blur_px": (0.0, 0.65),
    "noise": (1.0, 5.0),  # standard deviation in grey levels
    "occlusion": (-9.0, 1.0),  # how far a hand reaches over the jaw; no hand at 0 and below
}


def draw(person, units, view, rng):
    """Paints a face.

    person, units: see `landmarks`; view: of `sample(VIEW, rng)` or `average(VIEW)`; rng draws the noise.
    Returns [48, 48] uint8.
    """
    canvas = _Canvas(person, view)
    points = landmarks(person, units)
    au = Units(units)
    _paint_head(canvas, points, person, view)
    _paint_wrinkles(canvas, points, person, au)
    for name in ("left_", "right_"):
        _paint_eye(canvas, points, name, person, view)
    _paint_nose(canvas, person, au)
    _paint_mouth(canvas, points, person, au)
    _paint_worn(canvas, points, person, view)
    return canvas.develop(view, rng)


class _Canvas:
    """A supersampled picture, and a second one of soft shadows that is added to it when it is developed."""

    def __init__(self, person, view):
        side = SIZE_PX * SUPERSAMPLING
        self.person = person
        self.view = view
        self.paint = Image.new("L", (side, side), int(view.background))
        self.shadow = Image.new("L", (side // 2, side // 2), 128)
        self._painter, self._shader = ImageDraw.Draw(self.paint), ImageDraw.Draw(self.shadow)
        self._unit = view.unit_px * SUPERSAMPLING
        cos, sin = np.cos(view.roll) * self._unit, np.sin(view.roll) * self._unit
        self._turn = np.array([[cos, sin], [-sin, cos]])
        self._turn_face = np.diag([np.cos(view.yaw), np.cos(view.pitch)]) @ self._turn
        self._turn_depth = np.array([np.sin(view.yaw), np.sin(view.pitch)]) @ self._turn
        self._inverse_axes = np.array([person.head_width + 0.1, 1.25]) ** -2.0
        self._origin = np.array([view.shift_x, view.shift_y + 0.5]) * SUPERSAMPLING + side / 2

    def project(self, points, *, depth=0.0, outline=False):
        """Projects face units to pixels; the head rotates as a half ellipsoid, whose outline stays."""
        points = np.asarray(points, np.float64)
        if outline:
            return points @ self._turn + self._origin
        z = 0.72 * np.sqrt(np.maximum(0, 1 - points**2 @ self._inverse_axes)) + depth
        return points @ self._turn_face + z[:, None] * self._turn_depth + self._origin

    def fill(self, points, grey, **where):
        self.fill_pixels(self.project(points, **where), grey)

    def fill_pixels(self, pixels, grey):
        self._painter.polygon(pixels.ravel().tolist(), fill=int(grey))

    def line(self, points, width, grey, **where):
        pixels = self.project(points, **where).ravel().tolist()
        self._painter.line(pixels, fill=int(grey), width=max(1, round(width * self._unit)), joint="curve")

    def shade(self, points, width, amount, **where):
        """Darkens along a line by `amount` grey levels (lightens where negative), softly."""
        pixels = (self.project(points, **where) / 2).ravel().tolist()
        self._shader.line(pixels, fill=int(128 - amount), width=max(1, round(width * self._unit / 2)))

    def shade_area(self, points, amount, **where):
        self._shader.polygon((self.project(points, **where) / 2).ravel().tolist(), fill=int(128 - amount))

    def develop(self, view, rng):
        shadow = self.shadow.filter(ImageFilter.BoxBlur(2)).reduce(2)
        picture = np.asarray(self.paint.reduce(SUPERSAMPLING), np.float32)
        picture = picture * self._light() + np.asarray(shadow, np.float32) - 128
        picture = (picture - 128) * view.contrast + 128 + view.brightness
        picture = 255 * (np.clip(picture, 1, 255) / 255) ** view.gamma
        blurred = Image.fromarray(picture.astype(np.uint8)).filter(ImageFilter.GaussianBlur(view.blur_px))
        noisy = blurred + rng.standard_normal((SIZE_PX, SIZE_PX), np.float32) * view.noise
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)

    def _light(self):
        """Lambert's factor of each pixel on an ellipsoid in the head's place: [48, 48]."""
        pixels = (_PIXELS - self._origin) @ np.linalg.inv(self._turn)
        x, y = pixels[..., 0] / (self.person.head_width + 0.06), pixels[..., 1] / 1.3
        z = np.sqrt(np.maximum(0.0, 1 - x**2 - y**2))
        view = self.view
        return 1 + view.light_share * (np.clip(x * view.light_x + y * view.light_y, -1, 1) + 0.8 * z - 0.5)


_PIXELS = np.stack(np.meshgrid(*[np.arange(SIZE_PX) * SUPERSAMPLING + 1.5] * 2), -1)
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 16)), np.sin(np.linspace(0, 2 * np.pi, 16))], 1)


def _paint_head(canvas, points, person, view):
    head = points["head"]
    edge = view.background_edge
    wall = [[-3, -3], [3, -3], [3, edge], [-3, -edge]]
    canvas.fill(wall, np.clip(view.background + view.background_step, 0, 255), outline=True)
    crown = head * (1.1, 1.08) - (0, 0.05)
    if "bald" not in person.wears:
        canvas.fill(crown, person.hair, outline=True)
    if "long_hair" in person.wears:
        canvas.fill(_column(person.head_width * 1.15, -0.3), person.hair, outline=True)
    canvas.fill(_column(person.head_width * 0.72, 0.4), person.skin * 0.7, outline=True)
    for sign in () if "long_hair" in person.wears else (-1, 1):
        ear = _CIRCLE * (0.09, 0.19) + (sign * (person.head_width + 0.01) - 0.25 * np.sin(view.yaw), 0.0)
        canvas.fill(ear, person.skin * 0.85, outline=True)
    canvas.fill(head, person.skin, outline=True)
    if "beard" in person.wears:
        for rise, share in ((0.0, 0.5), (0.05, 1.0)):
            wide, top = person.head_width, 0.2 + rise
            cheeks = between((-wide, top), (0, top + 0.42), (wide, top))
            jaw = head[head[:, 1] > 0.2]
            grey = person.skin * (1 - share * (1 - person.beard_grey))
            canvas.fill(np.concatenate([jaw, cheeks]), grey, outline=True)
    if "bald" not in person.wears:
        _paint_hair(canvas, crown, person)
    if "hat" in person.wears:
        hat = [[-1, -0.66], [0, -0.6], [1, -0.66], [0.9, -2], [-0.9, -2]]
        canvas.fill(hat, 255 - person.hair, outline=True)


def _column(half_width, top):
    """Neck and shoulders: widen towards the lower edge of the picture."""
    return [[-half_width, top], [half_width, top], [half_width * 1.1, 2], [-half_width * 1.1, 2]]


def _paint_hair(canvas, crown, person):
    side, parted, high = person.head_width * 0.97, person.parting, -person.hair_line
    temple = side * 0.75
    left = between((-side, -0.2), (0.1 * parted - temple, high + 0.1), (parted, high - 0.06))
    right = between((parted, high - 0.06), (0.1 * parted + temple, high + 0.1), (side, -0.2))
    line = np.concatenate([left, right])
    top = crown[crown[:, 1] < -0.2]
    outside, inside = canvas.project(top, outline=True), canvas.project(line)
    canvas.fill_pixels(np.concatenate([inside, outside[np.argsort(-top[:, 0])]]), person.hair)
    for x in np.linspace(-0.7, 0.7, 8) * person.head_width:
        strand = [[parted + 0.5 * (x - parted), high - 0.12], [x * 1.2, -person.forehead]]
        canvas.shade(strand, 0.03, 14 if x > parted else -14, outline=True)


def _paint_wrinkles(canvas, points, person, au):
    y, deep = person.eye_y, person.age
    raised = (au[1] + au[2]) / 2
    for height in (0.34, 0.44) if raised else ():
        wide = 0.12 + 0.28 * au[2]
        arc = between((-wide, y - height + 0.03), (0, y - height - 0.03), (wide, y - height + 0.03))
        canvas.shade(arc, 0.03, 55 * raised * deep)
    for name, sign in (("left_", -1), ("right_", 1)):
        eye = points[name + "eye_upper"]
        canvas.shade(points[name + "crease"], 0.09, 22)
        canvas.shade(points[name + "bag"], 0.035, 12 + 45 * au[6] * deep)
        fold = 10 * deep + 60 * max(au[12], 0.8 * au[9]) + 15 * au[20]
        canvas.shade(points[name + "fold"], 0.045, fold)
        frown = max(au[4] * (1 - 0.4 * au[1]), 0.6 * au[9])
        canvas.shade([[sign * 0.045, y - 0.2], [sign * 0.055, y - 0.06]], 0.035, 75 * frown * deep)
        corner = eye[-1] + (sign * 0.03, 0)
        for rise in (-0.06, 0.05) if au[6] else ():
            canvas.shade([corner, np.add(corner, (sign * 0.1, rise))], 0.025, 60 * au[6] * deep)
        nose = [[sign * 0.02, y + 0.12], [sign * 0.1, y + 0.06]]
        canvas.shade(nose, 0.04, 85 * au[9] * deep, depth=0.1)
        canvas.shade([[sign * 0.03, y + 0.19], [sign * 0.12, y + 0.14]], 0.04, 85 * au[9] * deep, depth=0.1)
        cheek = _CIRCLE * (0.13, 0.1) + (sign * (person.eye_distance + 0.03), y + 0.3 - 0.05 * au[6])
        canvas.shade_area(cheek, -8 - 22 * max(au[6], 0.6 * au[9]))
        end = points["lip_lower_outer"][0 if sign < 0 else -1]
        canvas.shade([end, np.add(end, (sign * 0.05, 0.12))], 0.04, 50 * au[15] * deep)
    canvas.shade_area(_CIRCLE * (0.14, 0.08) + (0, 0.86), 45 * au[17] * deep)


def _paint_eye(canvas, points, name, person, view):
    upper, lower = points[name + "eye_upper"], points[name + "eye_lower"]
    canvas.fill(np.concatenate([upper, lower[::-1]]), min(245, person.skin * 0.75 + 85))
    centre = (upper[:, 0].mean() + view.gaze_x, person.eye_y - 0.02 + view.gaze_y)
    order = np.argsort(upper[:, 0])
    for radius, grey in ((person.iris, person.iris_grey), (person.iris * 0.5, 0.05)):
        iris = _CIRCLE * radius + centre
        low, high = (np.interp(iris[:, 0], curve[order, 0], curve[order, 1]) for curve in (upper, lower))
        iris[:, 1] = np.clip(iris[:, 1], low, high)
        canvas.fill(iris, person.skin * grey + 10)
    canvas.line(upper, 0.035, person.skin * 0.22)
    canvas.line(lower, 0.014, person.skin * 0.6)
    canvas.fill(points[name + "brow_area"], person.skin * person.brow)


def _paint_nose(canvas, person, au):
    bottom, wide = person.nose_y + 0.04 - 0.02 * au[9], person.nose_width * (1 + 0.1 * au[9])
    side = 1 if canvas.view.light_x < 0 else -1
    canvas.shade([[side * 0.06, person.eye_y - 0.02], [side * 0.08, bottom - 0.06]], 0.06, 26, depth=0.12)
    canvas.shade([[0, person.eye_y + 0.05], [0, bottom - 0.08]], 0.06, -18, depth=0.15)
    canvas.shade([[-wide, bottom], [wide, bottom]], 0.06, 24, depth=0.12)
    for sign in (-1, 1):
        rise = 0.06 * au[9]
        wing = between(
            (sign * wide * 0.8, bottom - 0.1 - rise),
            (sign * wide * 1.1, bottom - 0.04 - rise),
            (sign * wide * 0.75, bottom - rise * 0.5),
            6,
        )
        canvas.line(wing, 0.02, person.skin * 0.6, depth=0.08)
        nostril = _CIRCLE * (0.04, 0.022) + (sign * wide * 0.45, bottom - rise * 0.4)
        canvas.fill(nostril, person.skin * 0.3, depth=0.14)


def _paint_mouth(canvas, points, person, au):
    top_outer, top, bottom, bottom_outer = (
        points["lip_" + name] for name in ("upper_outer", "upper_inner", "lower_inner", "lower_outer")
    )
    lips = person.skin * person.lips
    if "moustache" in person.wears:
        hair = np.concatenate([top_outer - (0, 0.07), np.add(top_outer[::-1], (0, 0.01))])
        canvas.fill(hair * (1.05, 1), person.skin * person.beard_grey * 0.8, depth=0.05)
    canvas.fill(np.concatenate([top_outer, top[::-1]]), lips * 0.9, depth=0.05)
    canvas.fill(np.concatenate([bottom, bottom_outer[::-1]]), lips, depth=0.05)
    gap = bottom[:, 1] - top[:, 1]
    if gap.max() > 0.03:
        canvas.fill(np.concatenate([top, bottom[::-1]]), person.skin * 0.14, depth=0.05)
        teeth = np.stack([top[:, 0], top[:, 1] + np.minimum(0.85 * gap, 0.07)], 1)[2:-2]
        canvas.fill(np.concatenate([top[2:-2], teeth[::-1]]), 150 + 0.4 * person.skin, depth=0.05)
        if au[16] > 0.2 or au[26] > 0.2:
            tongue = np.stack([bottom[:, 0], bottom[:, 1] - np.minimum(0.25 * gap, 0.06)], 1)[4:-4]
            grey = 140 + 0.3 * person.skin if au[16] > 0.2 else lips * 0.7
            canvas.fill(np.concatenate([tongue, bottom[4:-4][::-1]]), grey, depth=0.05)
    canvas.line(top, 0.018 + 0.02 * au[24], person.skin * 0.28, depth=0.05)
    canvas.shade(np.add(bottom_outer[5:-5], (0, 0.06)), 0.05, 26, depth=0.03)


def _paint_worn(canvas, points, person, view):
    if "glasses" in person.wears:
        for sign in (-1, 1):
            rim = _CIRCLE * (0.23, 0.18) + (sign * person.eye_distance, person.eye_y + 0.02)
            canvas.line(rim, 0.03, person.hair, depth=0.08)
        bridge = [[-person.eye_distance + 0.23, person.eye_y], [person.eye_distance - 0.23, person.eye_y]]
        canvas.line(bridge, 0.03, person.hair, depth=0.15)
    if view.occlusion > 0:
        sign = 1 if view.yaw > 0 else -1
        hand = _CIRCLE * (0.35, 0.28) + (sign * 0.75, 1.05 - 0.35 * view.occlusion)
        canvas.fill(hand, person.skin * 0.9, outline=True)
