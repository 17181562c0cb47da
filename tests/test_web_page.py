"""The page in Chromium: its answers are Python's, and everything on it works by keyboard and for screen readers."""

import base64
import contextlib
import csv
import functools
import http.server
import io
import itertools
import json
import math
import os
import pathlib
import shutil
import threading
import urllib.parse

import numpy as np
import pytest
import test_onnx
from PIL import Image

import fer_jax
from fer_jax import faces as faces_lib
from fer_jax.datasets import drawn_faces
from fer_jax.errors import InputError
from fer_jax.exports import web
from fer_jax.pretrained import fetch, registry

pytestmark = pytest.mark.full

CLASSES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
FAKE_CAMERA = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--use-file-for-fake-video-capture={}",
)
LOAD_MS = 60_000


@pytest.fixture(scope="module")
def model():
    return fer_jax.load()


@pytest.fixture(scope="module")
def photograph():
    skimage_data = pytest.importorskip("skimage.data")
    return skimage_data.astronaut()


@pytest.fixture(scope="module")
def crowd(photograph):
    """A large photograph of several faces: large, small, turned, and at an edge."""
    scene = Image.new("RGB", (1600, 1200), (96, 110, 120))
    head = Image.fromarray(photograph).crop((95, 0, 355, 260))
    for x, y, side, degrees in ((30, 40, 900, 12), (980, 60, 420, -25), (960, 640, 500, 0), (1330, 500, 420, 4)):
        turned = head.resize((side, side), Image.Resampling.LANCZOS).rotate(degrees, Image.Resampling.BICUBIC)
        scene.paste(turned, (x, y))
    return np.asarray(scene)


def export(folder, model):
    """Writes the exported folder, or skips the test."""
    row = registry.find("blazeface")
    if not fetch.find(row):
        pytest.skip(f"the weights of BlazeFace are not on this machine: {fetch.fetch_command(row)}")
    try:
        web.write(folder, model)
    except InputError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory, model):
    return export(tmp_path_factory.mktemp("exported") / "site", model)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class IsolatedHandler(Handler):
    """Serves pages that may use threads."""

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


class ServiceHandler(Handler):
    """Stands for `fer-jax serve`: the token is 'right', each picture has one happy face."""

    def do_GET(self):
        if self.path == "/config.json":
            return self.answer(200, {"backend": "service", "token_required": True})
        if self.path == "/v1/model":
            return self.answer(200, {"name": "theirs"}) if self.is_known() else self.refuse()
        return super().do_GET()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.is_known():
            return self.refuse()
        size = list(Image.open(io.BytesIO(body)).size)
        probs = {name: 0.9 if name == "happy" else 0.1 / 6 for name in CLASSES}
        top = [["happy", 0.9], ["angry", 0.1 / 6]]
        face = {"box": [size[0] / 4, size[1] / 4, size[0] / 2, size[1] / 2], "score": 0.9, "probs": probs}
        face |= {"label": "happy", "top": top, "uncertain": False}
        if urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)["explain"] == ["true"]:
            face["explanation"] = data_url(np.zeros((8, 8, 3), np.uint8))
        return self.answer(200, {"size": size, "faces": [face]})

    def is_known(self):
        return self.headers["Authorization"] == "Bearer right"

    def refuse(self):
        self.answer(401, {"error": "the token is wrong"})

    def answer(self, status, content):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextlib.contextmanager
def serve(handler, folder):
    """Serves a folder; yields its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def address(site):
    with serve(Handler, site) as address:
        yield address


@pytest.fixture
def service_address():
    with serve(ServiceHandler, web.PAGE) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    """Launches Chromium with further flags; each of these browsers is closed at the end."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = []

        def launch(*flags):
            opened.append(playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *flags]))
            return opened[-1]

        yield launch
        for browser in opened:
            browser.close()


@pytest.fixture(scope="module")
def browser(chromium):
    return chromium()


