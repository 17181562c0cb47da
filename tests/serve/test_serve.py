"""The service over HTTP: what it answers, what it refuses, and that it lives on."""

import asyncio
import base64
import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import bombs
import numpy as np
import pytest
import serving
from PIL import Image

from fer_jax import predict, predicting
from fer_jax.serve import app, guard, server
from fer_jax.serve.limits import Limits
from fer_jax.serve.service import Service

PATH = "/v1/predict"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def service():
    with Service(serving.Recognizer(), runtime="jax", max_pixels=1_000_000) as found:
        yield found


@pytest.fixture(scope="module")
def client(service):
    limits = Limits(max_bytes=100_000, max_files=3, max_requests=8)
    with serving.running(service, limits=limits, hosts={"127.0.0.1"}) as found:
        yield found


@pytest.fixture(scope="module")
def picture():
    return serving.encode(serving.scene(0.8, None, 0.3))


def records_of_the_command(paths, capsys, **options):
    """Returns what `fer-jax predict` writes about files."""
    predict.predict_files(serving.Recognizer(), list(map(str, paths)), predicting.Options(**options))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("faces", ["detect", "given"])
@pytest.mark.parametrize("sent", ["raw", "form"])
def test_the_record_is_that_of_the_command(client, tmp_path, capsys, faces, sent):
    Image.fromarray(serving.scene(0.8, None, 0.3, 0.55)).save(tmp_path / "a.jpg", quality=95)
    (expected,) = records_of_the_command(
        [tmp_path / "a.jpg"], capsys, faces="auto" if faces == "detect" else faces, threshold=0.7
    )
    data = (tmp_path / "a.jpg").read_bytes()
    body, kind = (data, "image/jpeg") if sent == "raw" else serving.form("file", ("a.jpg", data))
    status, _, record = client.post(f"{PATH}?faces={faces}&threshold=0.7", body, kind)
    assert status == 200
    assert record == {**expected, "source": "a.jpg" if sent == "form" else None}
    assert list(record) == list(expected) and len(record["faces"]) == (3 if faces == "detect" else 1)


def test_an_unreadable_picture_of_a_batch_has_its_error_and_the_others_their_faces(client, picture):
    body, kind = serving.form("files", ("a.png", picture), ("b.png", b"no picture"), ("c.png", picture[:200]))
    status, _, found = client.post(f"{PATH}/batch", body, kind)
    one, two, three = found["pictures"]
    assert status == 200 and [face["label"] for face in one["faces"]] == ["left", "right"] and one["error"] is None
    assert two["error"].startswith("b.png: not a readable picture") and two["faces"] == [] and two["size"] is None
    assert three["error"].startswith("c.png: not a readable picture")


def test_an_explanation_is_a_png_for_each_face(client, picture):
    _, _, record = client.post(f"{PATH}?explain=true", picture)
    urls = [face["explanation"] for face in record["faces"]]
    start = "data:image/png;base64,"
    assert all(url.startswith(start) for url in urls)
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix(start))))) for url in urls]
    assert [one.shape for one in pixels] == [(8, 8, 3)] * 2 and [one.max() for one in pixels] == [0, 1]
    _, _, record = client.post(PATH, picture)
    assert not any("explanation" in face for face in record["faces"])


