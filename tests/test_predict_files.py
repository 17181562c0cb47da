"""The command on pictures and videos: order, errors, formats, drawings, and jobs that are interrupted or split."""

import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import stand_in
from PIL import Image

from fer_jax import command, drawings, outputs, predict, predicting, streams, videos
from fer_jax.errors import Busy, InputError

STAND_IN = pathlib.Path(stand_in.__file__)
FACES = (("happy", 0.9), ("sad", 0.6), ("fear", 0.8), ("neutral", 0.45))


def run(*words, cwd, stdin=None, **environment):
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run(
        [sys.executable, str(STAND_IN), *map(str, words)],
        cwd=cwd, env=environ, input=stdin, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def shown(record):
    """Returns [(left edge, label)] of a record's faces, from left to right."""
    return sorted((round(face["box"][0]), face["label"]) for face in record["faces"])


def write_video(path, scenes):
    with videos.Writer(path, 10.0) as writer:
        for scene in scenes:
            writer.write(scene)
    return path


def moving(count, name="happy", sure=0.9, first=10):
    return [stand_in.picture(((first + 2 * step, 30, 40), name, sure)) for step in range(count)]


@pytest.fixture
def folder(tmp_path):
    """37 pictures whose faces follow from their names; returns (folder, {name: what is shown})."""
    expected = {}
    for number in range(37):
        faces = [((10 + 50 * place, 20 + number, 30), *FACES[(number + place) % 4]) for place in range(number % 4)]
        name = f"in/{number % 3}/{number:02d}.png"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stand_in.picture(*faces)).save(tmp_path / name)
        expected[name] = [(x, label) for (x, _, _), label, _ in faces]
    return tmp_path, dict(sorted(expected.items()))


def test_every_source_gets_its_own_faces_in_order(folder, monkeypatch, capsys):
    root, expected = folder
    monkeypatch.chdir(root)
    monkeypatch.setattr(streams, "MOST_ITEMS", 5)
    recognizer = stand_in.Recognizer()
    counts = predict.predict_files(recognizer, ["in"], predicting.Options())
    found = records(capsys.readouterr().out)
    assert {record["source"]: shown(record) for record in found} == expected
    assert [record["source"] for record in found] == list(expected)
    assert recognizer.calls == [5] * 7 + [2]
    assert counts == {"items": 37, "faces": sum(map(len, expected.values())), "failed": 0}
    assert all(record["size"] == [160, 120] and record["error"] is None for record in found)
    (face,) = found[1]["faces"][:1] if found[1]["faces"] else found[2]["faces"][:1]
    assert set(face) == {"box", "score", "track", "label", "top", "probs", "uncertain"}
    assert list(face["probs"]) == list(stand_in.CLASSES) and face["top"][0][0] == face["label"]


def test_what_cannot_be_read_is_reported_and_passed_over(folder):
    root, expected = folder
    (root / "in/1/05.jpg").write_text("no picture")
    (root / "in/2/half.png").write_bytes((root / "in/1/13.png").read_bytes()[:60])
    result = run("in", "in/0/00.png", cwd=root)
    assert result.returncode == 1
    found = records(result.stdout)
    bad = {record["source"]: record["error"] for record in found if record["error"]}
    assert list(bad) == ["in/1/05.jpg", "in/2/half.png"]
    for source, error in bad.items():
        assert error.startswith(f"{source}: not a readable picture")
        assert result.stderr.count(source) == 1
    assert f"images: 40; faces: {sum(map(len, expected.values()))}; could not be read: 2\n" in result.stderr
    good = [record for record in found if not record["error"]]
    assert {record["source"]: shown(record) for record in good} == expected and len(good) == 38


