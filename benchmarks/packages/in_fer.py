"""Scores faces with the package `fer`: python in_fer.py <keras|tflite> <faces.u8> <jobs as JSON>, in its own Python.

`fer` has no batches, but accepts one picture with the boxes of its faces, so a batch is one tall picture.
"""

import sys

import numpy as np
import worker
from fer.fer import FER


def main():
    """Loads the network and runs the jobs."""
    kind, file, jobs = sys.argv[1:]
    detector = FER(use_tflite=kind == "tflite", offsets=(0, 0))

    def predict(faces):
        picture = np.repeat(np.concatenate(faces)[..., None], 3, axis=2)
        boxes = [(0, number * worker.SIDE, worker.SIDE, worker.SIDE) for number in range(len(faces))]
        found = detector.detect_emotions(picture, boxes)
        return [max(face["emotions"], key=face["emotions"].get) for face in found]

    worker.work(file, jobs, predict)


if __name__ == "__main__":
    main()
