"""Streams the pictures and video frames of many files, prefetched in constant memory."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fer_jax import pictures, videos
from fer_jax.errors import InputError

LEAST_SIDE_PX = 4096  # pictures of at least twice this are reduced as they are read
MOST_ITEMS = 128  # in a chunk: the largest batch of faces
MOST_PIXELS = 32_000_000  # in a chunk; a single picture may exceed it
WORKERS = min(4, os.cpu_count() or 1)
FILES_AHEAD = 2 * WORKERS
CHUNKS_AHEAD = 1


@dataclasses.dataclass(frozen=True)
class Item:
    """A picture, a video frame, or an error.

    index: the position of its file in the stream. frame, seconds: of a video, else None. fps: frames per second of the
    video, skipped frames not counted. pixels: uint8 [H, W, 3]; size: (width, height) of the original picture. error: a
    message if it cannot be read; there are no pixels then.
    """

    index: int
    source: str
    frame: int | None = None
    seconds: float | None = None
    fps: float | None = None
    pixels: np.ndarray | None = None
    size: tuple[int, int] | None = None
    error: str | None = None


def is_video(source: str) -> bool:
    """Whether a file counts as a video, by its suffix."""
    return source.lower().endswith(videos.VIDEO_SUFFIXES)


def count(sources: Sequence[str], *, every: int = 1) -> int:
    """Returns the number of items in the files, as announced by videos."""
    number = 0
    for source in sources:
        number += 1
        if is_video(source):
            with contextlib.suppress(InputError), videos.Video(source) as video:
                number += max(0, -(-video.count // every) - 1)
    return number


def read(sources: Sequence[str], *, every: int = 1, start: tuple[int, int] = (0, 0)) -> Iterator[Item]:
    """Yields the pictures of files and every `every`-th frame of videos, in order; some files are read ahead.

    start: (index, frame) of the first item.
    """
    first, first_frame = start
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        coming, pending = iter(range(first, len(sources))), collections.deque()
        try:
            while True:
                while len(pending) < FILES_AHEAD and (index := next(coming, None)) is not None:
                    picture = None if is_video(sources[index]) else pool.submit(_picture, index, sources[index])
                    pending.append((index, picture))
                if not pending:
                    return
                index, picture = pending.popleft()
                if picture is not None:
                    yield picture.result()
                else:
                    yield from _frames(index, sources[index], every, first_frame if index == first else 0)
        finally:
            for _, picture in pending:
                if picture is not None:
                    picture.cancel()


def _picture(index, source):
    try:
        picture = pictures.read_reduced(source, LEAST_SIDE_PX)
    except InputError as error:
        return Item(index, source, error=str(error))
    return Item(index, source, pixels=picture.pixels, size=picture.size)


def _frames(index, source, every, start):
    frame = None
    try:
        with videos.Video(source) as video:
            frame = start
            for read_one in video.frames(every=every, start=start):
                height, width, _ = read_one.pixels.shape
                frame = read_one.number + 1
                yield Item(
                    index,
                    source,
                    read_one.number,
                    read_one.seconds,
                    video.fps / every,
                    read_one.pixels,
                    (width, height),
                )
    except InputError as error:
        yield Item(index, source, frame=frame, error=str(error))


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yields items in lists of at most MOST_ITEMS and MOST_PIXELS; the splits depend on the items only."""
    chunk, pixels = [], 0
    for item in items:
        chunk.append(item)
        pixels += 0 if item.pixels is None else item.pixels.size // 3
        if len(chunk) == MOST_ITEMS or pixels >= MOST_PIXELS:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk


def ahead(iterator: Iterator, most: int = CHUNKS_AHEAD) -> Iterator:
    """Yields the items of an iterator that a thread runs, at most `most` + 1 items ahead.

    Exceptions of the thread are raised here. Closing this closes the iterator.
    """
    given, stopped = queue.Queue(most), threading.Event()
    thread = threading.Thread(target=_fill, args=(iterator, given, stopped), daemon=True)
    thread.start()
    try:
        while True:
            kind, value = given.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stopped.set()
        thread.join(timeout=10)


def _fill(iterator, given, stopped):
    def put(*entry):
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                given.put(entry, timeout=0.1)
                return

    try:
        with contextlib.closing(iterator):
            for value in iterator:
                put("value", value)
                if stopped.is_set():
                    return
        put("end", None)
    except BaseException as error:  # whatever it is, the consumer must get it
        put("error", error)