REFUSED = [
    ("GET", PATH, b"", "", 405, "Method Not Allowed"),
    ("GET", "/nothing", b"", "", 404, "there is nothing at /nothing"),
    ("POST", "/nothing", b"a", "image/png", 404, "there is nothing at /nothing"),
    ("POST", PATH, b"{}", "application/json", 415, "the body is application/json: send a form"),
    ("POST", PATH, b"", "", 415, "the body is of no stated kind: send a form"),
    ("POST", f"{PATH}/batch", b"a", "image/png", 415, "with the field 'files'"),
    ("POST", PATH, b"", "image/png", 422, "the picture: not a readable picture (the file is empty)"),
    ("POST", PATH, b"garbage" * 9, "application/octet-stream", 422, "it is not one of JPEG, PNG"),
    ("POST", PATH, bombs.png(100), "image/png", 422, "the picture: not a readable picture"),
    ("POST", PATH, bombs.png(60_000), "image/png", 413, "more than 1,000,000 pixels"),
    ("POST", PATH, bombs.png(1_001), "image/png", 413, "more than 1,000,000 pixels"),
    ("POST", PATH, bombs.tiff(1_008), "image/tiff", 413, "more than 1,000,000 pixels"),
    ("POST", PATH, bytes(100_001), "image/png", 413, "more than 100,000 bytes"),
    ("POST", f"{PATH}?faces=yunet:x", b"a", "image/png", 422, "the parameter 'faces' is wrong"),
    ("POST", f"{PATH}?threshold=1.5", b"a", "image/png", 422, "the parameter 'threshold' is wrong"),
    ("POST", f"{PATH}?align=2", b"a", "image/png", 422, "the parameter 'align' is wrong: give true or false"),
    ("POST", PATH, b"--x", "multipart/form-data", 400, "boundary"),
    ("POST", PATH, b"no form", "multipart/form-data; boundary=x", 400, "Invalid multipart data"),
]


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [(row[:4], *row[4:]) for row in REFUSED],
    ids=[f"{row[4]} {row[5]}" for row in REFUSED],
)
def test_a_refusal_is_json_with_one_message(client, request_, status, message):
    found, headers, answer = client.call(*request_)
    assert (found, list(answer)) == (status, ["error"]) and message in answer["error"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert client.call("GET", "/health/live")[0] == 200


def test_forms_with_other_fields_or_too_many_files_are_refused(client, picture):
    status, _, answer = client.post(PATH, *serving.form("picture", ("a.png", picture)))
    assert status == 422 and answer["error"] == "the form has no file in its field 'file'"
    status, _, answer = client.post(PATH, *serving.form("file", ("a.png", picture), other="align"))
    assert status == 422 and answer["error"] == "the form has more than files in its field 'file'"
    status, _, answer = client.post(f"{PATH}/batch", *serving.form("files", *[("a.png", picture)] * 4))
    assert status == 400 and answer["error"] == "Too many files. Maximum number of files is 3."


def test_an_endless_upload_is_refused_while_it_is_sent(client):
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as line:
        line.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n")
        line.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):  # more than the buffers of the connection hold
            line.sendall(b"f4240\r\n" + bytes(1_000_000) + b"\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 413 ")


def test_the_limit_holds_before_more_is_read():
    """The wrapped receive is never asked for more than the part that passes the limit."""
    asked = []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": bytes(400), "more_body": True}

    body = guard._Body(receive, {b"transfer-encoding": b"chunked"}, Limits(max_bytes=1000))

    async def read():
        while True:
            await body.receive()

    with pytest.raises(guard.HTTPException) as caught:
        asyncio.run(read())
    assert caught.value.status_code == 413 and len(asked) == 3
    body = guard._Body(receive, {b"content-length": b"1001"}, Limits(max_bytes=1000))
    with pytest.raises(guard.HTTPException):
        asyncio.run(body.receive())
    assert len(asked) == 3


def test_a_slow_client_is_refused_and_disconnected(service):
    with (
        serving.running(service, limits=Limits(body_seconds=0.3)) as client,
        socket.create_connection(("127.0.0.1", client.port), timeout=10) as line,
    ):
        line.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nab"
        )
        answer = b"".join(iter(lambda: line.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive within 0.3 s" in answer


def test_a_connection_without_a_whole_request_is_closed(service, monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.3)
    with (
        serving.running(service) as client,
        socket.create_connection(("127.0.0.1", client.port), timeout=10) as line,
    ):
        line.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert line.recv(100) == b""


def test_a_connection_in_use_stays_open(service, monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.5)
    with (
        serving.running(service) as client,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=10)) as connection,
    ):
        connection.connect()
        line, end = connection.sock, time.monotonic() + 1.5
        while time.monotonic() < end:
            connection.request("GET", "/health/live")
            assert connection.getresponse().read() and connection.sock is line
            time.sleep(0.05)


