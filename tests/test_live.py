"""A camera's frames are predicted as they come, and shown on a page of this machine."""

import http.client
import io
import json
import socket
import threading
import time

import numpy as np
import pytest
import stand_in
from PIL import Image

from fer_jax import live, outputs, predicting, videos
from fer_jax.errors import InputError


class Camera:
    """A camera that waits until a frame was shown, so that none is dropped; it shows a face that turns sad."""

    def __init__(self, count=20, unplugged=False):
        self.shown, self._count, self._unplugged = threading.Semaphore(1), count, unplugged

    def frames(self):
        for number in range(self._count):
            self.shown.acquire()
            scene = stand_in.picture(((10 + number, 30, 40), "happy" if number < 10 else "sad", 0.9))
            yield videos.Frame(number, number / 10, scene)
        if self._unplugged:
            raise InputError("unplugged")


class Recorder:
    """An output that keeps lines, and a view that keeps what it was shown and lets the camera go on."""

    def __init__(self, camera, end_after=None, interrupt_after=None):
        self.camera, self.end_after, self.interrupt_after = camera, end_after, interrupt_after
        self.lines, self.pictures, self.said = [], [], []

    def write(self, text, state):
        assert state is None
        self.lines += [json.loads(line) for line in text.splitlines()]

    def show(self, pixels, record, latencies):
        self.pictures.append(pixels)
        self.said.append(record)
        self.camera.shown.release()
        if len(self.said) == self.interrupt_after:
            raise KeyboardInterrupt
        return len(self.said) != self.end_after


def watch(camera, recorder, **options):
    return predicting.watch(
        stand_in.Recognizer(), camera.frames(), "camera:7", recorder, "jsonl",
        options=predicting.Options(**options), show_fn=recorder.show,
    )  # fmt: skip


def test_every_frame_is_predicted_followed_written_and_shown():
    camera = Camera()
    recorder = Recorder(camera)
    latencies, interrupt = watch(camera, recorder, smooth_seconds=0)
    assert interrupt is None
    assert recorder.said == recorder.lines
    assert [(record["source"], record["frame"], record["seconds"]) for record in recorder.lines] == [
        ("camera:7", number, number / 10) for number in range(20)
    ]
    (faces,) = zip(*(record["faces"] for record in recorder.lines), strict=True)
    assert [face["label"] for face in faces] == ["happy"] * 10 + ["sad"] * 10
    assert {face["track"] for face in faces} == {1}
    assert len(latencies) == 20 and all(0 < seconds < 60 for seconds in latencies)
    median, high = live.percentiles_ms(latencies)
    ranked = sorted(1000 * seconds for seconds in latencies)
    assert ranked[9] - 0.1 <= median <= ranked[10] + 0.1 and ranked[18] - 0.1 <= high <= ranked[19] + 0.1


def test_a_slow_model_gets_the_newest_frame():
    def frames():
        for number in range(50):
            time.sleep(0.01)
            yield videos.Frame(number, number / 100, stand_in.picture())

    recorder = Recorder(Camera())
    recorder.show = lambda *_: time.sleep(0.1)
    predicting.watch(
        stand_in.Recognizer(), frames(), "camera:0", recorder, "jsonl",
        options=predicting.Options(), show_fn=recorder.show,
    )  # fmt: skip
    numbers = [record["frame"] for record in recorder.lines]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 49
    assert len(numbers) < 25


def test_whoever_looks_may_end_it_and_so_may_a_signal():
    camera = Camera()
    recorder = Recorder(camera, end_after=5)
    assert len(watch(camera, recorder)[0]) == 4 and len(recorder.lines) == 5
    camera = Camera()
    recorder = Recorder(camera, interrupt_after=6)
    _, interrupt = watch(camera, recorder)
    assert isinstance(interrupt, KeyboardInterrupt) and len(recorder.lines) == 6
    camera = Camera(3, unplugged=True)
    with pytest.raises(InputError, match="unplugged"):
        watch(camera, Recorder(camera))


