"""Runs the service of a small model in a thread, and calls it as a client does."""

import contextlib
import http.client
import io
import json
import threading
import uuid

import numpy as np
from PIL import Image

from fer_jax import faces as faces_lib
from fer_jax import recognizer
from fer_jax.serve import app, server
from fer_jax.serve.limits import Limits
from fer_jax.serve.service import Service

DEFAULTS = Limits()
CLASSES = ("left", "right")
SIDE, CELL = 48, 100


class Brighter:
    """A network that says which half of a face is brighter."""

    def apply(self, variables, images, train):
        import jax.numpy as jnp

        images = images.astype(jnp.float32)[..., 0] / 255
        halves = [images[:, :, : SIDE // 2].mean((1, 2)), images[:, :, SIDE // 2 :].mean((1, 2))]
        return variables["gain"] * jnp.stack(halves, axis=1)


class Detector:
    """Finds the squares of 60 px that are not black, on a grid."""

    name = "squares"

    def detect(self, pictures):
        return [
            [
                faces_lib.Face((x, y, 60.0, 60.0), 0.9)
                for y in range(0, picture.shape[0], CELL)
                for x in range(0, picture.shape[1], CELL)
                if picture[y : y + 60, x : x + 60].any()
            ]
            for picture in pictures
        ]


class Recognizer(recognizer.Recognizer):
    def __init__(self):
        member = recognizer.Member(Brighter(), {"gain": np.float32(9)}, CLASSES)
        super().__init__("brighter", [member], (SIDE, SIDE, 1))
        self._detectors["auto"] = Detector()

    def explain_faces(self, pixels, found, *, align=True):
        return [np.full((8, 8, 3), number, np.uint8) for number in range(len(found))]


def scene(*shares):
    """Returns a picture with a face for each share of light that its left half has; None: no face there."""
    pixels = np.zeros((CELL, CELL * max(1, len(shares)), 3), np.uint8)
    for place, share in enumerate(shares):
        if share is not None:
            at = CELL * place
            pixels[:60, at : at + 30], pixels[:60, at + 30 : at + 60] = 250 * share, 250 * (1 - share)
    return pixels


def encode(pixels, kind="png"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def form(field, *files, other=None):
    """Returns (body, content type) of a form with files (name, bytes) and, if given, another field."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + data
        for name, data in files
    ]
    if other:
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{other}"\r\n\r\ntext'.encode())
    return b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


class Client:
    def __init__(self, port, token=None):
        self.port, self.token = port, token

    def call(self, method, path, body=None, kind=None, **headers):
        """Returns (status, headers, JSON or text)."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {"Content-Type": kind} if kind else {}
        headers |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers, encode_chunked=not isinstance(body, bytes | None))
            answer = connection.getresponse()
            text = answer.read()
        is_json = answer.headers.get("Content-Type") == "application/json"
        return answer.status, answer.headers, json.loads(text) if is_json else text.decode()

    def post(self, path, body, kind="image/png", **headers):
        return self.call("POST", path, body, kind, **headers)


@contextlib.contextmanager
def running(service=None, *, limits=DEFAULTS, **options):
    """Yields a client of a service; options: of `app.make_app`."""
    with contextlib.ExitStack() as stack:
        service = service or stack.enter_context(Service(Recognizer(), runtime="jax"))
        stopped = threading.Event()
        bound = server.bind("127.0.0.1", 0)
        port, started = bound.getsockname()[1], threading.Event()
        one = server.Server(app.make_app(service, limits=limits, **options), stopped.is_set, started.set)
        thread = threading.Thread(target=one.run, args=([bound],), daemon=True)
        thread.start()
        assert started.wait(30)
        client = Client(port, options.get("token"))
        client.service, client.server = service, one
        try:
            yield client
        finally:
            stopped.set()
            thread.join(60)
            assert not thread.is_alive()