def test_without_the_token_nothing_is_answered_but_health(service, picture):
    with serving.running(service, token=TOKEN) as client:
        assert client.post(PATH, picture)[0] == 200
        assert client.call("GET", "/metrics")[0] == 200
        assert client.call("GET", "/config.json")[2] == {"backend": "service", "token_required": True}
        for token in (None, TOKEN[:-1], TOKEN + "0", "0" * 16, "ü" * 3):
            client.token = token
            for method, path in (("POST", PATH), ("POST", f"{PATH}/batch"), ("GET", "/v1/model"), ("GET", "/metrics")):
                status, headers, answer = client.call(method, path, picture, "image/png")
                assert status == 401 and headers["WWW-Authenticate"] == "Bearer" and "token" in answer["error"]
            assert client.call("GET", "/health/live")[2] == {"status": "live"}


def test_another_host_name_is_refused(client):
    assert client.call("GET", "/v1/model", Host=f"127.0.0.1:{client.port}")[0] == 200
    for host in ("attacker.example", f"attacker.example:{client.port}", "127.0.0.1.attacker.example", ""):
        status, _, answer = client.call("GET", "/v1/model", Host=host)
        assert status == 403 and "127.0.0.1" in answer["error"]


def test_pages_of_other_sites_are_refused(client, picture):
    for origin in ("https://a.example", f"http://a.example:{client.port}", "http://127.0.0.1.a.example", "null", ""):
        status, _, answer = client.post(PATH, picture, Origin=origin)
        assert status == 403 and "pages of other sites" in answer["error"]
    assert client.post(PATH, picture, Origin=f"http://127.0.0.1:{client.port}")[0] == 200


def wait_until(is_so):
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Held:
    """Holds the batches of a service until it is let go."""

    def __init__(self, service, monkeypatch):
        self.entered, self.release = threading.Event(), threading.Event()
        probs_fn = service._batcher._probs_fn

        def held(faces):
            self.entered.set()
            assert self.release.wait(30)
            return probs_fn(faces)

        monkeypatch.setattr(service._batcher, "_probs_fn", held)