class Visit:
    """A page that is ready. Its requests and complaints are kept, and checked at the end."""

    def __init__(self, browser, address, width=1200, height=900, **options):
        from playwright import sync_api

        self.expect = sync_api.expect
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page, self.address = self.context.new_page(), address
        self.requests, self.complaints = [], []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))
        self.page.goto(address)

    def says(self, text, part="#status"):
        self.expect(self.page.locator(part)).to_have_text(text, timeout=LOAD_MS)

    def evaluate(self, script, *arguments):
        """Runs the body of an async function of `given`; arrays arrive as base64."""
        given = [base64.b64encode(one.tobytes()).decode() if isinstance(one, np.ndarray) else one for one in arguments]
        prelude = "const bytes = (text) => Uint8ClampedArray.from(atob(text), (one) => one.charCodeAt(0));"
        return self.page.evaluate(f"async (given) => {{ {prelude} {script} }}", given)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        strangers = [url for url in self.requests if not url.startswith((self.address, "blob:", "data:"))]
        self.context.close()
        if kind is None:
            assert strangers == [] and self.complaints == []


@pytest.fixture
def visit(browser, address):
    with Visit(browser, address) as visit:
        visit.says("Ready.")
        yield visit


def data_url(pixels):
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def upload(pixels, name="photo.png"):
    return {"name": name, "mimeType": "image/png", "buffer": png(pixels)}


def rgba(pixels):
    return np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])


def hundred_faces():
    """A hundred faces of FER-2013, or drawn ones."""
    if "FER2013_DIR" not in os.environ:
        return np.stack([example["image"] for _, example in drawn_faces.Examples("train", 100)])
    with open(pathlib.Path(os.environ["FER2013_DIR"]) / "csv" / "fer2013.csv", newline="") as file:
        rows = [row["pixels"].split() for row in itertools.islice(csv.DictReader(file), 100)]
    return np.array(rows, np.uint8).reshape(-1, 48, 48, 1)


def test_pictures_are_shrunk_and_cut_as_pillow_does(visit):
    rng = np.random.default_rng(0)
    for height, width, factor in ((37, 52, 1), (37, 52, 3), (90, 61, 4), (50, 50, 7)):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        image = Image.fromarray(pixels)
        box = [1.25, 0.0, width - 3.5, height - 0.75]
        affine = [0.8, -0.35, 9.5, 0.35, 0.8, 2.25]
        found = visit.evaluate(
            """
            const { reduce, resize, transform, pack } = await import("./pixels.js");
            const [data, width, height, factor, box, affine] = given;
            const picture = { width, height, data: bytes(data) };
            const results = [reduce(picture, factor), resize(picture, 20, 33, box), transform(picture, 24, affine)];
            return [...results.map((one) => Array.from(pack([one], 3))), Array.from(pack([picture], 1))];
            """,
            rgba(pixels), width, height, factor, box, affine,
        )  # fmt: skip
        wanted = (
            image.reduce(factor),
            image.resize((20, 33), Image.Resampling.BILINEAR, box),
            image.transform((24, 24), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR),
            image.convert("L"),
        )
        for mine, reference in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(np.array(mine), np.asarray(reference).ravel())


def test_probabilities_are_those_of_python(visit, model):
    faces = hundred_faces()
    found = visit.evaluate(
        """
        const { open } = await import("./networks.js");
        const classify = await open("model.onnx", "faces", [48, 48, 1]);
        const found = [];
        await classify(new Uint8Array(bytes(given[0])), ({ probs }) => found.push(Array.from(probs)));
        return found;
        """,
        faces,
    )
    assert np.shape(found) == (100, 7)
    np.testing.assert_allclose(found, model.probs(faces), atol=1e-4)


@pytest.mark.parametrize("name", ["photograph", "crowd"])
def test_faces_crops_and_heat_are_those_of_python(visit, model, name, request):
    pixels = request.getfixturevalue(name)
    boxes, crops, predictions, heat = visit.evaluate(
        """
        const { Engine } = await import("./engine.js");
        const { pack } = await import("./pixels.js");
        const [data, width, height] = given;
        const engine = await Engine.open();
        const faces = await engine.predict({ width, height, data: bytes(data) });
        const heat = await engine.explain(0, () => {});
        const crops = engine.last.crops.map((crop) => Array.from(pack([crop], 3)));
        return [faces.map(({ box, score }) => [...box, score]), crops, faces, Array.from(pack([heat], 3))];
        """,
        rgba(pixels), pixels.shape[1], pixels.shape[0],
    )  # fmt: skip
    detector = faces_lib.make_detector("blazeface")
    (wanted,) = detector.detect([pixels])
    assert len(boxes) == len(wanted) == {"photograph": 1, "crowd": 4}[name]
    (prediction,) = model.predict([pixels], "blazeface")
    for (*box, score), crop, mine, face, python in zip(
        boxes, crops, predictions, wanted, prediction.faces, strict=True
    ):
        np.testing.assert_allclose(box, face.box, atol=0.5)
        assert score == pytest.approx(face.score, abs=1e-3)
        difference = np.abs(np.array(crop) - faces_lib.crop(pixels, face, 48).ravel().astype(int))
        assert difference.max() <= 4 and difference.mean() < 0.1
        np.testing.assert_allclose(
            [mine["probs"][name] for name in model.classes], list(python.probs.values()), atol=0.01
        )
        assert (mine["label"], mine["uncertain"]) == (python.label, python.uncertain)
    difference = np.abs(np.array(heat) - model.explain(pixels, "blazeface")[0].ravel().astype(int))
    assert difference.mean() < 1


