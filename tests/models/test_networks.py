"""One network a family against the values that Keras computed with the same weights (golden_networks.py)."""

import json

import golden_networks
import numpy as np
import pytest

from fer_jax import models

GOLDEN = json.loads(golden_networks.FILE.read_text())


def test_every_family_has_a_network():
    families = {family: set(names) & set(golden_networks.NETWORKS) for family, names in models.FAMILIES.items()}
    assert all(families.values()), families
    assert set(GOLDEN) == {"keras", *golden_networks.NETWORKS}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.full if name == "inception_resnet_v2" else ())
        for name in golden_networks.NETWORKS
    ],
)
def test_a_network_computes_what_keras_computed(name):
    ours, theirs = golden_networks.summarize(golden_networks.ours(name)), GOLDEN[name]
    assert ours["shape"] == theirs["shape"]
    np.testing.assert_allclose(ours["values"], theirs["values"], rtol=0, atol=1e-4 * theirs["peak"])
    assert np.ptp(theirs["values"]) > 0.1 * theirs["peak"]
