import base64
import dataclasses
import io
import os
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from fer_jax import metrics, report
from fer_jax.report import figures

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
VOID = {"meta", "img", "br", "hr", "input", "link", "source", "wbr"}
CONFIG = {
    "seed": 3,
    "model": {"name": "cnn", "layers": "conv 64\nflatten"},
    "train": {"monitor": "validation_loss", "epochs": 4},
}
LONG = tuple(f"emotion <b>{i}</b> & more {'x' * 30}" for i in range(20))


class Page(HTMLParser):
    """The elements of a page with their whole text, in order; fails where tags do not pair."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        node = {"tag": tag, "attributes": dict(attributes), "text": ""}
        self.elements.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1]["tag"] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        for node in self.open:
            node["text"] += data

    def find(self, tag, class_=None):
        found = [node for node in self.elements if node["tag"] == tag]
        return [node for node in found if class_ in (None, *node["attributes"].get("class", "").split())]

    def texts(self, tag, class_=None):
        return [" ".join(node["text"].split()) for node in self.find(tag, class_)]

    def rows(self, class_):
        """Cells of each body row of every table of a class."""
        inside, tables = False, []
        for node in self.elements:
            if node["tag"] == "table":
                inside = class_ in node["attributes"].get("class", "").split()
                if inside:
                    tables.append([])
            elif inside and node["tag"] == "tr":
                tables[-1].append([])
            elif inside and node["tag"] in ("td", "th"):
                tables[-1][-1].append(" ".join(node["text"].split()))
        return [table[1:] for table in tables]


def evaluate(n=300, classes=CLASSES, seed=0, sure=1.2, absent=(), **facts):
    rng = np.random.default_rng(seed)
    k = len(classes)
    labels = rng.choice([label for label in range(k) if label not in absent], n)
    logits = 1.5 * rng.normal(size=(n, k)) + sure * np.eye(k)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    images = rng.integers(0, 256, (n, 48, 48, 1), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(n) // 256, np.arange(n) % 256
    run = {
        "split": "test",
        "checkpoint": "best",
        "step": 900,
        "epoch": 3,
        "config": CONFIG,
        "seed": 3,
        "commit": "3f2c1a9",
        "device": "cpu:0",
        "time": "2025-01-02T03:04:05+00:00",
        "command": "python -m fer_jax.evaluate --workdir <runs>/a",
        "data_name": "fer2013",
        "data_fingerprint": "sha256:77aa",
        "synthetic": False,
        "notes": ["one & only"],
        "parameters": 1782340,
        "trainable": 1778116,
        "workdir": "runs/a",
    }
    scores = metrics.score(labels, probs, classes) | run | facts
    return report.Evaluation(scores, images, labels, probs)


def epochs(n):
    return [
        {
            "epoch": e,
            "step": 300 * e,
            "train_loss": 2 / e,
            "train_accuracy": 1 - 1 / (e + 1),
            "validation_loss": 1 + (e - 3) ** 2 / 10,
            "validation_accuracy": 0.5 + 0.01 * e,
            "validation_macro_f1": 0.4 + 0.01 * e,
            "learning_rate": 1e-3,
            "seconds": 70.0,
            "images_per_second": 4000.0,
            "data_wait_share": 0.02,
        }
        for e in range(1, n + 1)
    ]


COUNTS = {"train": [400, 40, 410, 720, 480, 320, 500], "test": [50, 6, 53, 88, 59, 42, 63]}


def page_of(evaluation, history=None, counts=None):
    history = epochs(4) if history is None else history
    return Page(report.html(evaluation, history, COUNTS if counts is None else counts))


def decode(address, kind):
    head, _, body = address.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(body, validate=True)


def pixels(node):
    picture = Image.open(io.BytesIO(decode(node["attributes"]["src"], "image/png")))
    return np.asarray(picture)


def face_images(page, class_):
    """The embedded faces of all tiles of a class, in order."""
    found = []
    for node, following in zip(page.elements, page.elements[1:], strict=False):
        if node["tag"] == "figure" and node["attributes"].get("class") == class_:
            found.append(pixels(following))
    return found


def addresses(page):
    keys = ("src", "srcset", "href", "data", "action", "poster", "background", "xlink:href")
    return [node["attributes"][key] for node in page.elements for key in keys if key in node["attributes"]]


def figures_of(page):
    return [address for address in addresses(page) if address.startswith("data:image/svg")]


@pytest.fixture(scope="module")
def evaluation():
    return evaluate()


@pytest.fixture(scope="module")
def page(evaluation):
    return page_of(evaluation)


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves figures undrawn where a test is about the rest of the page: drawing takes most of its time."""
    monkeypatch.setattr(figures, "_svg", lambda figure: "data:image/svg+xml;base64,")