def test_grad_cam_is_that_of_python(browser, photograph, tmp_path):
    layers = "conv 8 relu, max_pool, conv 8 relu, max_pool, conv 8 relu, global_avg_pool"
    recognizer = test_onnx.make({"layers": layers})
    with serve(Handler, export(tmp_path / "site", recognizer)) as address, Visit(browser, address) as visit:
        visit.says("Ready.")
        found = visit.evaluate(
            """
            const { Engine } = await import("./engine.js");
            const { pack } = await import("./pixels.js");
            const engine = await Engine.open();
            await engine.predict({ width: given[1], height: given[2], data: bytes(given[0]) });
            return Array.from(pack([await engine.explain(0, () => {})], 3));
            """,
            rgba(photograph), photograph.shape[1], photograph.shape[0],
        )  # fmt: skip
    assert (tmp_path / "site" / "heat.onnx").exists()
    wanted = recognizer.explain(photograph, "blazeface")[0].ravel().astype(int)
    assert np.abs(np.array(found) - wanted).mean() < 1


def test_with_threads_the_answer_is_the_same(browser, site, photograph):
    with serve(IsolatedHandler, site) as address, Visit(browser, address) as visit:
        visit.says("Ready.")
        assert visit.page.evaluate("crossOriginIsolated")
        visit.page.locator("#file").set_input_files(upload(photograph))
        visit.says("1 face: happy.")


class StrangerHandler(Handler):
    """Another origin, which lets any page read it."""

    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


def test_the_worker_can_send_nothing_to_another_origin(visit, site):
    (worker,) = visit.page.workers
    with serve(StrangerHandler, site) as stranger:
        fetched = "(url) => fetch(url).then(({ status }) => status, (error) => error.name)"
        assert worker.evaluate(fetched, f"{visit.address}model.json") == 200
        assert worker.evaluate(fetched, f"{stranger}model.json") == "TypeError"
    assert worker.url.startswith("blob:")
    assert all("Content Security Policy" in text for text in visit.complaints)
    visit.complaints.clear()
    visit.requests[:] = [url for url in visit.requests if not url.startswith(stranger)]  # refused, yet listed


def test_a_chosen_picture_shows_boxes_bars_and_heat(visit, photograph, model):
    page = visit.page
    page.locator("#file").set_input_files(upload(photograph))
    visit.says("1 face: happy.")
    ((face,),) = [prediction.faces for prediction in model.predict([photograph], "blazeface")]
    picture, box = page.locator("#picture").bounding_box(), page.locator(".box").bounding_box()
    scale = picture["width"] / photograph.shape[1]
    wanted = [picture["x"] + face.box[0] * scale, picture["y"] + face.box[1] * scale, face.box[2] * scale]
    np.testing.assert_allclose([box["x"], box["y"], box["width"]], wanted, atol=3)
    rows = page.locator("#faces tbody tr").all()
    assert [row.locator("th").inner_text() for row in rows] == list(model.classes)
    shown = [float(row.locator(".share").inner_text().removesuffix(" %")) / 100 for row in rows]
    np.testing.assert_allclose(shown, list(face.probs.values()), atol=0.002)
    widths = [row.locator(".bar").bounding_box()["width"] for row in rows]
    assert np.argmax(widths) == model.classes.index("happy")
    page.get_by_role("button", name="Show why face 1 is happy").click()
    visit.expect(page.get_by_role("img", name="Face 1 with its heat map")).to_be_visible(timeout=LOAD_MS)
    assert page.locator("#faces img").evaluate("(image) => image.naturalWidth") == 192


