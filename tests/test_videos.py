"""Videos that OpenCV writes are read frame by frame, in constant memory; what cannot be read is named once."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fer_jax import videos
from fer_jax.errors import InputError

cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")


def frame_of(number, width=64, height=48):
    """Returns a frame whose left half tells its number, and whose right half is red."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 8 * number
    pixels[:, width // 2 :] = 200, 30, 30
    return pixels


def number_in(pixels):
    return round(float(pixels[8:-8, 8:24].mean()) / 8)


def write_by_opencv(path, count=30, *, fps=12.5):
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (64, 48))
    for number in range(count):
        writer.write(frame_of(number)[..., ::-1])
    writer.release()
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.mov"])
def test_frames_come_in_order_with_their_times(tmp_path, name):
    with videos.Video(write_by_opencv(tmp_path / name)) as video:
        frames = list(video.frames())
        assert (video.fps, video.count) == (12.5, 30)
    assert [frame.number for frame in frames] == [number_in(frame.pixels) for frame in frames] == list(range(30))
    assert [frame.seconds for frame in frames] == pytest.approx(np.arange(30) / 12.5)
    assert frames[0].pixels.dtype == np.uint8 and frames[0].pixels.shape == (48, 64, 3)
    assert np.abs(frames[5].pixels[8:-8, 40:56].astype(int) - [200, 30, 30]).max() < 25  # RGB, not BGR


def test_every_nth_frame_and_a_later_start(tmp_path):
    with videos.Video(write_by_opencv(tmp_path / "a.avi")) as video:
        frames = list(video.frames(every=7, start=9))
    assert [frame.number for frame in frames] == [number_in(frame.pixels) for frame in frames] == [14, 21, 28]
    assert [frame.seconds for frame in frames] == pytest.approx([14 / 12.5, 21 / 12.5, 28 / 12.5])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.mp4", b"hello", "not a readable video"),
        ("empty.avi", b"", "the file is empty"),
        ("none.mp4", None, "there is no such file"),
        ("half.mp4", 0.5, "not a readable video"),
    ],
)
def test_what_is_no_video_is_named_and_nothing_else_is_said(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, float):
        whole = write_by_opencv(path).read_bytes()
        content = whole[: int(len(whole) * content)]
    if content is not None:
        path.write_bytes(content)
    script = "import sys\nfrom fer_jax import errors, videos\ntry: videos.Video(sys.argv[1])\n"
    script += "except errors.InputError as error: print(error)"
    ran = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(f"{path}: ") and message in ran.stdout
    assert ran.stdout.count("\n") == 1 and ran.stderr == ""


def test_a_video_that_is_cut_short_says_so_after_its_frames(tmp_path):
    path = write_by_opencv(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    numbers = []
    with videos.Video(path) as video, pytest.raises(InputError, match=r"a\.mkv: not readable after frame \d+ of 30"):
        for frame in video.frames():
            numbers.append(number_in(frame.pixels))
    assert numbers == list(range(len(numbers))) and 5 < len(numbers) < 25


def test_without_opencv_there_is_one_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for open_one in (lambda: videos.Video("a.mp4"), lambda: videos.Camera(0), lambda: videos.Writer("a.mp4", 25)):
        with pytest.raises(InputError, match=r"need OpenCV .*: pip install 'fer-jax\[video\]'"):
            open_one()


def test_a_camera_that_is_not_there_is_named(capfd):
    with pytest.raises(InputError, match="camera 99 cannot be opened"):
        videos.Camera(99)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_written_video_is_read_by_opencv(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    with videos.Writer(path, 10.0) as writer:
        for number in range(20):
            writer.write(frame_of(number, 63, 47))
        assert not path.exists()
    capture = cv2.VideoCapture(str(path))
    numbers = []
    while (read := capture.read())[0]:
        assert read[1].shape == (48, 64, 3)
        numbers.append(number_in(read[1]))
    assert numbers == list(range(20))
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_video_that_was_not_written_to_its_end_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), videos.Writer(tmp_path / "out.mp4", 10.0) as writer:
        writer.write(frame_of(1))
        1 / 0  # noqa: B018
    with videos.Writer(tmp_path / "out.mp4", 10.0):
        pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"videos are written as \.mp4"):
        videos.Writer(tmp_path / "out.gif", 10.0)
    with pytest.raises(InputError, match="have one size"), videos.Writer(tmp_path / "out.mp4", 10.0) as writer:
        writer.write(frame_of(1))
        writer.write(frame_of(1, 32, 32))


def test_only_the_newest_frame_is_given():
    read = threading.Semaphore(0)

    def camera():
        for number in range(100):
            if number in (1, 51):
                read.acquire()
            yield videos.Frame(number, number / 10, np.zeros((1, 1, 3), np.uint8))

    seen = []
    for frame, came in videos.newest(camera()):
        seen.append(frame.number)
        assert came <= time.perf_counter()
        read.release()
        time.sleep(0.05)
    assert seen == [0, 50, 99]


def test_what_breaks_in_a_camera_is_raised_here():
    def camera():
        yield videos.Frame(0, 0.0, np.zeros((1, 1, 3), np.uint8))
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(videos.newest(camera()))


RSS = """
import sys
from fer_jax import videos

def rss_kib():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS:")).split()[1])

with videos.Video(sys.argv[1]) as video:
    for frame in video.frames():
        if frame.number in (200, 1800):
            print(rss_kib())
"""


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_over_a_long_video(tmp_path):
    path = tmp_path / "long.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (320, 240))
    for number in range(2000):
        writer.write(np.full((240, 320, 3), number % 256, np.uint8))
    writer.release()
    ran = subprocess.run([sys.executable, "-c", RSS, str(path)], capture_output=True, text=True, check=True)
    early, late = map(int, ran.stdout.split())
    assert late - early < 30 * 1024, "1,600 frames of 225 KiB were passed in between"