def test_beyond_the_limit_of_requests_clients_are_told_to_come_back(service, picture, monkeypatch):
    held = Held(service, monkeypatch)
    with (
        serving.running(service, limits=Limits(max_requests=1)) as client,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        first = pool.submit(client.post, PATH, picture)
        assert held.entered.wait(30)
        assert client.call("GET", "/health/ready")[0] == 503
        status, headers, answer = client.post(PATH, picture)
        assert status == 503 and headers["Retry-After"] == "1" and "try again" in answer["error"]
        held.release.set()
        assert first.result()[0] == 200
        assert client.post(PATH, picture)[0] == 200
        assert client.call("GET", "/health/ready")[2] == {"status": "ready"}


def test_requests_in_work_are_answered_when_the_service_ends(service, picture, monkeypatch):
    held = Held(service, monkeypatch)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with serving.running(service) as client:
            answers = [pool.submit(client.post, PATH, picture) for _ in range(3)]
            assert held.entered.wait(30)
            wait_until(lambda: service.in_work == 3)
            threading.Timer(0.5, held.release.set).start()
        assert [answer.result()[0] for answer in answers] == [200] * 3


def test_parallel_requests_share_batches_and_get_their_own_answers(service, monkeypatch):
    sizes = []
    monkeypatch.setattr(service._batcher, "_on_batch", sizes.append)
    shares = np.linspace(0, 1, 24)
    bodies = [serving.encode(serving.scene(*[share] * (1 + number % 3))) for number, share in enumerate(shares)]
    with serving.running(service) as client:
        alone = [client.post(PATH, body)[2] for body in bodies]
        del sizes[:]
        held = Held(service, monkeypatch)
        service._batcher.submit(np.zeros((1, 48, 48, 1), np.uint8))
        assert held.entered.wait(30)
        with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
            coming = [pool.submit(client.post, PATH, body) for body in bodies]
            wait_until(lambda: service._batcher.queued() == 24)
            held.release.set()
            together = [one.result()[2] for one in coming]
    assert len(sizes) < 5 and sum(sizes) == 1 + sum(1 + number % 3 for number in range(24))
    for one, other in zip(alone, together, strict=True):
        assert [face["box"] for face in one["faces"]] == [face["box"] for face in other["faces"]]
        for mine, theirs in zip(one["faces"], other["faces"], strict=True):
            assert mine["probs"] == pytest.approx(theirs["probs"], abs=1e-4)  # sums of a batch are in another order
    assert {face["label"] for record in together for face in record["faces"]} == {"left", "right"}


@pytest.mark.parametrize("requests", [1, 2])
def test_a_client_that_reads_no_answer_is_disconnected(service, picture, monkeypatch, requests):
    """The first answer waits to be read once it is written; one after it before, with the slot of its request."""
    monkeypatch.setattr(service, "_explain", lambda pixels, found, align: ["x" * 10_000_000] * len(found))
    monkeypatch.setattr(server, "IDLE_SECONDS" if requests == 1 else "SEND_SECONDS", 0.3)
    head = f"POST {PATH}?explain=true HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    request = f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture
    with (
        serving.running(service, limits=Limits(max_requests=1)) as client,
        socket.create_connection(("127.0.0.1", client.port), timeout=10) as line,
    ):
        read = 'fer_jax_pictures_total{outcome="read"}'
        before = figures(service.metrics.text().decode()).get(read, 0)
        line.sendall(request * requests)
        wait_until(lambda: figures(service.metrics.text().decode()).get(read, 0) == before + requests)
        wait_until(lambda: not client.server.server_state.connections)
        wait_until(lambda: service.in_work == 0)
        assert client.post(PATH, picture)[0] == 200


def test_a_defect_is_a_500_of_its_request_alone(service, picture, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a defect")

    with serving.running(service) as client:
        with monkeypatch.context() as patch:
            patch.setattr(service.recognizer, "explain_faces", broken)
            status, _, answer = client.post(f"{PATH}?explain=true", picture)
        assert status == 500 and "a defect" not in answer["error"]
        assert client.post(f"{PATH}?explain=true", picture)[0] == 200
        assert 'fer_jax_requests_total{route="/v1/predict",status="500"} 1.0' in client.call("GET", "/metrics")[2]


def test_a_defect_ends_the_work_on_its_batch(service, picture, monkeypatch):
    ended = []

    async def predict(data, source, options):
        if source == "b.png":
            raise RuntimeError("a defect")
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(source)

    monkeypatch.setattr(service, "predict", predict)
    with serving.running(service) as client:
        body, kind = serving.form("files", *[(name, picture) for name in ("a.png", "b.png", "c.png")])
        assert client.post(f"{PATH}/batch", body, kind)[0] == 500
        assert sorted(ended) == ["a.png", "c.png"]


def test_the_model_is_described(client):
    _, _, model = client.call("GET", "/v1/model")
    assert model["name"] == "brighter" and model["classes"] == ["left", "right"] and model["detector"] == "squares"
    assert model["image_shape"] == [48, 48, 1] and model["views"] == "none" and model["temperature"] == 1
    assert model["runtime"]["chosen"] == {"1": "jax", "8": "jax", "32": "jax"}
    assert set(model["runtime"]["milliseconds"]["jax"]) == {"1", "8", "32"}


def figures(text):
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_the_metrics_count_what_was_asked(picture):
    with serving.running() as client:
        for body in (picture, picture, b"garbage"):
            client.post(PATH, body)
        client.call("GET", "/elsewhere")
        found = figures(client.call("GET", "/metrics")[2])
    assert found['fer_jax_requests_total{route="/v1/predict",status="200"}'] == 2
    assert found['fer_jax_requests_total{route="/v1/predict",status="422"}'] == 1
    assert found['fer_jax_requests_total{route="other",status="404"}'] == 1
    assert found['fer_jax_request_seconds_count{route="/v1/predict"}'] == 3
    assert found["fer_jax_batch_faces_sum"] == found["fer_jax_faces_total"] == 4
    assert found['fer_jax_pictures_total{outcome="refused"}'] == 1
    assert found["fer_jax_requests_queued"] == found["fer_jax_requests_in_work"] == 0


def test_the_page_is_served_under_a_strict_policy(service, tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("<title>faces</title>")
    (tmp_path / "model.bin").write_bytes(b"abc")
    monkeypatch.setattr(app, "WEB", tmp_path)
    with serving.running(service) as client:
        status, headers, text = client.call("GET", "/")
        assert status == 200 and text == "<title>faces</title>"
        policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'self'" and policy["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert policy["img-src"] == "'self' blob: data:" and policy["frame-ancestors"] == "'none'"
        assert client.call("GET", "/model.bin")[2] == "abc"
        assert client.call("GET", "/config.json")[2] == {"backend": "service", "token_required": False}
        assert client.call("GET", PATH)[0] == 405
        assert "Access-Control-Allow-Origin" not in client.call("GET", "/v1/model", Origin="https://a.example")[1]


def test_the_page_is_all_of_the_files_that_is_served(service, tmp_path, monkeypatch):
    (tmp_path / "web").mkdir()
    for path in ("web/index.html", "web/secret.txt", "secret.txt"):
        (tmp_path / path).write_text(path)
    monkeypatch.setattr(app, "WEB", tmp_path / "web")
    with serving.running(service) as client:
        assert client.call("GET", "/secret.txt")[2] == "web/secret.txt"
        (tmp_path / "web" / "secret.txt").unlink()
        for up in ("/../", "/%2e%2e/", "/..%2f", "/%2e%2e%2f", "/..%5c", "//..//", "/web/../../", f"/{tmp_path}/"):
            assert client.call("GET", f"{up}secret.txt")[0] == 404


def test_the_interface_is_described_without_pages_from_elsewhere(client):
    status, _, schema = client.call("GET", "/openapi.json")
    assert status == 200 and schema["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    assert described == {
        ("POST", PATH), ("POST", f"{PATH}/batch"), ("GET", "/v1/model"), ("GET", "/metrics"),
        ("GET", "/health/live"), ("GET", "/health/ready"),
    }  # fmt: skip
    assert [client.call("GET", path)[0] for path in ("/docs", "/redoc")] == [404, 404]


@pytest.mark.full
def test_schemathesis_finds_nothing(service, tmp_path):
    """All checks of Schemathesis, with requests that it makes up from the schema; real pictures where it says bytes."""
    pytest.importorskip("schemathesis")
    with serving.running(service, token=TOKEN) as client:
        words = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{client.port}/openapi.json"]
        words += [
            "--checks=all",
            "--max-examples=15",
            "--seed=1",
            "--no-color",
            f"--header=Authorization: Bearer {TOKEN}",
        ]
        paths = os.pathsep.join([str(pathlib.Path(serving.__file__).parent), os.environ["PYTHONPATH"]])
        environment = {**os.environ, "PYTHONPATH": paths, "SCHEMATHESIS_HOOKS": "schemathesis_pictures"}
        ran = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6 selected / 6 total" in ran.stdout


def test_answers_are_as_the_schema_says(client, picture):
    jsonschema = pytest.importorskip("jsonschema")
    schema = client.call("GET", "/openapi.json")[2]

    def check(name, value):
        jsonschema.Draft202012Validator({**schema, "$ref": f"#/components/schemas/{name}"}).validate(value)

    check("Picture", client.post(f"{PATH}?explain=true", picture)[2])
    check("Picture", client.post(f"{PATH}?faces=given", picture)[2])
    check("Pictures", client.post(f"{PATH}/batch", *serving.form("files", ("a", picture), ("b", b"text")))[2])
    check("Model", client.call("GET", "/v1/model")[2])
    check("Error", client.post(PATH, b"text")[2])
    with pytest.raises(jsonschema.ValidationError):
        check("Picture", {**client.post(PATH, picture)[2], "more": 1})