def test_a_second_picture_replaces_the_first(visit, photograph):
    visit.page.locator("#file").set_input_files(upload(photograph))
    visit.says("1 face: happy.")
    visit.page.locator("#file").set_input_files(upload(np.full((200, 300, 3), 90, np.uint8)))
    visit.says("No face found.")
    assert visit.page.locator(".box").count() == visit.page.locator("#faces article").count() == 0


def test_a_picture_can_be_dropped_or_pasted(visit, photograph):
    for kind in ("drop", "paste"):
        visit.evaluate(
            """
            const [kind, content] = given;
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes(content)], "photo.png", { type: "image/png" }));
            const options = { bubbles: true, dataTransfer: transfer, clipboardData: transfer };
            const event = kind === "drop" ? new DragEvent(kind, options) : new ClipboardEvent(kind, options);
            document.body.dispatchEvent(event);
            """,
            kind,
            np.frombuffer(png(photograph), np.uint8),
        )
        visit.says("1 face: happy.")
        visit.page.locator("#file").set_input_files(upload(np.zeros((90, 90, 3), np.uint8)))
        visit.says("No face found.")


@pytest.fixture(scope="module")
def camera(chromium, photograph, tmp_path_factory):
    """A browser whose camera shows a face that moves to and fro."""
    path = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    portrait = Image.fromarray(photograph).crop((0, 0, 480, 400)).resize((640, 533))
    with path.open("wb") as file:
        for number in range(30):
            frame = Image.new("RGB", (640, 480), (90, 90, 90))
            frame.paste(portrait, (round(30 * math.sin(number / 30 * math.tau)), -20))
            frame.save(file, "jpeg", quality=90)
    return chromium(*(flag.format(path) for flag in FAKE_CAMERA))


def test_the_camera_is_predicted_until_it_is_stopped(camera, address):
    with Visit(camera, address) as visit:
        page = visit.page
        visit.says("Ready.")
        page.get_by_role("button", name="Start the camera").click()
        visit.says("1 face: happy.")
        visit.expect(page.locator("#rate")).to_contain_text("frames per second")
        visit.expect(page.locator("#fps")).not_to_have_text("–", timeout=LOAD_MS)
        assert float(page.locator("#fps").inner_text()) > 0
        visit.expect(page.locator("#timeline .line")).to_have_count(7)
        assert page.locator(".box").count() == 1 and page.locator(".explain").is_hidden()
        page.get_by_role("button", name="Keep this frame").click()
        visit.says("1 face: happy.")
        visit.expect(page.locator(".explain")).to_be_visible(timeout=LOAD_MS)
        assert page.locator("#video").is_hidden() and page.locator("#picture").is_visible()
        page.get_by_role("button", name="Start the camera").click()
        page.get_by_role("button", name="Stop the camera").click()
        visit.says("The camera is off.")
        assert page.locator("#video").evaluate("(video) => video.srcObject") is None
        assert page.get_by_role("button", name="Start the camera").is_visible()


SLOW_CAMERA = """() => {
window.streams = [];
window.allow = []; // one function for each start that waits for the user's leave
navigator.mediaDevices.getUserMedia = () => new Promise((resolve) => allow.push(() => {
  const canvas = document.createElement("canvas");
  canvas.getContext("2d").fillRect(0, 0, 300, 150);
  streams.push(canvas.captureStream(10));
  resolve(streams.at(-1));
}));
}"""
TRACKS = "streams.map((stream) => stream.getTracks()[0].readyState)"


def test_of_two_starts_of_the_camera_one_stays_and_it_can_be_stopped(visit):
    page = visit.page
    page.evaluate(SLOW_CAMERA)
    for _ in range(2):
        page.get_by_role("button", name="Start the camera").click()
    page.evaluate("allow.forEach((one) => one())")
    visit.says("The camera is on.")
    assert page.evaluate(TRACKS) == ["ended", "live"]
    page.get_by_role("button", name="Stop the camera").click()
    visit.says("The camera is off.")
    assert page.evaluate(TRACKS) == ["ended", "ended"]


def test_a_picture_that_is_chosen_while_the_camera_waits_cancels_it(visit, photograph):
    page = visit.page
    page.evaluate(SLOW_CAMERA)
    page.get_by_role("button", name="Start the camera").click()
    page.locator("#file").set_input_files(upload(photograph))
    visit.says("1 face: happy.")
    page.evaluate("allow[0]()")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")  # the page reacts to the stream
    assert page.evaluate(TRACKS) == ["ended"]
    assert page.locator("#video").is_hidden() and page.get_by_role("button", name="Start the camera").is_visible()
    assert page.locator("#status").inner_text() == "1 face: happy."