def test_a_page_needs_nothing_from_outside(evaluation):
    comparison = report.comparison_html([as_run("a", evaluation), as_run("b", evaluation)])
    for text in (report.html(evaluation, epochs(4), COUNTS), comparison):
        page = Page(text)
        assert addresses(page)
        assert all(address.startswith("data:image/") for address in addresses(page))
        assert not {"script", "link", "iframe", "object"} & {node["tag"] for node in page.elements}
        assert "url(" not in text and "@import" not in text and "http" not in page.find("style")[0]["text"]
        assert text.startswith("<!DOCTYPE html>")
        assert page.find("meta")[0]["attributes"] == {"charset": "utf-8"}


def test_figures_are_whole_svg_pictures(page):
    assert len(figures_of(page)) == 4
    for address in figures_of(page):
        root = ElementTree.fromstring(decode(address, "image/svg+xml"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10


def test_headlines_and_protocol_state_the_scores(evaluation, page):
    scores = evaluation.scores
    low, high = scores["accuracy_interval_95"]
    shown = dict(zip(page.texts("span"), page.texts("b"), strict=False))
    assert shown["accuracy"] == f"{100 * scores['accuracy']:.2f}%"
    assert shown["macro F1"] == f"{scores['macro_f1']:.4f}"
    assert shown["loss"] == f"{scores['loss']:.4f}"
    assert shown["mean squared error"] == f"{scores['mean_squared_error']:.4f}"
    assert shown["calibration error"] == f"{scores['calibration_error']:.4f}"
    assert shown["faces"] == "300"
    assert f"{100 * low:.2f} to {100 * high:.2f}%" in page.texts("small")[0]
    protocol = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert protocol["checkpoint"] == "best checkpoint (epoch 3, step 900), chosen on validation_loss"
    assert protocol["command"] == "python -m fer_jax.evaluate --workdir <runs>/a"
    assert protocol["size"] == "1,782,340 parameters, 1,778,116 trainable"
    for name, key in [("data fingerprint", "data_fingerprint"), ("commit", "commit"), ("device", "device")]:
        assert protocol[name] == scores[key]
    assert {"seed", "time", "split"} <= protocol.keys()
    assert "one & only" in page.texts("li")


@pytest.mark.usefixtures("undrawn")
def test_the_protocol_has_the_command_of_the_training_too(evaluation):
    line = "python -m fer_jax.main --config configs/cnn.py:model_2 '--config.model.layers=conv 8,  flatten'"
    trained = evaluate(trained={"command": line, "commit": "0a1b2c3"})
    for one, names in ((trained, ["training command", "command"]), (evaluation, ["command"])):
        assert [name for name in page_of(one).texts("dt") if name.endswith("command")] == names
    assert line in [node["text"] for node in page_of(trained).find("dd", "code")]
    assert f"```sh\n{line}\n{trained.scores['command']}\n```" in report.markdown(trained.scores)


def test_confusion_matrices_equal_scikit_learn(evaluation, page):
    counts = confusion_matrix(evaluation.labels, evaluation.probs.argmax(1), labels=range(7))
    faces, percent = page.rows("confusion")
    assert [row[0] for row in faces] == list(CLASSES)
    np.testing.assert_array_equal([list(map(int, row[1:])) for row in faces], counts)
    shares = 100 * counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose([list(map(float, row[1:])) for row in percent], shares, atol=0.0501)


def test_classification_table_equals_scikit_learn(evaluation, page):
    (rows,) = page.rows("averages")
    expected = precision_recall_fscore_support(evaluation.labels, evaluation.probs.argmax(1))
    shown = np.array([list(map(float, row[1:])) for row in rows])
    np.testing.assert_allclose(shown[:7], np.transpose(expected), atol=5.01e-5)
    assert [row[0] for row in rows] == [*CLASSES, "macro average", "weighted average"]
    assert shown[7, 2] == pytest.approx(evaluation.scores["macro_f1"], abs=5.01e-5)
    assert shown[8, 2] == pytest.approx(evaluation.scores["weighted_f1"], abs=5.01e-5)


def test_class_distribution_shows_every_count_and_share(page):
    (rows,) = page.rows("distribution")
    for column, counts in enumerate(COUNTS.values(), start=1):
        shown = [row[column] for row in rows]
        assert shown == [f"{count:,} ({100 * count / sum(counts):.1f}%)" for count in counts]
    widths = [float(re.search(r"width:([\d.]+)%", node["attributes"]["style"])[1]) for node in page.find("i")]
    shares = np.array([counts / np.sum(counts) for counts in COUNTS.values()]).T.ravel()
    np.testing.assert_allclose(widths, 100 * shares / shares.max(), atol=0.0501)


@pytest.mark.usefixtures("undrawn")
def test_class_distribution_refuses_counts_of_other_classes(evaluation):
    with pytest.raises(ValueError, match=r"7 counts per split.*\['test'\]"):
        report.html(evaluation, [], {"train": [1] * 7, "test": [1] * 6})


def test_the_mistakes_shown_are_the_most_confident_ones(evaluation, page):
    predicted = evaluation.probs.argmax(1)
    wrong = [row for row in range(300) if predicted[row] != evaluation.labels[row]]
    wrong.sort(key=lambda row: -evaluation.probs[row].max())
    assert len(wrong) > 24
    tiles = page.texts("figure", "mistake")
    true, said = np.array(CLASSES)[evaluation.labels], np.array(CLASSES)[predicted]
    assert tiles == [f"true: {true[row]}predicted: {said[row]}{evaluation.probs[row].max():.1%}" for row in wrong[:24]]
    for shown, row in zip(face_images(page, "mistake"), wrong, strict=False):
        np.testing.assert_array_equal(shown, evaluation.images[row, :, :, 0])


def page_of_faces(images):
    """The page of a few wrong predictions on given faces."""
    labels = np.arange(len(images)) % 2
    probs = np.eye(2)[1 - labels] * 0.9 + 0.05
    return page_of(report.Evaluation(metrics.score(labels, probs, ("a", "b")), images, labels, probs), [], {})


@pytest.mark.usefixtures("undrawn")
def test_rgb_faces_are_shown_in_colour():
    images = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)
    for shown, face in zip(face_images(page_of_faces(images), "mistake"), images, strict=True):
        np.testing.assert_array_equal(shown, face)


@pytest.mark.usefixtures("undrawn")
def test_large_faces_are_embedded_no_larger_than_they_are_shown():
    ramp = np.broadcast_to(np.arange(224, dtype=np.uint8)[:, None], (2, 224, 224, 3))
    for shown in face_images(page_of_faces(ramp), "mistake"):
        assert shown.shape == (128, 128, 3)
        np.testing.assert_allclose(shown[..., 0].mean(axis=0), np.arange(0.375, 224, 1.75), atol=1)


@pytest.mark.parametrize("mistakes", [0, 1, 5])
@pytest.mark.usefixtures("undrawn")
def test_fewer_mistakes_are_all_shown(mistakes):
    labels = np.arange(40) % 2
    probs = np.eye(2)[labels ^ (np.arange(40) < mistakes)] * 0.9 + 0.05
    images = np.zeros((40, 48, 48, 1), np.uint8)
    page = page_of(report.Evaluation(metrics.score(labels, probs, ("a", "b")), images, labels, probs), [], {})
    assert len(page.find("figure", "mistake")) == mistakes
    assert ("No mistakes." in page.texts("p")) == (mistakes == 0)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("method", "name"), [("grad_cam", "Grad-CAM"), ("occlusion", "occlusion")])
