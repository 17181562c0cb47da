"""Scores faces with the package `fer`: python in_fer.py <keras|tflite> <faces.u8> <jobs as JSON>, by its own Python.

Prints a line of JSON a job. `fer` has no batches: it takes one picture at a time, with the faces in it, so a batch is
given as one tall picture of faces whose places are told.
"""

import json
import sys
import time

import numpy as np
from fer.fer import FER

SIDE = 48


def main():
    """Reads the faces, and does the jobs."""
    kind, file, jobs = sys.argv[1:]
    faces = np.fromfile(file, np.uint8).reshape(-1, SIDE, SIDE)
    detector = FER(use_tflite=kind == "tflite", offsets=(0, 0))

    def predict(some):
        picture = np.repeat(np.concatenate(some)[..., None], 3, axis=2)
        places = [(0, number * SIDE, SIDE, SIDE) for number in range(len(some))]
        found = detector.detect_emotions(picture, places)
        return [max(face["emotions"], key=face["emotions"].get) for face in found]

    print(json.dumps({"first": predict(faces[:1])[0]}), flush=True)
    for job in json.loads(jobs):
        batch, count = job["batch"], job["count"]
        predict(faces[:batch])
        started, labels = time.perf_counter(), []
        for first in range(0, count, batch):
            labels += predict(faces[first : min(first + batch, count)])
        print(json.dumps({"batch": batch, "seconds": time.perf_counter() - started, "labels": labels}), flush=True)


if __name__ == "__main__":
    main()