def test_everything_is_reached_and_used_by_keyboard(camera, address, photograph):
    with Visit(camera, address) as visit:
        page = visit.page
        visit.says("Ready.")
        page.locator("#file").set_input_files(upload(photograph))
        visit.says("1 face: happy.")
        reached = []
        for _ in range(4):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"))
        assert reached[:3] == ["Choose a picture", "Start the camera", "Show why face 1 is happy"]
        outline = "getComputedStyle(document.querySelector('.explain'), null).outlineStyle"
        page.locator(".explain").focus()
        page.keyboard.press("Enter")
        visit.expect(page.locator("#faces img")).to_be_visible(timeout=LOAD_MS)
        page.locator("#choose").focus()
        page.keyboard.press("Tab")
        assert page.evaluate(outline.replace(".explain", ":focus")) == "solid"
        page.keyboard.press("Space")
        visit.expect(page.locator("#stop")).to_be_focused(timeout=LOAD_MS)
        page.keyboard.press("Enter")
        visit.expect(page.locator("#start")).to_be_focused()


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"width": 360, "height": 740}])
def test_nothing_is_inaccessible_or_too_wide(browser, address, photograph, options):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    with Visit(browser, address, bypass_csp=True, reduced_motion="reduce", **options) as visit:
        visit.says("Ready.")
        for ready in (False, True):
            if ready:
                visit.page.locator("#file").set_input_files(upload(photograph))
                visit.says("1 face: happy.")
            found = axe.Axe().run(visit.page)
            assert found.violations_count == 0, found.generate_report()
            assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_errors_are_one_clear_sentence(visit):
    page = visit.page
    cases = (
        ("notes.txt", b"not a picture", "notes.txt is not a picture that the browser can read: "
         "choose a JPEG, PNG or WebP."),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0", "This browser cannot read HEIC: save the picture as JPEG."),
    )  # fmt: skip
    for name, content, text in cases:
        page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})
        visit.says(text, "#problem")
        assert page.get_by_role("alert").inner_text() == text
    page.get_by_role("button", name="Start the camera").click()
    visit.expect(page.locator("#problem")).to_have_text(
        "There is no camera: connect one, or choose a picture.", timeout=LOAD_MS
    )
    visit.complaints.clear()


def test_a_missing_model_is_named(browser, address):
    with Visit(browser, "about:blank") as visit:
        visit.address = address
        visit.context.route("**/model.onnx", lambda route: route.fulfill(status=404))
        visit.page.goto(address)
        visit.says("The model file model.onnx is missing: export the folder again.", "#problem")
        assert visit.page.get_by_role("button", name="Choose a picture").is_disabled()
        visit.complaints.clear()


def test_without_a_config_it_says_how_to_serve_the_folder_on_this_machine_alone(browser, address):
    with Visit(browser, "about:blank") as visit:
        visit.address = address
        visit.context.route("**/config.json", lambda route: route.fulfill(status=404))
        visit.page.goto(address)
        visit.expect(visit.page.locator("#problem")).to_contain_text("python -m http.server --bind 127.0.0.1")
        visit.complaints.clear()


def test_with_a_service_the_page_asks_it_and_needs_its_token(browser, service_address, photograph):
    with Visit(browser, service_address) as visit:
        page = visit.page
        visit.says("Enter the token of the server.")
        assert "go to the server" in page.locator("#place").inner_text()
        assert page.get_by_role("button", name="Choose a picture").is_disabled()
        page.get_by_label("Access token").fill("wrong")
        page.keyboard.press("Enter")
        visit.says("The server refused the token: enter the one that it was started with.", "#problem")
        visit.complaints.clear()  # Chromium logs the status 401
        page.get_by_label("Access token").fill("right")
        page.keyboard.press("Enter")
        visit.says("theirs", "#model")
        page.locator("#file").set_input_files(upload(photograph))
        visit.says("1 face: happy.")
        page.get_by_role("button", name="Show why face 1 is happy").click()
        visit.expect(page.get_by_role("img", name="Face 1 with its heat map")).to_be_visible()
        assert not any(".onnx" in url or ".wasm" in url for url in visit.requests)
