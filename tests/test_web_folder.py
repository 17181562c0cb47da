"""The folder of the page is written whole or not at all, with the published runtime, and never over other files."""

import hashlib
import http.server
import io
import json
import tarfile
import threading

import numpy as np
import pytest

import fer_jax
from fer_jax import explain, faces, recognizer
from fer_jax.errors import InputError
from fer_jax.exports import web, web_runtime
from fer_jax.pretrained import fetch, registry


@pytest.fixture
def tarball(tmp_path, monkeypatch):
    """A package that stands for onnxruntime-web's, as the published one."""
    path = tmp_path / "packages" / web_runtime.TARBALL
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name in (*web_runtime.FILES, "ort.all.min.js"):
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    monkeypatch.setattr(web_runtime, "SHA512", hashlib.sha512(path.read_bytes()).hexdigest())
    return path


@pytest.fixture
def model():
    return fer_jax.load()


@pytest.fixture
def networks(monkeypatch, model):
    """Stands for the exported networks, which the page's own tests run."""

    class Network:
        def __init__(self, text):
            self.text = text

        def SerializeToString(self):
            return self.text.encode()

    def refuse(model):
        raise InputError("its map is too coarse")

    monkeypatch.setattr(web.onnx_models, "detector", Network)
    monkeypatch.setattr(web.onnx_models, "classifier", lambda model: Network(f"{model.views} {model.temperature:.2f}"))
    monkeypatch.setattr(web.onnx_models, "heat_map", refuse)
    monkeypatch.setattr(web.onnx_models, "runner", lambda network: model.probs)


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_the_page_the_networks_and_the_runtime(tmp_path, model, networks, tarball):
    folder = tmp_path / "site"
    facts = web.write(folder, model, runtime=tarball)
    page = names(web.PAGE)
    assert {"index.html", "app.js", "worker.js", "style.css"} <= page
    runtime = {f"ort/{name}" for name in web_runtime.FILES}
    written = {"config.json", "model.json", "model.onnx", "detector.onnx", "model-one-view.onnx"}
    assert names(folder) == page | runtime | written
    assert all((folder / name).read_bytes() == (web.PAGE / name).read_bytes() for name in page)
    assert (folder / "ort" / "ort.wasm.min.mjs").read_text() == "ort.wasm.min.mjs"
    assert json.loads((folder / "config.json").read_text()) == {
        "backend": "browser",
        "files": sorted(names(folder)),
    }
    assert json.loads((folder / "model.json").read_text()) == json.loads(json.dumps(facts))
    assert (folder / "model.onnx").read_text() == "flip_shifts 1.38"
    # As Recognizer.explain does, heat maps use neither views nor temperature.
    assert (folder / "model-one-view.onnx").read_text() == "none 1.00"
    assert list(tmp_path.glob(".*")) == []


def test_the_page_knows_what_python_knows(model):
    facts = web.describe(model, "blazeface", {"model.onnx": None, "heat.onnx": None})
    assert facts["classes"] == list(model.classes) and facts["threshold"] == recognizer.THRESHOLD
    assert facts["detector"]["framing"] == {"scale": 1.177, "right": 0.009, "down": -0.087}
    assert facts["detector"]["min_score"] == faces.MIN_SCORES["blazeface"]
    assert sum(cells**2 * count for cells, count in facts["detector"]["grids"]) == 896
    assert (facts["explain"]["method"], facts["explain"]["network"]) == ("grad_cam", "heat.onnx")
    facts = web.describe(model, "blazeface:back", {"model.onnx": None})
    assert (facts["explain"]["method"], facts["explain"]["network"]) == ("occlusion", "model.onnx")
    assert facts["detector"]["size_px"] == 256


def test_colours_run_from_dark_to_bright_and_overlays_use_them():
    colours = explain.colours()
    assert colours.shape == (256, 3) and (np.diff(colours.sum(1)) > -0.02).all()
    drawn = explain.overlay(np.zeros((2, 2, 3), np.uint8), np.array([[0, 1], [0.5, 0]]))
    assert drawn[0, 1].tolist() == np.rint(255 * explain.HEAT_SHARE * colours[255]).tolist()
    assert drawn[1, 0].tolist() == np.rint(255 * explain.HEAT_SHARE * 0.5 * colours[128]).tolist()


def test_an_earlier_export_is_replaced(tmp_path, model, networks, tarball):
    web.write(tmp_path / "site", model, runtime=tarball)
    config = tmp_path / "site" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"files": [*content["files"], "heat.onnx"]}))
    (tmp_path / "site" / "heat.onnx").write_text("of another model")
    web.write(tmp_path / "site", model, runtime=tarball)
    assert not (tmp_path / "site" / "heat.onnx").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "packages"] == ["site"]