def test_all_read_exits_with_0_and_bad_input_with_2(folder):
    root, _ = folder
    result = run("in/0", cwd=root)
    assert result.returncode == 0 and len(records(result.stdout)) == 13
    result = run("in/none", cwd=root)
    assert result.returncode == 2 and not result.stdout
    assert result.stderr == "error: in/none: there is no such file or folder\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give pictures, folders"),
        ("in --camera 0", "give pictures, folders"),
        ("in --merge a", "give pictures, folders"),
        ("in --split 1/2", "--split needs files and --out"),
        ("in --split 3/2 --out a", "--split is '3/2': give i/n"),
        ("in --split 0/2 --out a", "--split is '0/2': give i/n"),
        ("in --format kaggle", "--faces given"),
        ("in --every 0", "--every must be 1 or more"),
        ("in --smooth nan", "--smooth 0 s or more"),
        ("in --threshold 2", "--threshold is 2.0"),
        ("in --model a --workdir b", "both name the model"),
        ("in --annotate in", "--annotate in is the folder of the pictures"),
        ("in --annotate a.mp4", "is for one video"),
        ("in --out file/a.jsonl", "file is not a writable folder"),
        ("--camera 0 --annotate drawn", "for a camera give a video file"),
        ("--camera 99", "camera 99 cannot be opened"),
        ("--merge none.jsonl", "none.jsonl has no parts"),
        ("test.csv", "test.csv: there is no such file"),
    ],
)
def test_words_that_do_not_go_together_are_refused(folder, monkeypatch, capsys, words, message):
    root, _ = folder
    if "camera" in words:
        pytest.importorskip("cv2")
    (root / "file").write_text("")
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["predict", *words.split()])
    monkeypatch.setattr(predict, "_load_recognizer", lambda _: stand_in.Recognizer())
    monkeypatch.setattr(command, "begin", lambda: None)
    with pytest.raises(InputError) as caught:
        predict._main()
    assert message in str(caught.value)
    assert not capsys.readouterr().out


def test_a_list_on_stdin_names_the_missing_file(folder):
    root, _ = folder
    result = run("-", cwd=root, stdin="in/0/00.png\nin/none.png\nin/1/01.png\n")
    found = records(result.stdout)
    assert result.returncode == 1
    assert [record["error"] for record in found] == [None, "in/none.png: there is no such file", None]
    assert shown(found[2]) == [(10, "sad")]


@pytest.mark.full
def test_csv_has_a_row_for_a_face_and_one_without(folder):
    root, expected = folder
    (root / "in/1/bad.jpg").write_text("no picture")
    result = run("in", "--format", "csv", cwd=root)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    found = {}
    for row in rows:
        found.setdefault(row["source"], [])
        if row["face"]:
            assert sum(float(row[name]) for name in stand_in.CLASSES) == pytest.approx(1, abs=1e-5)
            assert float(row[row["label"]]) == max(float(row[name]) for name in stand_in.CLASSES)
            found[row["source"]].append((round(float(row["x"])), row["label"]))
    assert {name: sorted(faces) for name, faces in found.items()} == {**expected, "in/1/bad.jpg": []}
    (bad,) = [row for row in rows if row["error"]]
    assert bad["source"] == "in/1/bad.jpg" and not bad["width"]


