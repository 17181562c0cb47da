"""ONNX models of trained networks and of the face detector, and sessions that run them."""

import importlib.util
import os

import numpy as np

from fer_jax import cam, explain
from fer_jax import views as views_lib
from fer_jax.errors import InputError
from fer_jax.exports import onnx_trace
from fer_jax.models import average

EXPORTED_VIEWS = tuple(name for name in views_lib.VIEWS if name != "ten_crop")
KEPT = ("classes", "image_shape", "views", "temperature")  # of a recognizer, in the metadata


def check_views(views: str) -> None:
    """Raises InputError for views that cannot be exported."""
    views_lib.check(views)
    if views not in EXPORTED_VIEWS:
        raise InputError(f"the views {views} cannot be exported: choose {', '.join(EXPORTED_VIEWS)}")


def check_installed() -> None:
    """Raises InputError if a package that ONNX files need is missing."""
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"ONNX files need {package}, which is not installed: pip install 'fer-jax[onnx]'")


def classifier(recognizer):
    """Returns an `onnx.ModelProto` that computes `Recognizer.probs`: preprocessing, views and temperature included.

    Its input `faces` is uint8 [batch, H, W, C] of `image_shape`; its output `probs` is float32 [batch, K].

    Raises:
      InputError: the network computes something that cannot be exported, or onnx is not installed.
    """
    check_views(recognizer.views)
    facts = {"name": recognizer.title, **{name: getattr(recognizer, name) for name in KEPT}}
    inputs = {"faces": ((None, *recognizer.image_shape), np.uint8)}
    return _convert(recognizer.calibrated_probs, inputs, ["probs"], facts)


def heat_map(recognizer):
    """Returns an `onnx.ModelProto` that computes the heat maps of Grad-CAM, as `Recognizer.explain` does.

    Inputs: `faces` uint8 [batch, H, W, C] and `labels` int32 [batch]; output: `heat` float32 [batch, H, W].

    Raises:
      InputError: as `classifier`, or the recognizer explains its predictions by occlusion, or by more than one network.
    """
    shape = recognizer.image_shape
    (member, *others), (variables, *_) = recognizer.members, recognizer.variables
    if others or isinstance(member.model, average.Average):
        raise InputError(f"{recognizer.name} has several networks, and a heat map is exported for one alone")
    if explain.choose(member.model, variables, shape) != "grad_cam":
        raise InputError(f"{recognizer.name} explains its predictions by occlusion, which needs no further model")
    cam_fn = cam.make_cam(member.model)

    def fn(faces, labels):
        return explain.rescale(cam_fn(variables, faces, labels))

    inputs = {"faces": ((None, *shape), np.uint8), "labels": ((None,), np.int32)}
    return _convert(fn, inputs, ["heat"], {"name": recognizer.title})


def detector(name: str = "blazeface", *, cache_dir=None):
    """Returns an `onnx.ModelProto` of a BlazeFace.

    Its input `pictures` is uint8 [batch, S, S, 3]; its outputs are those of `BlazeFace.outputs`: `regressors` float32
    [batch, A, 16] and `logits` float32 [batch, A].

    Raises:
      InputError: another detector, or its weights are not on this machine.
    """
    from fer_jax import faces
    from fer_jax.faces import networks

    if name not in networks.SPECS:
        raise InputError(f"the detector {name} cannot be exported: choose {', '.join(networks.SPECS)}")
    found = faces.make_detector(name, cache_dir=cache_dir)
    size_px = found.spec.size_px
    inputs = {"pictures": ((None, size_px, size_px, 3), np.uint8)}

    def fn(pictures):
        return found.network.apply({"params": found.params}, pictures)

    return _convert(fn, inputs, ["regressors", "logits"], {"name": name})


def session(model, *, threads: int = 0):
    """Returns an `onnxruntime.InferenceSession` on the CPU.

    model: an `onnx.ModelProto` or a path. threads: 0: one a core.

    Raises:
      InputError: onnxruntime is not installed.
    """
    check_installed()
    import onnxruntime

    model = str(model) if isinstance(model, str | os.PathLike) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def runner(model):
    """Returns the function of a classifier, faces uint8 [N, H, W, C] -> probabilities float32 [N, K]; as `session`."""
    running = session(model)
    return lambda faces: running.run(["probs"], {"faces": faces})[0]


def _convert(fn, inputs, outputs, facts):
    check_installed()
    return onnx_trace.convert(fn, inputs, outputs, facts={"fer_jax": facts})
