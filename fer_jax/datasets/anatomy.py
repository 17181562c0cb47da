"""The geometry of drawn faces: `landmarks` applies action units to the curves of a person's resting face.

Face coordinates have their origin between nose and eyes, x to the right and y down, and one unit is the distance to
the chin.

Source of what each action unit moves: Ekman, Friesen & Hager 2002, "Facial Action Coding System".
"""

import types

import numpy as np

# A person's face at rest: (lowest, highest), drawn uniformly; lengths in face units.
PERSON = {
    "head_width": (0.68, 0.84),
    "jaw_power": (1.9, 3.0),  # exponent of the jaw's superellipse: 2 is round, 3 is square
    "forehead": (1.12, 1.3),
    "eye_distance": (0.30, 0.37),
    "eye_y": (-0.15, -0.08),
    "eye_width": (0.145, 0.18),
    "eye_height": (0.075, 0.095),
    "eye_tilt": (-0.02, 0.02),
    "iris": (0.07, 0.085),
    "brow_y": (-0.26, -0.21),  # from the eye
    "brow_arch": (0.03, 0.07),
    "brow_slant": (-0.025, 0.025),
    "brow_thickness": (0.035, 0.075),
    "nose_y": (0.20, 0.27),
    "nose_width": (0.10, 0.15),
    "mouth_y": (0.52, 0.58),
    "mouth_width": (0.23, 0.29),
    "mouth_curve": (-0.015, 0.015),
    "lip": (0.035, 0.065),
    "asymmetry": (-0.12, 0.12),  # share by which one side moves more than the other
    "age": (0.3, 1.0),  # depth of wrinkles and folds
    "skin": (105.0, 215.0),  # grey levels from here
    "hair": (15.0, 150.0),
    "brow": (0.2, 0.55),  # shares of the skin's grey from here
    "lips": (0.55, 0.85),
    "iris_grey": (0.12, 0.4),
    "beard_grey": (0.4, 0.8),
    "hair_line": (0.55, 0.8),  # its height above the origin
    "parting": (-0.4, 0.4),
}

# Shares of people who wear each.
WEARS = {"glasses": 0.12, "beard": 0.12, "moustache": 0.1, "long_hair": 0.4, "bald": 0.12, "hat": 0.06}


def sample(table, rng):
    """Draws one value per row of PERSON or VIEW; returns a namespace of floats."""
    low, high = np.array(list(table.values())).T
    return types.SimpleNamespace(**dict(zip(table, rng.uniform(low, high).tolist(), strict=True)))


def average(table):
    """Returns the namespace with the middle of every row of PERSON or VIEW."""
    return types.SimpleNamespace(**{name: (low + high) / 2 for name, (low, high) in table.items()})


def sample_person(rng):
    """Draws a person: the values of PERSON, and `wears`, the set of what they wear."""
    person = sample(PERSON, rng)
    worn = rng.random(len(WEARS)) < list(WEARS.values())
    person.wears = {name for name, on in zip(WEARS, worn, strict=True) if on}
    return person


def landmarks(person, units):
    """Moves a person's resting face by its action units.

    person: of `sample_person` or `average(PERSON)`; units: {action unit: intensity 0..1}, absent ones are 0.
    Returns {name: [n, 2] float64} in face units. Eye and brow curves run from the nose outwards and exist as
    `left_` and `right_` (of the picture); lip curves run from left to right, their ends are the lip corners.
    """
    points = {}
    for side, name in ((-1, "left_"), (1, "right_")):
        moved = Units({unit: a * (1 + side * person.asymmetry) for unit, a in units.items()})
        for part, curve in (_brow(person, moved) | _eye(person, moved) | _fold(person, moved)).items():
            points[name + part] = curve * (side, 1)
    return points | _mouth(person, units) | _head(person, Units(units))


class Units(dict):
    """Intensities of action units by number; those not given are 0."""

    def __missing__(self, unit):
        return 0.0


_ACROSS = np.linspace(-1, 1, 17)


def between(start, middle, end, n=9):
    """The parabola through three points: [n, 2]."""
    start, middle, end = np.array([start, middle, end])
    t = np.linspace(0, 1, n)[:, None]
    control = 2 * middle - (start + end) / 2
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def _brow(person, au):
    x, y = person.eye_distance, person.eye_y + person.brow_y
    # With the inner brow raised (sadness, fear), unit 4 mainly draws the brows together.
    lower = au[4] * (1 - 0.8 * au[1])
    inner = y + person.brow_slant - 0.15 * au[1] + 0.13 * lower + 0.06 * au[9]
    middle = y - person.brow_arch - 0.05 * au[1] - 0.12 * au[2] + 0.08 * lower + 0.04 * au[9]
    middle += 0.03 * au[1] * au[4]
    outer = y + 0.05 - person.brow_slant - 0.13 * au[2] + 0.01 * lower + 0.04 * au[1] * (1 - au[2])
    curve = between((x - 0.2 - 0.06 * au[4], inner), (x + 0.03, middle), (x + 0.25, outer))
    half = person.brow_thickness / 2 * np.linspace(1.1, 0.4, len(curve))[:, None] * (0, 1)
    return {"brow": curve, "brow_area": np.concatenate([curve - half, (curve + half)[::-1]])}