@pytest.mark.parametrize("name", ["my_notes.js", "thesis.onnx", "ort/mine.txt"])
def test_a_file_that_an_earlier_export_did_not_write_is_kept(tmp_path, model, networks, tarball, name):
    folder = tmp_path / "site"
    web.write(folder, model, runtime=tarball)
    (folder / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds other files than an earlier export, such as {name}"):
        web.write(folder, model, runtime=tarball)
    assert (folder / name).read_text() == "mine"


def test_an_export_whose_list_names_other_files_is_refused(tmp_path, model, networks, tarball):
    folder = tmp_path / "site"
    web.write(folder, model, runtime=tarball)
    (folder / "config.json").write_text(json.dumps({"backend": "browser", "files": ["config.json", "other.js"]}))
    with pytest.raises(InputError, match="holds other files than an earlier export"):
        web.write(folder, model, runtime=tarball)


@pytest.mark.parametrize("earlier", [True, False])
def test_a_folder_with_other_files_is_refused(tmp_path, model, networks, tarball, earlier):
    folder = tmp_path / "site"
    folder.mkdir()
    if earlier:
        web.write(folder, model, runtime=tarball)
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files than an earlier export, such as thesis\.tex"):
        web.write(folder, model, runtime=tarball)
    assert (folder / "thesis.tex").read_text() == "mine"


def test_a_folder_with_a_page_of_others_is_refused(tmp_path, model):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(InputError, match="holds other files than an earlier export"):
        web.write(tmp_path, model)


def test_a_failure_leaves_the_earlier_export(tmp_path, model, networks, tarball, monkeypatch):
    web.write(tmp_path / "site", model, runtime=tarball)
    before = names(tmp_path / "site")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(web_runtime, "unpack", fail)
    with pytest.raises(InputError, match="No space left on device"):
        web.write(tmp_path / "site", model, runtime=tarball)
    assert names(tmp_path / "site") == before and list(tmp_path.glob(".*")) == []


def test_a_detector_that_the_page_cannot_run_is_refused(tmp_path, model):
    with pytest.raises(InputError, match="the page cannot run the detector 'lbp': choose blazeface"):
        web.write(tmp_path / "site", model, "lbp")


def test_a_runtime_that_is_missing_or_another_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file; give the onnxruntime-web-"):
        web_runtime.find(tmp_path / "none.tgz")
    (tmp_path / "other.tgz").write_bytes(b"other")
    with pytest.raises(InputError, match="is not onnxruntime-web"):
        web_runtime.find(tmp_path / "other.tgz")
    (tmp_path / web_runtime.TARBALL).write_bytes(b"damaged")
    with pytest.raises(InputError, match="remove it, and it is fetched again"):
        web_runtime.find(cache_dir=tmp_path)


@pytest.fixture
def mirror(tarball, monkeypatch, home):
    """A registry on this machine that has the package, and counts what it is asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.body = [], tarball.read_bytes()
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{running.server_port}/npm/")
        yield running
        running.shutdown()
        thread.join()


def test_the_runtime_is_fetched_once_from_the_users_registry(mirror, tmp_path):
    found = [web_runtime.find(cache_dir=tmp_path / "cache") for _ in range(2)]
    assert found == [tmp_path / "cache" / web_runtime.TARBALL] * 2
    assert mirror.asked == [f"/npm/onnxruntime-web/-/{web_runtime.TARBALL}"]


def test_a_runtime_that_a_registry_changed_is_not_kept(mirror, tmp_path):
    mirror.body = b"changed"
    with pytest.raises(InputError, match=r"SHA-512 is .* it was not\s+kept"):
        web_runtime.find(cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.full
def test_the_whole_folder_is_written(tmp_path, model):
    row = registry.find("blazeface")
    if not fetch.find(row):
        pytest.skip(f"the weights of BlazeFace are not on this machine: {fetch.fetch_command(row)}")
    try:
        runtime = web_runtime.find()
    except InputError as error:
        pytest.skip(str(error))
    web.write(tmp_path / "site", model, runtime=runtime)
    sizes = {name: (tmp_path / "site" / name).stat().st_size for name in names(tmp_path / "site")}
    assert sizes["model.onnx"] > 2_500_000 and sizes["detector.onnx"] > 300_000
    assert sizes["ort/ort-wasm-simd-threaded.wasm"] > 10_000_000
    assert sum(sizes.values()) < 25_000_000
