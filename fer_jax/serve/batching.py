"""Runs the faces of parallel requests as one batch, in a thread of its own."""

import concurrent.futures
import queue
import threading
import time
from typing import NamedTuple

import numpy as np


class _Job(NamedTuple):
    faces: np.ndarray
    future: concurrent.futures.Future


class Batcher:
    """Collects faces and runs them together.

    probs_fn: faces uint8 [N, H, W, C] -> probabilities [N, K], for N up to `most`; called by one thread only.
    wait_seconds: how long the first faces of a batch wait for others. on_batch(N): called for each batch.
    """

    def __init__(self, probs_fn, *, most: int, wait_seconds: float, on_batch=lambda faces: None):
        self._probs_fn, self._most, self._wait_seconds, self._on_batch = probs_fn, most, wait_seconds, on_batch
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, faces) -> concurrent.futures.Future:
        """Returns the future of the probabilities [N, K] of faces uint8 [N, H, W, C]."""
        job = _Job(faces, concurrent.futures.Future())
        self._jobs.put(job)
        return job.future

    def queued(self) -> int:
        """Returns how many requests wait for a batch."""
        return self._jobs.qsize()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Answers what was submitted before, and ends the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self):
        while (job := self._jobs.get()) is not None:
            jobs = self._collect(job)
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if jobs:
                self._answer(jobs)

    def _collect(self, job):
        jobs, count, deadline = [job], len(job.faces), time.monotonic() + self._wait_seconds
        while count < self._most:
            try:
                job = self._jobs.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)  # `_work` ends after this batch
                break
            jobs.append(job)
            count += len(job.faces)
        return jobs

    def _answer(self, jobs):
        try:
            faces = np.concatenate([job.faces for job in jobs])
            probs = np.concatenate([self._run(faces[at : at + self._most]) for at in range(0, len(faces), self._most)])
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # whose faces failed is found one by one
                self._answer([job])
            return
        for job, mine in zip(jobs, np.split(probs, np.cumsum([len(job.faces) for job in jobs])[:-1]), strict=True):
            job.future.set_result(mine)

    def _run(self, faces):
        self._on_batch(len(faces))
        return self._probs_fn(faces)