def _eye(person, au):
    u = _ACROSS
    x = person.eye_distance + person.eye_width * u
    corners = person.eye_y - person.eye_tilt * u
    arch = (1 - u**2) ** 0.75
    upper = person.eye_height + 0.07 * au[5] - 0.03 * au[4] * (1 - au[1]) - 0.015 * au[7] - 0.02 * au[9]
    # Sadness: the raised inner brow pulls the lid's inner half up while its outer half droops.
    slant = 0.035 * au[1] * (1 - au[5]) * (1 - au[2]) * u
    lower = 0.055 - 0.045 * au[7] - 0.055 * au[6] - 0.025 * au[9]
    top = corners - upper * arch + slant
    bottom = np.maximum(corners + lower * arch, top)
    return {
        "eye_upper": np.stack([x, top], 1),
        "eye_lower": np.stack([x, bottom], 1),
        "crease": np.stack([x, top - 0.045 + 0.02 * au[5]], 1),
        "bag": np.stack([x, bottom + 0.06 - 0.02 * au[6]], 1),
    }


def _fold(person, au):
    """The fold from the nose's wing round the lip corner."""
    corner_x, corner_y = _lip_corner(person, au)
    wing = person.nose_y + 0.02 - 0.06 * au[9]
    middle = (corner_x * 0.5 + person.nose_width * 0.5 + 0.05 + 0.05 * au[12], (wing + corner_y) / 2)
    return {"fold": between((person.nose_width + 0.01, wing), middle, (corner_x + 0.07, corner_y + 0.03))}


def _lip_corner(person, au):
    wide = person.mouth_width + 0.1 * au[12] + 0.1 * au[20] - 0.05 * au[23] - 0.03 * au[24]
    wide -= 0.07 * au[26] * (1 - au[20])
    y = person.mouth_y + person.mouth_curve - 0.13 * au[12] + 0.12 * au[15] + 0.04 * au[20] + 0.06 * au[26]
    return wide, y


def _mouth(person, units):
    au, u = Units(units), _ACROSS
    sides = [Units({k: a * (1 + side * person.asymmetry) for k, a in units.items()}) for side in (-1, 1)]
    (left_x, left_y), (right_x, right_y) = (_lip_corner(person, side) for side in sides)
    x = np.where(u < 0, left_x, right_x) * u
    corner = np.where(u < 0, left_y, right_y)
    centre = person.mouth_y + 0.02 * au[12] - 0.03 * au[17] - 0.015 * au[15] - 0.02 * au[9]
    top = centre - 0.025 * au[25] - 0.05 * au[26] - 0.03 * au[9] * au[25] - 0.03 * au[10]
    bottom = centre + 0.075 * au[25] + 0.3 * au[26] + 0.05 * au[16]
    # A dropped jaw makes the mouth an oval, stretched corners make it a box.
    power = 2 + 0.8 * au[26] + 1.5 * au[20] * au[26] + au[25] * au[23]
    rim = np.abs(u) ** power
    inner_top, inner_bottom = ((1 - rim) * y + rim * corner for y in (top, np.maximum(top, bottom)))
    thin = (1 - 0.55 * au[23]) * (1 - 0.5 * au[24]) * (1 - 0.35 * au[20]) * (1 - 0.3 * au[12])
    lip = person.lip * thin * (1 - np.abs(u) ** 3)
    bow = 1 - 0.3 * np.exp(-((u / 0.2) ** 2))
    heights = {
        "lip_upper_outer": inner_top - lip * bow,
        "lip_upper_inner": inner_top,
        "lip_lower_inner": inner_bottom,
        "lip_lower_outer": inner_bottom + lip * 1.35,
    }
    return {name: np.stack([x, y], 1) for name, y in heights.items()}


def _head(person, au):
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    chin = 1 + 0.16 * au[26] - 0.02 * au[17]
    power = np.where(sin > 0, 2 / person.jaw_power, 1.0)
    x = person.head_width * (1 + 0.02 * au[12]) * np.sign(cos) * np.abs(cos) ** power
    return {"head": np.stack([x, np.where(sin > 0, chin, person.forehead) * sin], 1)}
