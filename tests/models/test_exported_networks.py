"""One network a family, exported to ONNX: onnxruntime computes what JAX computes."""

import golden_networks
import jax
import numpy as np
import pytest

from fer_jax.exports import onnx_models
from fer_jax.recognizer import Member, Recognizer

QUICK = ("cnn", "mobilenet_v2")
# The classifier is divided by 8, or by this, since the softmax of large logits is 1 and 0 for any face.
LARGE_LOGITS = {"vgg16": 100}
LARGE = tuple(name for name in golden_networks.NETWORKS if name not in QUICK)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.full) for name in LARGE)])
def test_an_exported_network_computes_what_jax_computes(name):
    faces, variables = golden_networks.draw(name)
    divisor = LARGE_LOGITS.get(name, 8)
    variables = jax.tree.map(lambda leaf: leaf / divisor if leaf.shape[-1] == 7 else leaf, variables)
    members = [Member(golden_networks.make(name), variables, tuple("abcdefg"))]
    recognizer = Recognizer(name, members, faces.shape[1:])
    (probs,) = onnx_models.session(onnx_models.classifier(recognizer), threads=1).run(None, {"faces": faces})
    np.testing.assert_allclose(probs, recognizer.probs(faces), atol=1e-4)
    assert np.ptp(probs, axis=0).max() > 1e-4, "the probabilities do not depend on the faces"
