"""A static folder with a page that recognizes emotions in the browser, by ONNX Runtime Web."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import uuid

from fer_jax import explain, recognizer, streams
from fer_jax import faces as faces_lib
from fer_jax.errors import InputError
from fer_jax.exports import comparison, onnx_models, web_runtime
from fer_jax.faces import blazeface, suppression, views

PAGE = pathlib.Path(__file__).parents[1] / "web"  # the files of the page, which `fer-jax serve` serves too
CONFIG = {"backend": "browser"}  # of the page in an exported folder
# Of views, for a frame of a camera: 1 finds faces of a third of the longer side, 2, if there are none, of a sixth.
QUICK_LEVELS = (1, 2)
RUNTIME_FOLDER = "ort"
ONE_VIEW = "model-one-view.onnx"
COMPARED_FACES = 8


def write(folder, model, detector_name: str = "blazeface", *, runtime=None) -> dict:
    """Writes the folder, whole or not at all; returns the content of its model.json.

    Any web server can serve it, at any address. An earlier export in the folder is replaced.

    Args:
      folder: its path.
      model: a `fer_jax.Recognizer`.
      detector_name: the name of a BlazeFace in `fer_jax.faces.NAMES`.
      runtime: the path of onnxruntime-web's npm package; None: as `web_runtime.find`.

    Raises:
      InputError: the folder holds other files or cannot be written, the detector's weights or the runtime are missing,
        or the network cannot be exported.
    """
    folder, runtime = check(folder, detector_name, runtime=runtime)
    networks = {
        "detector.onnx": onnx_models.detector(detector_name),
        "model.onnx": onnx_models.classifier(model),
        **_explainer(model),
    }
    run = onnx_models.runner(networks["model.onnx"])
    comparison.compare("the page's model", run, model, comparison.draw_faces(model, COMPARED_FACES))
    facts = describe(model, detector_name, networks)
    try:
        with _replacing_folder(folder) as temporary:
            shutil.copytree(PAGE, temporary)
            for name, network in networks.items():
                (temporary / name).write_bytes(network.SerializeToString())
            web_runtime.unpack(runtime, temporary / RUNTIME_FOLDER)
            (temporary / "model.json").write_text(json.dumps(facts))
            files = sorted([*_names(temporary), "config.json"])
            (temporary / "config.json").write_text(json.dumps({**CONFIG, "files": files}))
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error}): give another folder, or make room") from error
    return facts


def check(folder, detector_name: str = "blazeface", *, runtime=None) -> tuple[pathlib.Path, pathlib.Path]:
    """Checks what `write` needs but a model; returns (the folder's absolute path, that of the runtime's package).

    Raises:
      InputError: as `write`.
    """
    folder = pathlib.Path(os.path.abspath(os.path.expanduser(folder)))
    _check_folder(folder)
    if detector_name not in blazeface.SPECS:
        raise InputError(f"the page cannot run the detector '{detector_name}': choose {', '.join(blazeface.SPECS)}")
    faces_lib.make_detector(detector_name)
    return folder, web_runtime.find(runtime)


def describe(model, detector_name: str, files) -> dict:
    """Returns what the page needs to know of a recognizer and a detector, from the constants of this package.

    files: the names of the exported networks.
    """
    spec = blazeface.SPECS[detector_name]
    return {
        "name": pathlib.PurePath(model.name).name,
        "classes": list(model.classes),
        "image_shape": list(model.image_shape),
        "views": model.views,
        "temperature": model.temperature,
        "threshold": recognizer.THRESHOLD,
        "longest_px": streams.LEAST_SIDE_PX,
        "detector": {
            "name": detector_name,
            "size_px": spec.size_px,
            "grids": spec.grids,
            "framing": dataclasses.asdict(faces_lib.FRAMINGS[detector_name]),
            "levels": faces_lib.LEVELS[detector_name],
            "quick_levels": QUICK_LEVELS,
            "min_score": faces_lib.MIN_SCORES[detector_name],
            "candidate": blazeface.CANDIDATE,
            "second_side": blazeface.SECOND_SIDE,
            "same_face": blazeface.SAME_FACE,
            "part": suppression.PART,
            "overlap": views.OVERLAP,
            "least_tile": views.LEAST_TILE,
        },
        "explain": {
            "method": "grad_cam" if "heat.onnx" in files else "occlusion",
            "network": next(name for name in ("heat.onnx", ONE_VIEW, "model.onnx") if name in files),
            "patch": explain.PATCH_PX,
            "stride": explain.STRIDE_PX,
            "side_px": recognizer.EXPLAINED_PX,
            "heat_share": explain.HEAT_SHARE,
            "colours": explain.colours().tolist(),
        },
    }


def _explainer(model):
    """Returns {file: network} of what explains predictions: Grad-CAM, or one view for occlusion."""
    try:
        return {"heat.onnx": onnx_models.heat_map(model)}
    except InputError:  # its map is too coarse, or it has several networks
        pass
    if model.views == "none" and model.temperature == 1:
        return {}  # model.onnx is that already
    plain = recognizer.Recognizer(model.name, model.members, model.image_shape)
    return {ONE_VIEW: onnx_models.classifier(plain)}


def _check_folder(folder):
    """Raises InputError if a folder holds what an earlier export did not list in its config.json."""
    if folder.is_file():
        raise InputError(f"{folder} is a file: give a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    listed = []
    with contextlib.suppress(OSError, ValueError):
        config = json.loads((folder / "config.json").read_text())
        if isinstance(config, dict) and config.get("backend") == CONFIG["backend"]:
            listed = config.get("files", [])
    strangers = [name for name in _names(folder) if name not in listed]
    if not strangers:
        return
    raise InputError(
        f"{folder} holds other files than an earlier export, such as {strangers[0]}: give a new or an empty folder"
    )


def _names(folder):
    """Returns the paths of all that a folder holds, relative to it; of its own folders the runtime's is left out."""
    return sorted({path.relative_to(folder).as_posix() for path in folder.rglob("*")} - {RUNTIME_FOLDER})


@contextlib.contextmanager
def _replacing_folder(folder):
    """Yields the path of a folder to make, which replaces `folder` if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, earlier = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.{end}") for end in ("tmp", "old"))
    try:
        yield temporary
        if folder.exists():
            folder.rename(earlier)
        try:
            temporary.rename(folder)
        except OSError:
            if earlier.exists():
                earlier.rename(folder)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(earlier, ignore_errors=True)
