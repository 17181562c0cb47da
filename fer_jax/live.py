"""Shows annotated camera frames live: in a window, or on a web page on this machine."""

import contextlib
import functools
import http.server
import io
import json
import os
import socketserver
import sys
import threading

import numpy as np
from PIL import Image

from fer_jax.errors import InputError

HOST, PORT = "127.0.0.1", 8765
MOST_VIEWERS = 4
IDLE_SECONDS = 10.0  # after which an idle viewer is disconnected
JPEG_QUALITY = 80
TITLE = "fer_jax"
_BOUNDARY = "frame"
_PAGE = """<!doctype html>
<meta charset="utf-8"><title>fer_jax</title>
<style>
body { margin: 0; background: #111827; color: #fff; font: 15px/1.5 system-ui, sans-serif; text-align: center; }
img { max-width: 100%; max-height: 80vh; }
</style>
<img src="/stream" alt="the camera, with the faces that were found">
<p id="now">waiting for the camera</p>
<script>
const percent = p => Math.round(100 * p) + "%";
setInterval(async () => {
  const now = document.getElementById("now");
  try {
    const state = await (await fetch("/state")).json();
    if (!state.record) return;
    const faces = state.record.faces.map(face => (face.track ? face.track + ": " : "") +
      Object.entries(face.probs).map(([name, p]) => name + " " + percent(p)).join(", "));
    now.textContent = (faces.join(" | ") || "no face") +
      (state.p95_ms === null ? "" : " (95 % of the frames within " + state.p95_ms + " ms)");
  } catch { now.textContent = "the camera has ended"; }
}, 500);
</script>
"""


def percentiles_ms(latencies) -> tuple[float, float] | None:
    """Returns the median and the 95th percentile of latencies in seconds, in milliseconds; None without any."""
    if not latencies:
        return None
    median, high = np.percentile(np.asarray(latencies, np.float64) * 1000, [50, 95])
    return round(float(median), 1), round(float(high), 1)


def open_view(port: int = PORT):
    """Returns a Window if there is a screen and OpenCV supports windows, else a Page."""
    if _has_screen():
        with contextlib.suppress(InputError):
            return Window()
    return Page(port)


def _has_screen():
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


class Window:
    """A window; a context manager. `q`, Escape or closing it ends the show.

    Raises:
      InputError: OpenCV is missing, or built without windows.
    """

    place = "a window; q or Escape ends"

    def __init__(self):
        try:
            import cv2

            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)
        except ImportError as error:
            raise InputError(f"OpenCV is not installed ({error})") from error
        except cv2.error as error:
            raise InputError("this OpenCV is built without windows") from error
        self._cv2 = cv2

    def show(self, pixels, record, latencies) -> bool:
        """Shows a frame, uint8 [H, W, 3]; returns whether the window is still open."""
        self._cv2.imshow(TITLE, pixels[..., ::-1])
        asked = self._cv2.waitKey(1) & 0xFF
        return asked not in (ord("q"), 27) and self._cv2.getWindowProperty(TITLE, self._cv2.WND_PROP_VISIBLE) >= 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._cv2.destroyAllWindows()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False


class Page:
    """A web page, for this machine only, with the stream and the current probabilities; a context manager.

    Attributes:
      place: its address.

    Raises:
      InputError: the port is in use.
    """

    def __init__(self, port: int = PORT):
        self._jpeg, self._state, self._number = b"", b'{"record": null, "p95_ms": null}', 0
        self._news, self._viewers, self._ended = threading.Condition(), threading.Semaphore(MOST_VIEWERS), False
        try:
            self._server = _Server((HOST, port), _make_handler(self))
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} cannot be used ({error}): give another --port") from error
        self.port = self._server.server_address[1]
        self.place = f"http://{HOST}:{self.port}/"

    def show(self, pixels, record, latencies) -> bool:
        """Publishes a frame, uint8 [H, W, 3], and its record; always returns True, since a page is never closed."""
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "jpeg", quality=JPEG_QUALITY)
        found = percentiles_ms(latencies)
        state = json.dumps({"record": record, "p95_ms": found and found[1]}).encode()
        with self._news:
            self._jpeg, self._state, self._number = stream.getvalue(), state, self._number + 1
            self._news.notify_all()
        return True

    def frames(self):
        """Yields the latest published JPEG each time, until the show ends."""
        seen = 0
        while True:
            with self._news:
                self._news.wait_for(functools.partial(self._has_news, seen), timeout=IDLE_SECONDS)
                if self._ended:
                    return
                jpeg, seen = self._jpeg, self._number
            if jpeg:
                yield jpeg

    def _has_news(self, seen):
        return self._number > seen or self._ended

    @contextlib.contextmanager
    def viewing(self):
        """Yields whether there is room for another viewer."""
        room = self._viewers.acquire(blocking=False)
        try:
            yield room
        finally:
            if room:
                self._viewers.release()

    @property
    def state(self) -> bytes:
        """The latest record and the 95th percentile of the latency, as JSON."""
        return self._state

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        with self._news:
            self._ended = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()


def _make_handler(page):
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = IDLE_SECONDS

        def do_GET(self):
            # DNS rebinding: another site could point its own host name to this address.
            if self.headers.get("Host") not in (f"{HOST}:{page.port}", f"localhost:{page.port}"):
                self.send_error(403)
            elif self.path == "/":
                self._send(_PAGE.encode(), "text/html; charset=utf-8")
            elif self.path == "/state":
                self._send(page.state, "application/json")
            elif self.path == "/stream":
                self._stream()
            else:
                self.send_error(404)

        def _send(self, content, kind):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def _stream(self):
            with page.viewing() as room, contextlib.suppress(OSError):  # viewers may disconnect at any time
                if not room:
                    self.send_error(503, f"all {MOST_VIEWERS} viewers are connected")
                    return
                self.send_response(200)
                self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                for jpeg in page.frames():
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")

        def log_message(self, *_):
            pass

    return Handler