def test_heat_is_shown_below_its_mistake(evaluation, method, name):
    rng = np.random.default_rng(0)
    rows = report.mistakes(evaluation).tolist()
    overlays = {row: rng.integers(0, 256, (48, 48, 3), dtype=np.uint8) for row in rows}
    assert len(overlays) == 24
    page = Page(report.html(evaluation, [], {}, heat=report.Heat(method, overlays)))
    images = [node for node in page.find("img") if node["attributes"].get("class") == "heat"]
    for node, (row, overlay) in zip(images, overlays.items(), strict=True):
        np.testing.assert_array_equal(pixels(node), overlay)
        before = page.elements[page.elements.index(node) - 1]
        np.testing.assert_array_equal(pixels(before), evaluation.images[row, :, :, 0])
        assert node["attributes"]["alt"] == f"evidence for {CLASSES[evaluation.probs[row].argmax()]}"
    assert sum(name in text for text in page.texts("p", "remark")) == 1
    assert not any(name in text for text in page_of(evaluation).texts("p", "remark"))


def test_samples_are_faces_of_their_class_and_marked_right_or_wrong(evaluation, page):
    samples = face_images(page, "sample")
    rows = [int(image[0, 0]) * 256 + int(image[0, 1]) for image in samples]
    assert evaluation.labels[rows].tolist() == np.repeat(np.arange(7), 5).tolist()
    for label in range(7):
        of_class = np.flatnonzero(evaluation.labels == label)
        shown = rows[5 * label : 5 * label + 5]
        assert sorted(set(shown)) == shown
        assert (shown[0], shown[-1]) == (of_class[0], of_class[-1])
    predicted = evaluation.probs.argmax(1)
    captions = page.texts("figure", "sample")
    assert captions == [f"{CLASSES[predicted[row]]} {evaluation.probs[row].max():.0%}" for row in rows]
    kinds = [
        node["attributes"].get("class") for node in page.find("span") if " ".join(node["text"].split()) in captions
    ]
    assert kinds == ["right" if predicted[row] == evaluation.labels[row] else "wrong" for row in rows]


