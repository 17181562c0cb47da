"""The detector `yunet:<file>`: a user's YuNet (Wu et al. 2023), run by OpenCV."""

import pathlib
import threading
from collections.abc import Sequence

import numpy as np

from fer_jax.errors import InputError
from fer_jax.faces import views
from fer_jax.faces.geometry import Face, Framing

PREFIX = "yunet:"
SIDE_PX = 640  # the longer side of the searched picture
SAME_FACE, MOST_FACES = 0.3, 5000


class YuNet:
    """A detector with eyes."""

    def __init__(self, file: str, *, framing: Framing, min_score: float):
        """min_score: of reported faces.

        Raises:
          InputError: OpenCV is not installed, or the file is missing or not a YuNet.
        """
        try:
            import cv2
        except ImportError as error:
            raise InputError(
                f"the detector {PREFIX}{file} needs OpenCV, which is not installed: pip install 'fer-jax[video]'"
            ) from error
        path = pathlib.Path(file).expanduser()
        if not path.is_file():
            raise InputError(
                f"the detector {PREFIX}{file}: there is no file {path}; give the ONNX file of a YuNet, such as "
                "face_detection_yunet_2023mar.onnx from OpenCV's model zoo"
            )
        self.name, self._framing, self._cv2 = f"{PREFIX}{file}", framing, cv2
        self._lock = threading.Lock()  # the network keeps the size of its input
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (32, 32), min_score, SAME_FACE, MOST_FACES)
            self._search(np.zeros((32, 32, 3), np.uint8))
        except cv2.error as error:
            raise InputError(
                f"the detector {PREFIX}{file}: OpenCV cannot use the file as a YuNet ({' '.join(str(error).split())}): "
                "fetch it again from OpenCV's model zoo"
            ) from error

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[Face]]:
        """Finds the faces in uint8 RGB pictures [H, W, 3] of any sizes; best scores first in each list."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture):
        small, scale = views.fit(picture, SIDE_PX)
        faces = []
        for x, y, width, height, *points, score in self._search(small):
            scaled = [float(value) for value in np.array([x, y, width, height, *points[:4]]) * np.tile(scale[:2], 4)]
            eyes = (tuple(scaled[4:6]), tuple(scaled[6:8]))
            faces.append(Face(tuple(scaled[:4]), float(score), eyes, self._framing))
        return sorted(faces, key=lambda face: -face.score)

    def _search(self, picture):
        with self._lock:
            self._net.setInputSize(picture.shape[1::-1])
            found = self._net.detect(np.ascontiguousarray(picture[..., ::-1]))[1]
        return [] if found is None else found
