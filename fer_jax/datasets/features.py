"""The features that every prepared data set shares."""

import numpy as np

from fer_jax.datasets import facts


def make_features(classes, *, votes=False):
    """Returns the TFDS FeaturesDict of a set of faces.

    `image` uint8 [48, 48, 1]; `label` int64 [], the position in `classes`; `row` int64 [], the position in
    the source; with `votes`, also `votes` uint8 [10] in the order of facts.VOTES.
    """
    import tensorflow_datasets as tfds

    features = {
        # As bytes: a list of integers takes four times as long to write and twice as long to read.
        "image": tfds.features.Tensor(shape=facts.IMAGE_SHAPE, dtype=np.uint8, encoding="bytes"),
        "label": tfds.features.ClassLabel(names=list(classes)),
        "row": tfds.features.Tensor(shape=(), dtype=np.int64),
    }
    if votes:
        features["votes"] = tfds.features.Tensor(shape=(len(facts.VOTES),), dtype=np.uint8)
    return tfds.features.FeaturesDict(features)