@pytest.mark.usefixtures("undrawn")
def test_augmented_faces_stand_beside_their_originals(evaluation):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 48, 48, 1), dtype=np.uint8)
    faces = [report.AugmentedFace(name, one[0], one[1:]) for name, one in zip(("happy", "sad"), images, strict=True)]
    page = Page(report.html(evaluation, epochs(4), COUNTS, faces))
    np.testing.assert_array_equal(face_images(page, "original"), images[:, 0, ..., 0])
    np.testing.assert_array_equal(face_images(page, "augmented"), images[:, 1:, ..., 0].reshape(8, 48, 48))
    assert page.texts("figure", "augmented") == [f"augmented {number}" for number in (1, 2, 3, 4)] * 2
    assert all(node["attributes"].get("alt") for node in page.find("img"))
    assert page.texts("h3")[:2] == ["happy", "sad"]
    assert any("the run's seed, 3" in text for text in page.texts("p", "remark"))
    assert "Augmented training faces" not in page_of(evaluation).texts("h2")


@pytest.mark.usefixtures("undrawn")
def test_synthetic_data_wear_a_badge(evaluation):
    badge = "drawn faces: synthetic, says nothing about real faces"
    drawn = dataclasses.replace(evaluation, scores=evaluation.scores | {"synthetic": True})
    for one, expected in ((drawn, [badge]), (evaluation, [])):
        assert page_of(one).texts("p", "synthetic") == expected
        assert Page(report.comparison_html([as_run("a", one)])).texts("p", "synthetic") == expected
        assert (badge in report.markdown(one.scores)) == bool(expected)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"split": "validation"}, "also chose the checkpoint"),
        ({"split": "train"}, "trained on these faces"),
        ({}, None),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_scores_that_flatter_are_said_to(facts, message):
    evaluation = evaluate(**facts)
    shown = page_of(evaluation).texts("p", "warning")
    assert len(shown) == (message is not None)
    if message:
        assert message in shown[0]
        assert message in report.markdown(evaluation.scores)


