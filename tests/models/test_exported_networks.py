"""One network a family, exported to ONNX: onnxruntime computes what JAX computes."""

import golden_networks
import numpy as np
import pytest

from fer_jax.exports import onnx_models
from fer_jax.recognizer import Member, Recognizer

QUICK = ("cnn", "mobilenet_v2")
LARGE = tuple(name for name in golden_networks.NETWORKS if name not in QUICK)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.full) for name in LARGE)])
def test_an_exported_network_computes_what_jax_computes(name):
    faces, variables = golden_networks.draw(name)
    members = [Member(golden_networks.make(name), variables, tuple("abcdefg"))]
    # The temperature spreads probabilities that are nearly 1 and 0.
    recognizer = Recognizer(name, members, faces.shape[1:], temperature=8.0)
    (probs,) = onnx_models.session(onnx_models.classifier(recognizer), threads=1).run(None, {"faces": faces})
    np.testing.assert_allclose(probs, recognizer.probs(faces), atol=1e-4)
    if name != "vgg16":  # whose drawn weights saturate the softmax
        assert np.ptp(probs, axis=0).max() > 1e-4, "the probabilities do not depend on the faces"
