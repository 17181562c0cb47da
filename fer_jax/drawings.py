"""Writes annotated pictures and videos to files."""

import contextlib
import os
import pathlib
from collections.abc import Sequence

from PIL import Image

from fer_jax import annotate, files, streams, videos
from fer_jax.errors import InputError

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png")
CAMERA_FPS = 25.0  # of a video written from a camera


class Drawings:
    """Annotated pictures and videos in a folder, or one annotated video; a context manager.

    target: a folder, in which files keep their paths relative to the common folder of the sources; or a video file, if
    the only source is a video; None: nothing is drawn.

    Raises:
      InputError: a video file for other sources, or the sources' own folder.
    """

    def __init__(self, sources: Sequence[str], target: str | None):
        self._target, self._writer, self._index = target and pathlib.Path(target), None, None
        self._stack = contextlib.ExitStack()
        self._is_file = bool(target) and streams.is_video(target)
        if not target:
            return
        if self._is_file and (len(sources) > 1 or not streams.is_video(sources[0])):
            raise InputError(f"--annotate {target} is a video file, which is for one video: give a folder for pictures")
        folders = [os.path.dirname(os.path.abspath(source)) for source in sources]
        self._shared = os.path.commonpath(folders)
        if os.path.realpath(target) == os.path.realpath(self._shared) and not self._is_file:
            raise InputError(f"--annotate {target} is the folder of the pictures: give another folder")

    @property
    def writes_video(self) -> bool:
        """Whether a video is open and may get more frames."""
        return self._writer is not None

    def path(self, source: str) -> pathlib.Path:
        """Returns the path of a file's annotated copy."""
        if self._is_file:
            return self._target
        path = self._target / os.path.relpath(os.path.abspath(source), self._shared)
        kept = videos.CODECS if streams.is_video(source) else PICTURE_ENDINGS
        return path if path.suffix.lower() in kept else path.with_name(f"{path.name}.{next(iter(kept))[1:]}")

    def add(self, item: streams.Item, faces: Sequence, tracks: Sequence[int] | None) -> None:
        """Draws an item and writes it; a video's file appears after its last frame."""
        if self._target is None:
            return
        if item.index != self._index:
            self._close_video()
        self._index = item.index
        if item.error:
            return
        path = self.path(item.source)
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = annotate.draw(item.pixels, faces, tracks=tracks)
        if item.frame is None:
            with files.replacing(path) as temporary:
                Image.fromarray(drawn).save(temporary, quality=92)
            return
        if self._writer is None:
            self._writer = self._stack.enter_context(videos.Writer(path, item.fps))
        self._writer.write(drawn)

    def _close_video(self):
        self._writer = None
        self._stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)


class Film(videos.Writer):
    """A video of a camera, whose frames arrive unevenly: each is repeated until the next one."""

    def __init__(self, path):
        super().__init__(path, CAMERA_FPS)
        self._written, self._last = 0, None

    def write(self, pixels, seconds):
        """Adds a frame at its time."""
        while self._last is not None and self._written < seconds * CAMERA_FPS:
            super().write(self._last)
            self._written += 1
        self._last = pixels

    def __exit__(self, *error):
        if self._last is not None:
            super().write(self._last)
        return super().__exit__(*error)