def test_a_camera_is_drawn_in_a_video_at_its_pace(tmp_path):
    cv2 = pytest.importorskip("cv2")
    camera = Camera(11)
    recorder = Recorder(camera, interrupt_after=11)
    _, interrupt = watch(camera, recorder, annotate=str(tmp_path / "a.mp4"))
    assert interrupt is not None
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    frames = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    assert frames == pytest.approx(1.0, abs=0.1)


def get(page, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def next_jpeg(response):
    """Reads one part of a multipart stream."""
    assert response.fp.readline() == b"--frame\r\n"
    headers = dict(line.decode().strip().split(": ") for line in iter(response.fp.readline, b"\r\n"))
    assert headers["Content-Type"] == "image/jpeg"
    content = response.fp.read(int(headers["Content-Length"]))
    assert response.fp.readline() == b"\r\n"
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_page_has_the_stream_and_the_probabilities():
    with live.Page(0) as page:
        assert page.place == f"http://127.0.0.1:{page.port}/"
        home = get(page, "/")
        assert home.status == 200 and b'<img src="/stream"' in home.read()
        assert json.loads(get(page, "/state").read()) == {"record": None, "p95_ms": None}
        grey = np.full((48, 64, 3), 90, np.uint8)
        assert page.show(grey, {"faces": [], "source": "camera:0"}, [0.01] * 100) is True
        stream = get(page, "/stream")
        assert stream.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        assert np.abs(next_jpeg(stream).astype(int) - grey).max() <= 2
        page.show(grey + 100, {"faces": []}, [0.01] * 100)
        assert np.abs(next_jpeg(stream).astype(int) - grey - 100).max() <= 2
        assert json.loads(get(page, "/state").read()) == {"record": {"faces": []}, "p95_ms": 10.0}
    assert stream.fp.read() == b""  # it ends with the camera


def test_the_page_is_for_this_machine_and_a_few_viewers():
    with live.Page(0) as page:
        page.show(np.zeros((8, 8, 3), np.uint8), {}, [])
        assert get(page, "/other").status == 404
        assert get(page, "/state", Host="attacker.example").status == 403
        streams = [get(page, "/stream") for _ in range(live.MOST_VIEWERS)]
        assert [stream.status for stream in streams] == [200] * live.MOST_VIEWERS
        assert get(page, "/stream").status == 503
        streams[0].close()
        deadline = time.monotonic() + 10
        while (again := get(page, "/stream")).status == 503 and time.monotonic() < deadline:
            page.show(np.zeros((8, 8, 3), np.uint8), {}, [])  # whoever has left is seen when something is sent
        assert again.status == 200
        assert page._server.server_address[0] == "127.0.0.1"
        with pytest.raises(InputError, match=f"port {page.port} cannot be used"):
            live.Page(page.port)


def test_without_a_screen_there_is_a_page(monkeypatch):
    monkeypatch.setattr(live.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with live.open_view(port) as view:
        assert isinstance(view, live.Page) and view.port == port


def test_opencv_without_windows_leads_to_a_page(monkeypatch):
    cv2 = pytest.importorskip("cv2")

    def refuse(*_):
        raise cv2.error("not implemented")

    monkeypatch.setattr(cv2, "namedWindow", refuse)
    monkeypatch.setenv("DISPLAY", ":0")
    with live.open_view(0) as view:
        assert isinstance(view, live.Page)


def test_an_output_of_a_camera_is_whole_when_it_is_stopped(tmp_path):
    camera = Camera()
    facts = {"digest": "1", "format": "jsonl", "part": [1, 1], "sources": 1}
    recorder = Recorder(camera, interrupt_after=3)
    with outputs.Output(tmp_path / "a.jsonl", "", facts) as output:
        predicting.watch(
            stand_in.Recognizer(), camera.frames(), "camera:0", output, "jsonl",
            options=predicting.Options(), show_fn=recorder.show,
        )  # fmt: skip
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
