"""Reads frames of videos and cameras one at a time, and writes videos, with OpenCV (the extra `video`)."""

import contextlib
import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Iterable, Iterator

import numpy as np

from fer_jax import files
from fer_jax.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv")
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
USUAL_FPS = 25.0  # for a video without a frame rate
COMPLETE = 0.95  # fraction of the announced frames that must exist; some containers only estimate the number


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame: its number from 0, its time in the video or since the camera was opened, and its pixels.

    pixels: uint8 [H, W, 3], RGB.
    """

    number: int
    seconds: float
    pixels: np.ndarray


class Video:
    """An open video file; a context manager.

    Attributes:
      fps: frames per second; count: the announced number of frames, 0 if unknown.

    Raises:
      InputError: OpenCV is not installed, or cannot read the file as a video.
    """

    def __init__(self, path):
        self.name = str(path)
        cv2 = _opencv()
        if not os.path.isfile(path):
            raise InputError(f"{path}: there is no such file")
        self._capture = cv2.VideoCapture(str(path))
        self._seconds = lambda: self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if not self._capture.isOpened():
            reason = "not a video that OpenCV can read, or truncated" if os.path.getsize(path) else "the file is empty"
            raise InputError(f"{path}: not a readable video ({reason})")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or USUAL_FPS
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames(self, *, every: int = 1, start: int = 0) -> Iterator[Frame]:
        """Yields every `every`-th frame by number, from `start` on.

        Raises:
          InputError: there are no frames, or far fewer than the file announces.
        """
        number = 0
        while self._capture.grab():
            if number >= start and number % every == 0:
                seconds = self._seconds()
                there, pixels = self._capture.retrieve()
                if not there:
                    break
                yield Frame(number, round(seconds, 6) if seconds or not number else number / self.fps, _to_rgb(pixels))
            number += 1
        if number < max(1, int(COMPLETE * self.count)):
            raise InputError(f"{self.name}: not readable after frame {number} of {self.count}; it may be truncated")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._capture.release()


class Camera:
    """A camera, by its number from 0; a context manager.

    Raises:
      InputError: OpenCV is not installed, or there is no such camera.
    """

    def __init__(self, number: int):
        self.name = f"camera:{number}"
        self._capture = _opencv().VideoCapture(number)
        if not self._capture.isOpened():
            raise InputError(f"camera {number} cannot be opened: is it connected, and not used by another program?")

    def frames(self) -> Iterator[Frame]:
        """Yields frames as they arrive, until the camera disconnects."""
        began, number = time.monotonic(), 0
        while True:
            there, pixels = self._capture.read()
            if not there:
                return
            yield Frame(number, round(time.monotonic() - began, 6), _to_rgb(pixels))
            number += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._capture.release()


class _Newest:
    """The latest frame of a source that a thread reads; exceptions of the thread are raised here."""

    def __init__(self, frames):
        self._frames, self._news = frames, threading.Condition()
        self._frame = self._error = None
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        error = None
        try:
            for frame in self._frames:
                with self._news:
                    if self._ended:
                        break
                    self._frame = frame, time.perf_counter()
                    self._news.notify()
        except Exception as raised:
            error = raised
        with self._news:
            self._ended, self._error = True, error
            self._news.notify()

    def take(self):
        """Waits for a frame and returns (frame, when it arrived); None at the end."""
        with self._news:
            while self._frame is None and not self._ended:
                self._news.wait(1.0)  # with a timeout, so that Ctrl-C works
            frame, self._frame = self._frame, None
        if frame is None and self._error:
            raise self._error
        return frame

    def close(self):
        with self._news:
            self._ended = True


def newest(frames: Iterable[Frame]) -> Iterator[tuple[Frame, float]]:
    """Yields the latest (frame, when it arrived by `time.perf_counter`) each time.

    Older frames that were not taken are dropped, so a consumer slower than the camera does not lag behind it.
    """
    with contextlib.closing(_Newest(frames)) as source:
        while (taken := source.take()) is not None:
            yield taken


class Writer:
    """Writes a video from frames of one size; a context manager. The file appears at its end, unless that failed.

    The suffix chooses the codec, one of CODECS. There is no sound.

    Raises:
      InputError: OpenCV is not installed or cannot write such a file, or the frames differ in size.
    """

    def __init__(self, path, fps: float):
        self._path, self._fps = pathlib.Path(path), fps
        self._cv2, self._writer, self._size = _opencv(), None, None
        self._stack = contextlib.ExitStack()
        if self._path.suffix.lower() not in CODECS:
            raise InputError(f"{path}: videos are written as {', '.join(CODECS)}")

    def write(self, pixels: np.ndarray) -> None:
        """Adds a frame, uint8 [H, W, 3]; odd sides are made even, as codecs require."""
        height, width, _ = pixels.shape
        if self._writer is None:
            self._open(width + width % 2, height + height % 2)
        if (width, height) != self._size and self._size is not None:
            raise InputError(f"{self._path}: the frames of a video must have one size, these differ")
        self._size = width, height
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._writer.write(self._cv2.cvtColor(pixels, self._cv2.COLOR_RGB2BGR))

    def _open(self, width, height):
        codec = self._cv2.VideoWriter_fourcc(*CODECS[self._path.suffix.lower()])
        temporary = self._stack.enter_context(files.replacing(self._path))
        self._writer = self._cv2.VideoWriter(str(temporary), codec, self._fps, (width, height))
        if not self._writer.isOpened():
            raise InputError(f"{self._path}: this OpenCV cannot write such a video here; try .avi, or another folder")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._writer is not None:
            self._writer.release()
        return self._stack.__exit__(*error)


def _to_rgb(pixels):
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., 2::-1])


def _opencv():
    # Silences FFmpeg and OpenCV on corrupt files, for which this package gives one message.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        raise InputError(f"videos and cameras need OpenCV ({error}): pip install 'fer-jax[video]'") from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