@pytest.mark.full
def test_kaggle_has_a_class_for_each_picture(tmp_path):
    for number, (name, sure) in enumerate(FACES):
        Image.fromarray(stand_in.picture(((0, 0, 48), name, sure), size=(48, 48))).save(tmp_path / f"{number}.png")
    (tmp_path / "2b.png").write_bytes(b"")
    result = run(".", "--faces", "given", "--format", "kaggle", "--out", "out/answers.csv", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    numbers = [stand_in.CLASSES.index(name) for name, _ in FACES]
    expected = ["emotion", *map(str, [*numbers[:3], -1, numbers[3]])]
    assert (tmp_path / "out/answers.csv").read_text().splitlines() == expected


def test_boxes_of_a_reduced_picture_are_in_pixels_of_the_whole(tmp_path, monkeypatch, capsys):
    Image.fromarray(stand_in.picture(((200, 400, 240), "fear", 0.8), size=(1600, 1200))).save(tmp_path / "a.png")
    monkeypatch.setattr(streams, "LEAST_SIDE_PX", 400)
    predict.predict_files(stand_in.Recognizer(), [tmp_path / "a.png"], predicting.Options())
    (record,) = records(capsys.readouterr().out)
    assert record["size"] == [1600, 1200]
    assert record["faces"][0]["box"] == pytest.approx([200, 400, 240, 240], abs=4)


def test_faces_are_followed_through_a_video_and_smoothed(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2")
    scenes = [
        stand_in.picture(((10 + 2 * step, 30, 40), "happy" if step < 10 else "sad", 0.9), ((110, 60, 30), "fear", 0.8))
        for step in range(20)
    ]
    write_video(tmp_path / "a.avi", scenes)
    Image.fromarray(scenes[0]).save(tmp_path / "b.png")
    monkeypatch.setattr(streams, "MOST_ITEMS", 7)
    paths = [str(tmp_path / name) for name in ("a.avi", "b.png", "a.avi")]
    predict.predict_files(stand_in.Recognizer(), paths, predicting.Options(smooth_seconds=0.2))
    found = records(capsys.readouterr().out)
    assert [record["frame"] for record in found] == [*range(20), None, *range(20)]
    assert [record["seconds"] for record in found[:20]] == pytest.approx([step / 10 for step in range(20)])
    assert found[:20] == found[21:]  # a tracker for each video
    by_track = {n: [face for record in found[:20] for face in record["faces"] if face["track"] == n] for n in (1, 2)}
    assert {name for name, faces in by_track.items() if len(faces) == 20} == {1, 2}
    walker = next(faces for faces in by_track.values() if faces[0]["label"] == "happy")
    # A half-life of two frames: happy falls from 0.9 by 0.5 ** (1 / 2) a frame towards (1 - 0.9) / 6.
    low = 0.1 / 6
    expected = [0.9] * 10 + [low + (0.9 - low) * 0.5 ** (step / 2) for step in range(1, 11)]
    assert [face["probs"]["happy"] for face in walker] == pytest.approx(expected, abs=0.03)
    assert all(face["track"] is None for face in found[20]["faces"])
    predict.predict_files(stand_in.Recognizer(), paths[:1], predicting.Options(every=6))
    assert [record["frame"] for record in records(capsys.readouterr().out)] == [0, 6, 12, 18]


@pytest.mark.full
def test_pictures_are_drawn_in_a_folder_like_theirs(folder):
    root, expected = folder
    Image.fromarray(stand_in.picture()).save(root / "in/0/x.webp")
    before = (root / "in/1/01.png").read_bytes()
    result = run("in", "--annotate", "drawn", "--out", "a.jsonl", cwd=root)
    assert result.returncode == 0, result.stderr
    names = sorted(path.relative_to(root / "drawn").as_posix() for path in (root / "drawn").rglob("*.*"))
    assert names == sorted([*(name.removeprefix("in/") for name in expected), "0/x.webp.jpg"])
    assert (root / "in/1/01.png").read_bytes() == before
    plain, drawn = (np.asarray(Image.open(root / place / "1/01.png")) for place in ("in", "drawn"))
    assert drawn.shape[0] == 3 * plain.shape[0]  # enlarged, to write on it


@pytest.mark.full
def test_videos_are_drawn_as_videos(tmp_path):
    cv2 = pytest.importorskip("cv2")
    write_video(tmp_path / "a.avi", moving(12))
    write_video(tmp_path / "b.avi", moving(12, "sad"))
    result = run("a.avi", "b.avi", "--annotate", "drawn", "--every", "2", "--out", "o.jsonl", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert run("a.avi", "--annotate", "one.mp4", cwd=tmp_path).returncode == 0
    for name, frames, fps in (("drawn/a.avi", 6, 5), ("drawn/b.avi", 6, 5), ("one.mp4", 12, 10)):
        capture = cv2.VideoCapture(str(tmp_path / name))
        assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (fps, frames)
        assert capture.read()[1].shape == (360, 480, 3)


@pytest.mark.full
def test_a_corrupt_video_keeps_what_was_read_of_it(tmp_path):
    pytest.importorskip("cv2")
    path = write_video(tmp_path / "a.mkv", moving(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "b.mp4").write_text("no video")
    Image.fromarray(stand_in.picture()).save(tmp_path / "c.png")
    result = run("a.mkv", "b.mp4", "c.png", cwd=tmp_path)
    assert result.returncode == 1
    found = records(result.stdout)
    errors = [record for record in found if record["error"]]
    assert [record["source"] for record in errors] == ["a.mkv", "b.mp4"]
    assert [record["frame"] for record in found] == [*range(len(found) - 2), None, None]
    assert len(found) > 8 and found[-1]["faces"] == []


def arguments(*more):
    return ("in", "v.avi", "in/0", *more)


def predict_here(root, out, split=None, options=None, *, format="jsonl", inputs=None):
    with contextlib.chdir(root):
        return predict.predict_files(
            stand_in.Recognizer(),
            inputs or arguments(),
            options or predicting.Options(),
            format=format,
            out=out,
            split=split,
        )


@pytest.fixture
def job(folder):
    """A job of pictures and a video, and what it writes without an interruption."""
    pytest.importorskip("cv2")
    root, _ = folder
    write_video(root / "v.avi", moving(40))
    (root / "in/2/bad.png").write_bytes(b"")
    for format in ("jsonl", "csv"):
        assert predict_here(root, f"whole.{format}", format=format)["failed"] == 1
    assert len(records((root / "whole.jsonl").read_text())) == 38 + 40 + 13
    return root


def kill_midway(root, out, *words, calls=3):
    """Starts the job, slow and in chunks, and kills it when some chunks are written."""
    script = (
        f"import runpy, sys; from fer_jax import streams; streams.MOST_ITEMS = 6; sys.argv[0] = {str(STAND_IN)!r}; "
    )
    script += f"sys.path.insert(0, {str(STAND_IN.parent)!r}); runpy.run_path({str(STAND_IN)!r}, run_name='__main__')"
    words = [sys.executable, "-c", script, *arguments(*words, "--out", out)]
    environ = {**os.environ, "STAND_IN_SECONDS": "0.1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    with subprocess.Popen(words, cwd=root, env=environ, stderr=subprocess.PIPE, text=True) as process:
        state = root / f"{out}.job.json"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if state.exists() and (read := json.loads(state.read_text())["state"]) and read["items"] >= 6 * calls:
                break
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGKILL)
    return json.loads(state.read_text())["state"]


@pytest.mark.full
@pytest.mark.parametrize(("format", "calls"), [("jsonl", 2), ("jsonl", 8), ("csv", 9)])
def test_a_killed_job_resumes_and_ends_with_the_same_file(job, format, calls):
    out = f"out.{format}"
    state = kill_midway(job, out, "--format", format, calls=calls)
    assert not (job / out).exists()
    with (job / f"{out}.partial").open("a") as file:
        file.write('{"source": "in/0')  # a line that was cut off
    refused = run(*arguments("--format", format, "--out", out, "--threshold", "0.7"), cwd=job)
    assert refused.returncode == 2 and "was started with other options" in refused.stderr
    result = run(*arguments("--format", format, "--out", out), cwd=job)
    assert result.returncode == 1
    assert f"resuming after {state['items']} images" in result.stderr
    assert (job / out).read_text() == (job / f"whole.{format}").read_text()
    assert "could not be read: 1\n" in result.stderr
    left = {path.name for path in job.iterdir()} - {"whole.csv", "whole.jsonl", "in", "v.avi"}
    assert left == {out}


class Interrupted(stand_in.Recognizer):
    """Is interrupted in its n-th call."""

    def __init__(self, call):
        super().__init__()
        self._call = call

    def predict(self, images, **options):
        found = super().predict(images, **options)
        if len(self.calls) == self._call:
            raise KeyboardInterrupt
        return found


def write_changing_video(path):
    """Writes 20 frames with a face that changes its mind and one that leaves and comes back."""
    scenes = []
    for step in range(20):
        faces = [((10 + 2 * step, 20, 40), "happy" if step % 3 else "sad", 0.9)]
        if not 8 <= step < 11:
            faces.append(((100, 70 - step, 30), "fear" if step % 2 else "neutral", 0.8))
        scenes.append(stand_in.picture(*faces))
    return write_video(path, scenes)


@pytest.mark.parametrize("annotate", [None, pytest.param("drawn", marks=pytest.mark.full)])
@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_job_may_be_interrupted_anywhere(tmp_path, monkeypatch, format, annotate):
    cv2 = pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(streams, "MOST_ITEMS", 4)
    for name in ("a.png", "b.png", "y.png", "z.png"):
        Image.fromarray(stand_in.picture(((10, 10, 30), "sad", 0.7))).save(name)
    write_changing_video(tmp_path / "v.avi")
    inputs, options = ["a.png", "b.png", "v.avi", "y.png", "z.png"], predicting.Options(annotate=annotate)
    whole = stand_in.Recognizer()
    predict.predict_files(whole, inputs, options, format=format, out="whole")
    assert whole.calls == [4] * 6
    for call in range(1, 7):
        out, recognizer = f"out{call}", stand_in.Recognizer()
        with pytest.raises(KeyboardInterrupt):
            predict.predict_files(Interrupted(call), inputs, options, format=format, out=out)
        with open(f"{out}.partial", "ab") as file:
            file.write(b"x" * 100_000)  # what is written after the last whole chunk is cut off
        (tmp_path / "drawn/v.avi").unlink(missing_ok=True)
        counts = predict.predict_files(recognizer, inputs, options, format=format, out=out)
        assert (tmp_path / out).read_bytes() == (tmp_path / "whole").read_bytes(), call
        assert counts["items"] == 24
        assert annotate or sum(recognizer.calls) == 24 - 4 * (call - 1)
        if annotate and call < 6:  # in the last one the video is whole already
            assert cv2.VideoCapture("drawn/v.avi").get(cv2.CAP_PROP_FRAME_COUNT) == 20


def test_a_finished_file_is_made_anew(job):
    text = (job / "whole.jsonl").read_text()
    Image.fromarray(stand_in.picture()).save(job / "in/2/bad.png")
    assert predict_here(job, "whole.jsonl")["failed"] == 0
    assert (job / "whole.jsonl").read_text() != text


@pytest.mark.parametrize(("format", "parts"), [("jsonl", 3), ("csv", 2), ("jsonl", 60)])
def test_parts_merge_into_the_whole(job, format, parts, caplog):
    out = f"out.{format}"
    counts = [predict_here(job, out, f"{part}/{parts}", format=format) for part in range(parts, 0, -1)]
    assert {name: sum(part[name] for part in counts) for name in ("items", "failed")} == {"items": 91, "failed": 1}
    with caplog.at_level("INFO", "fer_jax"):
        assert predict_here(job, out, f"1/{parts}", format=format) == counts[-1]
    assert f"{out}.1-of-{parts} was finished earlier" in caplog.text
    result = run("--merge", out, cwd=job)
    assert result.returncode == 1, result.stderr
    assert result.stdout == f"{out}: 52 files, 1 of them could not be read\n"
    assert (job / out).read_text() == (job / f"whole.{format}").read_text()


def test_parts_that_are_not_there_are_named(job):
    predict_here(job, "out.jsonl", "1/2")
    with pytest.raises(InputError, match=r"out\.jsonl\.2-of-2 is missing: run --split 2/2"):
        outputs.merge(job / "out.jsonl")
    (job / "out.jsonl.2-of-2.partial").touch()
    with pytest.raises(InputError, match=r"out\.jsonl\.2-of-2 is not finished: run --split 2/2 again"):
        outputs.merge(job / "out.jsonl")
    predict_here(job, "out.jsonl", "2/2")
    assert outputs.merge(job / "out.jsonl") == {"sources": 52, "failed": 1}


def test_parts_that_do_not_belong_together_are_refused(job):
    predict_here(job, "out.jsonl", "1/2")
    predict_here(job, "out.jsonl", "3/3")
    with pytest.raises(InputError, match=r"out\.jsonl\.1-of-2 overlaps the parts of 3"):
        outputs.merge(job / "out.jsonl")
    (job / "out.jsonl.3-of-3").unlink()
    predict_here(job, "out.jsonl", "2/2", predicting.Options(threshold=0.9))
    with pytest.raises(InputError, match=r"2-of-2 was made with other options, another model or other sources"):
        outputs.merge(job / "out.jsonl")
    with pytest.raises(InputError, match=r"2-of-2 was started with other options"):
        predict_here(job, "out.jsonl", "2/2")


@pytest.mark.parametrize("change", ["lost", "doubled", "garbled"])
def test_a_corrupt_part_is_refused(job, change):
    for part in ("1/2", "2/2"):
        predict_here(job, "out.jsonl", part)
    path = job / "out.jsonl.1-of-2"
    lines = path.read_text().splitlines(keepends=True)
    lines = {"lost": lines[1:], "doubled": [lines[0], *lines], "garbled": [lines[0][:40] + "\n", *lines[1:]]}[change]
    path.write_text("".join(lines))
    with pytest.raises(InputError, match=r"out\.jsonl\.[12]-of-2 (lacks lines|has more lines|has a line)"):
        outputs.merge(job / "out.jsonl")
    assert not (job / "out.jsonl").exists()


def test_two_processes_do_not_write_one_file(tmp_path):
    facts = {"digest": "1", "format": "jsonl", "part": [1, 1], "sources": 0}
    with (
        outputs.Output(tmp_path / "a.jsonl", "", facts) as output,
        pytest.raises(Busy, match="is being written by another process"),
        outputs.Output(output.path, "", facts),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_names_that_are_no_utf8_come_back(tmp_path, capfdbinary):
    name = os.fsdecode(b"caf\xe9\xff.png")
    Image.fromarray(stand_in.picture()).save(tmp_path / name)
    predict_here(tmp_path, "a.jsonl", None, inputs=["."])
    (record,) = records((tmp_path / "a.jsonl").read_text(encoding="utf-8"))
    assert record["source"] == f"./{name}"


def test_reading_ahead_is_bounded_and_ends_with_whoever_reads():
    taken, closed = [], threading.Event()

    def numbers():
        try:
            for number in itertools.count():
                taken.append(number)
                yield number
        finally:
            closed.set()

    stream = streams.ahead(numbers(), 2)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.3)
    assert len(taken) <= 3 + 2 + 1
    stream.close()
    assert closed.wait(2)

    def broken():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(streams.ahead(broken()))


def test_chunks_are_bounded_by_pixels(monkeypatch):
    monkeypatch.setattr(streams, "MOST_PIXELS", 100)
    items = [
        streams.Item(n, "a", pixels=np.zeros((side, side, 3), np.uint8)) for n, side in enumerate([5, 5, 9, 20, 1])
    ]
    assert [[item.index for item in chunk] for chunk in streams.chunks(items)] == [[0, 1, 2], [3], [4]]


RSS = """
import sys
sys.path.insert(0, sys.argv[1])
import stand_in
from fer_jax import outputs, predicting, streams

streams.MOST_PIXELS = 16 * 320 * 240
sizes = []

class Null(outputs.Stdout):
    def write(self, text, state):
        sizes.append(int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS:")).split()[1]))

with Null("") as output:
    predicting.predict_files(stand_in.Recognizer(), [sys.argv[2]], output, "jsonl", options=predicting.Options())
print(sizes[20], sizes[-1], len(sizes))
"""


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_over_a_long_video(tmp_path):
    pytest.importorskip("cv2")
    scene = stand_in.picture(((50, 50, 60), "happy", 0.9), size=(320, 240))
    write_video(tmp_path / "long.avi", itertools.repeat(scene, 2000))
    words = [sys.executable, "-c", RSS, str(STAND_IN.parent), str(tmp_path / "long.avi")]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    early, late, chunks = map(int, ran.stdout.split())
    assert chunks > 100
    assert late - early < 30 * 1024, "1,600 frames of 225 KiB were passed in between"


def test_a_drawing_never_takes_the_place_of_its_source(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="is the folder of the pictures"):
        drawings.Drawings([str(tmp_path / "in/a.png")], str(tmp_path / "in/../in"))
