"""Shared by the Python workers: reads the faces, runs the jobs and prints one line of JSON each. Needs only numpy."""

import json
import time

import numpy as np

SIDE = 48


def work(file: str, jobs: str, predict_fn) -> None:
    """Runs the jobs on the faces in a file.

    file: uint8 [N, 48, 48]; jobs: a JSON list of {"batch", "count"}; predict_fn: faces [B, 48, 48] -> B labels.
    """
    faces = np.fromfile(file, np.uint8).reshape(-1, SIDE, SIDE)
    print(json.dumps({"first": predict_fn(faces[:1])[0]}), flush=True)
    for job in json.loads(jobs):
        batch, count = job["batch"], job["count"]
        predict_fn(faces[:batch])
        started, labels = time.perf_counter(), []
        for first in range(0, count, batch):
            labels += predict_fn(faces[first : min(first + batch, count)])
        print(json.dumps({"batch": batch, "seconds": time.perf_counter() - started, "labels": labels}), flush=True)
