"""Facts of FER-2013 and the features that every prepared dataset shares.

Source of classes and counts: Goodfellow et al. 2013, "Challenges in Representation Learning"; the order of the
votes: Barsoum et al. 2016 (FER+).
"""

IMAGE_SIZE_PX = 48
IMAGE_SHAPE = (IMAGE_SIZE_PX, IMAGE_SIZE_PX, 1)

# The position in this tuple is the number in the files' `emotion` column.
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

SPLITS = ("train", "validation", "test")

# The files' `Usage` column, and the split that it means here.
USAGES = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}

# Faces per split and class, in the order of CLASSES.
OFFICIAL_COUNTS = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "validation": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}

# Of all faces, labels, splits and class names, as `readings.fingerprint` of the challenge's fer2013.csv gives it.
FINGERPRINT = "sha256:66f4c2bd8749260c"

VOTES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "NF",
)
