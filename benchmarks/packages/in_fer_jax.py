"""Scores faces with `fer_jax.load()`: python in_fer_jax.py <model> <faces.u8> <jobs as JSON>; a line of JSON a job."""

import json
import sys
import time

import numpy as np

import fer_jax

SIDE = 48


def main():
    """Reads the faces, and does the jobs."""
    name, file, jobs = sys.argv[1:]
    faces = np.fromfile(file, np.uint8).reshape(-1, SIDE, SIDE, 1)
    name, _, views = name.partition(":")
    model = fer_jax.load(name, views=views or None)

    def predict(some):
        return [model.classes[number] for number in model.probs(some).argmax(axis=1)]

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