STOPPED = {**CONFIG, "train": {**CONFIG["train"], "epochs": 9, "early_stopping": {"patience_epochs": 2}}}
FINE_TUNED = {**STOPPED, "optim": {"fine_tune": {"after_epochs": 5}}}


@pytest.mark.parametrize(
    ("history", "config", "reached"),
    [
        (epochs(4), CONFIG, ""),
        (epochs(3), CONFIG, "epoch 3 of 4"),
        (epochs(5), STOPPED, ""),  # validation_loss is least at epoch 3, so that the patience of two ends at epoch 5
        (epochs(4), STOPPED, "epoch 4 of 9"),
        (epochs(5), FINE_TUNED, "epoch 5 of 9"),  # the first phase has stopped, the second has not begun
        (epochs(7), FINE_TUNED, "epoch 7 of 9"),  # the second one counts from nothing
        (epochs(8), FINE_TUNED, ""),
        (epochs(3), {}, ""),
        ([], CONFIG, ""),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_run_is_told_from_one_that_ended(history, config, reached):
    evaluation = evaluate(config=config)
    lines = [f"The run is unfinished: it is trained up to {reached}."] if reached else []
    assert page_of(evaluation, history).texts("p", "warning") == lines
    assert re.findall("^> (.*unfinished.*)$", report.markdown(evaluation.scores, history), flags=re.M) == lines
    runs = [as_run("a", evaluate(), epochs(4)), as_run("b", evaluation, history, config)]
    page = Page(report.comparison_html(runs))
    warnings = [text for text in page.texts("p", "warning") if "nfinished" in text]
    assert warnings == ([f"Unfinished: b, trained up to {reached}."] if reached else [])
    assert [row[7] for row in page.rows("rows")[0]] == ["4", reached.removeprefix("epoch ") or str(len(history))]


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_stopped_in_its_first_epoch_is_unfinished():
    evaluation = evaluate(checkpoint="latest", epoch=0, step=5)
    assert "trained up to epoch 0 of 4" in page_of(evaluation, []).texts("p", "warning")[0]


@pytest.mark.usefixtures("undrawn")
def test_every_text_is_escaped():
    odd = "<script>alert('x')</script> & \"quotes\""
    evaluation = evaluate(
        classes=LONG,
        data_name=odd,
        command=odd,
        notes=[odd],
        device=odd,
        config={"model": {"name": odd, odd: odd}, "train": {}},
    )
    counts = {odd: [1] * 20}
    runs = [as_run(odd, evaluation), as_run("b", evaluate(classes=LONG))]
    for text in (report.html(evaluation, epochs(2), counts), report.comparison_html(runs)):
        page = Page(text)
        assert not {"script"} & {node["tag"] for node in page.elements}
        assert odd in " ".join(node["text"] for node in page.elements)
    page = page_of(evaluation, counts=counts)
    assert [row[0] for row in page.rows("averages")[0]][:20] == list(LONG)
    assert "<script" not in report.markdown(evaluation.scores).split("```")[0]


@pytest.mark.parametrize("classes", [("a", "b"), CLASSES, LONG])
@pytest.mark.usefixtures("undrawn")
def test_two_to_twenty_classes(classes):
    page = page_of(evaluate(classes=classes), counts={"train": list(range(len(classes)))})
    for rows in page.rows("confusion"):
        assert len(rows) == len(classes)
        assert all(row[0].startswith(name) for row, name in zip(rows, classes, strict=True))
        assert {len(row) for row in rows} == {len(classes) + 1}
    assert page.texts("h3") == list(classes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("history", "count"),
    [
        ([], 3),
        (epochs(1), 1),
        ([{"epoch": 1}], 1),
        ([{"epoch": 1}, {"epoch": 2, "train_loss": None, "validation_loss": float("nan")}], 3),
        ([{"validation_accuracy": 0.5}, {"validation_accuracy": None}, {"validation_accuracy": float("inf")}], 3),
    ],
)
def test_histories_with_little_in_them(evaluation, history, count):
    assert len(figures_of(page_of(evaluation, history))) == count
    latest = dataclasses.replace(evaluation, scores=metrics.score(evaluation.labels, evaluation.probs, CLASSES))
    assert len(figures_of(page_of(latest, history, {}))) == count
    run = {"name": "$a_b$ \u60b2", "scores": None, "history": history, "config": {}}
    assert Page(report.comparison_html([run])).rows("rows")[0][0][1] == "not evaluated"


@pytest.mark.usefixtures("undrawn")
def test_one_epoch_is_told_in_numbers_since_it_draws_no_line(evaluation):
    history = [epochs(1)[0] | {"validation_macro_f1": None}]
    page = page_of(evaluation, history)
    assert page.rows("rows")[0] == [["epoch 1", "50.00%", "51.00%", "\u2013", "2.0000", "1.4000"]]
    assert {"accuracy, train", "accuracy, validation", "validation macro F1", "loss, train"} <= {*page.texts("th")}
    assert "over epochs" not in str([node["attributes"] for node in page.find("img")])
    runs = [as_run("a", evaluation, epochs(1)), as_run("b", evaluation, [])]
    compared = Page(report.comparison_html(runs))
    shown = ["50.00%", "51.00%", "0.4100", "2.0000", "1.4000"]
    assert compared.rows("rows")[1] == [["a", *shown], ["b", *["\u2013"] * 5]]
    assert figures_of(compared) == []
    assert figures_of(Page(report.comparison_html([as_run("a", evaluation, epochs(2)), *runs[1:]])))


def test_missing_values_leave_no_gap_in_the_line(evaluation):
    full = [{"epoch": e, "validation_loss": 1.0 / e} for e in (1, 3, 5)]
    gaps = [{"epoch": e, "validation_loss": 1.0 / e if e % 2 else None} for e in range(1, 6)]
    assert figures_of(page_of(evaluation, full))[1] == figures_of(page_of(evaluation, gaps))[1]


def test_epochs_without_a_number_count_from_one(evaluation):
    bare = [{key: value for key, value in row.items() if key != "epoch"} for row in epochs(4)]
    assert figures_of(page_of(evaluation, bare)) == figures_of(page_of(evaluation, epochs(4)))


@pytest.mark.usefixtures("undrawn")
def test_the_learning_rate_is_drawn_where_it_was_recorded(evaluation):
    unrecorded = [{key: value for key, value in row.items() if key != "learning_rate"} for row in epochs(4)]
    for history, drawn in ((epochs(4), True), (unrecorded, False)):
        page = page_of(evaluation, history)
        described = [node["attributes"]["alt"] for node in page.find("img")]
        assert ("learning rate over epochs" in described) == drawn
        assert ("4 epochs, learning rate 0.001, " in str(page.texts("p", "remark"))) == drawn


def test_the_best_epoch_is_marked(evaluation):
    curves = {}
    for epoch in (2, 3, None):
        scores = evaluation.scores | {"epoch": epoch}
        curves[epoch] = figures_of(page_of(dataclasses.replace(evaluation, scores=scores)))[0]
    assert curves[2] != curves[3]
    # Without a recorded epoch the history decides: validation_loss is least at epoch 3.
    assert curves[None] == curves[3]
    root = ElementTree.fromstring(decode(curves[3], "image/svg+xml"))
    strokes = [node.get("style", "") for node in root.iter("{http://www.w3.org/2000/svg}path")]
    assert any("#b42318" in stroke for stroke in strokes)


@pytest.mark.usefixtures("undrawn")
def test_a_class_without_faces_is_told(evaluation):
    page = page_of(evaluate(absent=(1,)), counts={})
    assert any("No faces of disgust" in text for text in page.texts("p", "warning"))
    assert page.rows("confusion")[1][1] == ["disgust", *["\u2013"] * 7]
    assert "no faces" in page.texts("p")


def test_the_config_is_folded_away_and_complete(page):
    (details,) = page.texts("details")
    assert "open" not in page.find("details")[0]["attributes"]
    fields = {row[0]: row[1] for row in page.rows("fields")[0]}
    assert fields == {
        "seed": "3",
        "model.name": "cnn",
        "model.layers": "conv 64 flatten",
        "train.monitor": "validation_loss",
        "train.epochs": "4",
    }
    assert details.startswith("Config")


def test_arrays_that_do_not_fit_are_refused(evaluation):
    for field in ("images", "labels", "probs"):
        with pytest.raises(ValueError, match="300 faces and 7 classes"):
            dataclasses.replace(evaluation, **{field: getattr(evaluation, field)[:-1]})
    with pytest.raises(ValueError, match="must be uint8"):
        dataclasses.replace(evaluation, images=evaluation.images / 255.0)
    with pytest.raises(ValueError, match="must be uint8"):
        dataclasses.replace(evaluation, images=evaluation.images[..., 0])
    with pytest.raises(ValueError, match="must be uint8"):
        dataclasses.replace(evaluation, images=evaluation.images.repeat(2, axis=3))


def markdown_tables(text):
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    return [
        [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines()] for table in tables
    ]


def test_markdown_holds_the_numbers_of_the_scores(evaluation):
    scores = evaluation.scores
    headlines, classes, confusion, protocol = markdown_tables(report.markdown(scores))
    values = {row[0]: row[1] for row in headlines[2:]}
    assert float(values["accuracy"].rstrip("%")) == pytest.approx(100 * scores["accuracy"], abs=0.00501)
    for name in ("macro_f1", "loss", "mean_squared_error", "calibration_error"):
        shown = values[name.replace("_f1", " F1").replace("_", " ")]
        assert float(shown) == pytest.approx(scores[name], abs=5.01e-5)
    for row, expected in zip(classes[2:9], scores["per_class"], strict=True):
        numbers = [expected[key] for key in ("precision", "recall", "f1", "support")]
        assert row[0] == expected["class"]
        assert list(map(float, row[1:])) == pytest.approx(numbers, abs=5.01e-5)
    assert [list(map(int, row[1:])) for row in confusion[2:]] == scores["confusion"]
    assert {"seed": "3", "commit": "3f2c1a9"}.items() <= {row[0]: row[1] for row in protocol[2:]}.items()
    assert f"```sh\n{scores['command']}\n```" in report.markdown(scores)


def test_markdown_tables_stand_odd_names():
    names = ("a|b", "_c_", "*d*", "e\nf", "<g>")
    _, classes, confusion, _ = markdown_tables(report.markdown(evaluate(classes=names).scores))
    assert [row[0] for row in classes[2:7]] == [r"a\|b", r"\_c\_", r"\*d\*", "e f", "&lt;g&gt;"]
    assert {len(row) for row in confusion} == {6}


def as_run(name, evaluation, history=None, config=CONFIG):
    scores = evaluation.scores if evaluation else None
    return {
        "name": name,
        "scores": scores,
        "history": epochs(4) if history is None else history,
        "config": config,
    }


@pytest.mark.usefixtures("undrawn")
def test_comparison_tables_scores_and_config_differences(evaluation, monkeypatch):
    other = CONFIG | {"model": {"name": "vgg", "layers": "conv 64\nflatten"}, "loss": {"l2": 0.1}}
    better = evaluate(sure=3.0)
    for one in (evaluation, better):
        monkeypatch.setitem(one.scores, "faces_digest", "1a2b3c4d")
    runs = [
        as_run("first", evaluation),
        as_run("second", better, epochs(2), other | {"train": CONFIG["train"] | {"epochs": 2}}),
        as_run("third", None, [], CONFIG),
    ]
    page = Page(report.comparison_html(runs))
    table, differences = page.rows("rows")
    assert [row[0] for row in table] == ["first", "second", "third"]
    for row, scores in zip(table, (evaluation.scores, better.scores), strict=False):
        low, high = scores["accuracy_interval_95"]
        assert row[2:7] == [
            f"{100 * scores['accuracy']:.2f}%",
            f"{100 * low:.2f} to {100 * high:.2f}%",
            f"{scores['macro_f1']:.4f}",
            f"{scores['loss']:.4f}",
            "1,782,340",
        ]
    assert [row[7:] for row in table] == [
        ["4", "3", "1.0000", "4 min 40 s"],
        ["2", "2", "1.1000", "2 min 20 s"],
        ["0", "\u2013", "\u2013", "\u2013"],
    ]
    assert "best validation loss" in page.texts("th")
    assert page.texts("b") == [table[1][column] for column in (2, 4, 5)]
    assert differences == [
        ["loss.l2", "not set", "0.1", "not set"],
        ["model.name", "cnn", "vgg", "cnn"],
        ["train.epochs", "4", "2", "4"],
    ]
    assert page.texts("p", "warning") == []


def test_comparison_draws_every_run(evaluation):
    def picture(runs):
        page = Page(report.comparison_html(runs))
        images = [decode(address, "image/svg+xml") for address in figures_of(page)]
        assert len(images) == 2  # for wide and for narrow pages
        return images

    three = [as_run(name, evaluation, epochs(12)) for name in "abc"]  # long enough for lines without points
    less = [three[0], three[1], as_run("c", evaluation, [])]
    for image, without in zip(picture(three), picture(less), strict=True):
        style = b"stroke: #009e73"  # the third run: two panels of a dashed and a solid line, and the legend
        assert image.count(style) - without.count(style) == 4
        assert image.count(b"stroke-dasharray") - without.count(b"stroke-dasharray") == 2


@pytest.mark.filterwarnings("error")
def test_comparison_takes_many_runs_with_odd_names(evaluation):
    names = ["_hidden", "$x^{$", "a" * 120, "", *map(str, range(16))]
    page = Page(report.comparison_html([as_run(name, evaluation) for name in names]))
    assert [row[0] for row in page.rows("rows")[0]] == names
    only = figures_of(Page(report.comparison_html([as_run("_hidden", evaluation, [])])))
    legend = decode(only[0], "image/svg+xml")  # without curves the run stands in the legend alone
    assert b"stroke: #0072b2" in legend and b"<!-- _hidden -->" in legend


@pytest.mark.parametrize("facts", [{"data_fingerprint": "other"}, {"split": "validation"}])
@pytest.mark.usefixtures("undrawn")
def test_runs_scored_on_other_faces_do_not_compare(evaluation, facts):
    page = Page(report.comparison_html([as_run("a", evaluation), as_run("b", evaluate(sure=3.0, **facts))]))
    assert any("do not compare" in text for text in page.texts("p", "warning"))
    assert page.texts("b") == []


@pytest.mark.usefixtures("undrawn")
def test_one_test_is_no_tests(evaluation):
    pair = {"first": 0, "second": 1, "difference": 0.0, "only_first": 1, "only_second": 1, "p_value": 1.0}
    runs = [as_run(name, evaluation, epochs(1)) for name in "abc"]
    for pairs, said in (([pair], "With 1 test, one in 20"), ([pair, {**pair, "second": 2}], "With 2 tests, one in 20")):
        text = report.comparison_html(runs, pairs)
        assert any(said in line for line in Page(text).texts("p", "remark"))
        assert not re.search(r"\b1 (tests|epochs|faces|runs|classes)\b", text)
    assert "1 epoch," in page_of(evaluation, epochs(1)).texts("p", "remark")[0]


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_a_comparison_needs_different_names(evaluation, names):
    with pytest.raises(ValueError, match="different names"):
        report.comparison_html([as_run(name, evaluation) for name in names])


def test_equal_runs_give_equal_pages(evaluation):
    assert report.html(evaluation, epochs(4), COUNTS) == report.html(evaluation, epochs(4), COUNTS)


def test_write_puts_the_whole_text_in_place(tmp_path):
    path = tmp_path / "new" / "report.md"
    report.write("old", path)
    report.write("traurig \u60b2 \udcff\n", path)
    assert path.read_bytes() == "traurig \u60b2 \\udcff\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["report.md"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "report.md"
    report.write("old", path)

    def fail(source, target):
        assert os.path.dirname(source) == str(tmp_path)  # a move across disks would not be atomic
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write("new", path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
