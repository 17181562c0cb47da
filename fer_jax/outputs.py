"""Writes predictions as JSON lines or CSV, to files that can be resumed and merged from parts.

While OUT is being written it is called OUT.partial, and OUT.job.json records the job and its progress. A split job
writes OUT.1-of-3 and so on, whose .job.json files remain for the merge.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator

import filelock

from fer_jax import files
from fer_jax.errors import Busy, InputError

FORMATS = ("jsonl", "csv", "kaggle")
COLUMNS = (
    "source",
    "frame",
    "seconds",
    "width",
    "height",
    "face",
    "x",
    "y",
    "box_width",
    "box_height",
    "score",
    "track",
)
UNREADABLE = -1  # the class number in the challenge's format, in which every picture needs a row


def header(format: str, classes) -> str:
    """Returns the first line of a file; '' if the format has no header."""
    if format == "jsonl":
        return ""
    return _row(["emotion"] if format == "kaggle" else [*COLUMNS, "label", "uncertain", *classes, "error"])


def lines(format: str, record: dict, classes) -> str:
    """Returns the lines for a picture's record, as made by `fer_jax.predicting.record`.

    jsonl: one line; csv: one line per face, or one line without a face; kaggle: the index of the class in `classes`.
    """
    if format == "jsonl":
        return json.dumps(record, ensure_ascii=False) + "\n"
    if format == "kaggle":
        (label,) = [face["label"] for face in record["faces"]] or [None]
        return _row([UNREADABLE if label is None else classes.index(label)])
    start = [record["source"], record["frame"], record["seconds"], *(record["size"] or (None, None))]
    if not record["faces"]:
        return _row([*start, *[None] * (9 + len(classes)), record["error"]])
    rows = []
    for number, face in enumerate(record["faces"], 1):
        probs = [face["probs"][name] for name in classes]
        found = [*(face["box"] or [None] * 4), face["score"], face["track"], face["label"], int(face["uncertain"])]
        rows.append(_row([*start, number, *found, *probs, record["error"]]))
    return "".join(rows)


def _row(cells):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def digest(**facts) -> str:
    """Returns a digest that identifies a job by its options, model and sources."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class Stdout:
    """Writes to stdout with the interface of `Output`; it cannot be resumed."""

    state, done = None, False

    def __init__(self, first: str):
        self._first = first

    def __enter__(self):
        # A file name may contain bytes that are not UTF-8; they become JSON escapes.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        sys.stdout.write(self._first)
        return self

    def __exit__(self, *_):
        pass

    def write(self, text: str, state: dict | None) -> None:
        """Writes lines."""
        sys.stdout.write(text)
        sys.stdout.flush()


class Output:
    """A file of predictions written by a job; a context manager. At its end the file is complete or can be resumed.

    path: of the file; first: its header; job: `digest`, `format`, `part` [i, n], `sources` (their number in the part)
    and `total`.

    Attributes:
      state: the last state given to `write` before the same job was interrupted; else None.
      done: whether this part of a split job was finished earlier.

    Raises:
      InputError: an existing partial file is from another job, or the file cannot be written.
      Busy: another process is writing it.
    """

    def __init__(self, path, first: str, job: dict):
        self.path, self._first, self._job = pathlib.Path(path), first, job
        self._partial, self._job_path = (_sibling(self.path, ending) for ending in (".partial", ".job.json"))
        self.state, self.done, self._file = None, False, None
        self._is_split = job["part"] != [1, 1]

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = filelock.FileLock(_sibling(self.path, ".lock"))
                stack.enter_context(self._lock.acquire(timeout=0))
                self._open(stack)
            except filelock.Timeout as error:
                raise Busy(f"{self.path} is being written by another process") from error
            except OSError as error:
                raise InputError(f"{self.path} cannot be written ({error}): give another --out") from error
            self._stack = stack.pop_all()
        return self

    def _open(self, stack):
        found = _read_job(self._job_path)
        unfinished = self._partial.exists()
        if found and (unfinished or (self._is_split and self.path.exists())):
            if any(found.get(name) != self._job[name] for name in self._job):
                begun = self._partial if unfinished else self.path
                raise InputError(
                    f"{begun} was started with other options, another model or other sources: delete it, or give "
                    "another --out"
                )
            self.done = not unfinished
            self.state = found.get("state")
        if self.done:
            return
        size = self.state["bytes"] if self.state and unfinished else 0
        if unfinished and self._partial.stat().st_size < size:
            raise InputError(f"{self._partial} is shorter than when it was last written: delete it")
        self._file = stack.enter_context(self._partial.open("r+b" if size else "wb"))
        self._file.truncate(size)  # drops what was written after the last complete chunk
        self._file.seek(size)
        if not size:
            self.state = None
            self.write(self._first, None)
            self._save(None)

    def write(self, text: str, state: dict | None) -> None:
        """Writes lines. An interrupted job resumes after the last lines written with a state."""
        self._file.write(text.encode("utf-8", "backslashreplace"))
        self._file.flush()
        if state is not None:
            self._save({**state, "bytes": self._file.tell()})

    def _save(self, state):
        self.state = state
        with files.atomic_write(self._job_path) as file:
            file.write(json.dumps({**self._job, "state": state}))

    def __exit__(self, kind, *_):
        with self._stack:
            if kind is None and not self.done:
                self._file.close()
                os.replace(self._partial, self.path)
                if not self._is_split:
                    self._job_path.unlink()
            with contextlib.suppress(OSError):
                os.unlink(self._lock.lock_file)


def _sibling(path, ending):
    return path.with_name(path.name + ending)


def _read_job(path):
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): delete it and what it belongs to") from error


def part_of(out, part: tuple[int, int]) -> pathlib.Path:
    """Returns the file of part (i, n) of OUT; OUT itself for (1, 1)."""
    return pathlib.Path(out) if part == (1, 1) else _sibling(pathlib.Path(out), f".{part[0]}-of-{part[1]}")


def merge(out) -> dict:
    """Merges the parts of OUT into it, in the order of the sources; returns the numbers of `sources` and `failed`.

    The parts are not changed.

    Raises:
      InputError: there are no parts, or one is missing, unfinished, corrupt, or from another job.
    """
    out = pathlib.Path(out)
    jobs = _parts(out)
    paths = [part_of(out, part) for part in sorted(jobs)]
    total, format = sum(job["sources"] for job in jobs.values()), jobs[1, len(jobs)]["format"]
    with contextlib.ExitStack() as stack:
        texts = [stack.enter_context(open(path, encoding="utf-8", newline="")) for path in paths]
        first = [next(text, "") for text in texts] if format != "jsonl" else [""]
        groups = [_groups(text, format, path) for text, path in zip(texts, paths, strict=True)]
        file = stack.enter_context(files.atomic_write(out, encoding="utf-8", newline=""))
        file.write(first[0])
        for source in range(total):
            group = next(groups[source % len(groups)], None)
            if group is None:
                raise InputError(f"{paths[source % len(groups)]} lacks lines: delete it and run it again")
            file.write(group)
        for path, rest in zip(paths, groups, strict=True):
            if next(rest, None) is not None:
                raise InputError(f"{path} has more lines than sources: delete it and run it again")
    return {"sources": total, "failed": sum(job["state"]["failed"] for job in jobs.values() if job["state"])}


def _parts(out):
    """Returns {(i, n): job} of all parts of OUT, after checking that they are complete and from one job."""
    found = {}
    pattern = re.compile(re.escape(out.name) + r"\.(\d+)-of-(\d+)(\.partial)?")
    for path in sorted(out.parent.iterdir()) if out.parent.is_dir() else ():
        if match := pattern.fullmatch(path.name):
            part = int(match[1]), int(match[2])
            if match[3]:
                raise InputError(f"{path.with_suffix('')} is not finished: run --split {part[0]}/{part[1]} again")
            found[part] = _read_job(_sibling(path, ".job.json"))
            if found[part] is None:
                raise InputError(f"{path} lacks its .job.json: delete it and run --split {part[0]}/{part[1]} again")
    if not found:
        raise InputError(f"{out} has no parts: there is no {out.name}.1-of-... in {out.parent}")
    parts = max(number for _, number in found)
    if strangers := sorted(part for part in found if part[1] != parts or not 1 <= part[0] <= parts):
        raise InputError(
            f"{part_of(out, strangers[0])} overlaps the parts of {parts}: delete the parts of one of the splits"
        )
    if missing := [number for number in range(1, parts + 1) if (number, parts) not in found]:
        raise InputError(f"{part_of(out, (missing[0], parts))} is missing: run --split {missing[0]}/{parts}")
    jobs = list(found.values())
    for part, job in found.items():
        if job["digest"] != jobs[0]["digest"]:
            raise InputError(
                f"{part_of(out, part)} was made with other options, another model or other sources than "
                f"{part_of(out, next(iter(found)))}"
            )
    return found


def _groups(text, format, path) -> Iterator[str]:
    """Yields the lines of each source, in their order, without the header."""
    group, last = [], None
    for line, key in _keyed(text, format, path):
        if group and not _continues(last, key):
            yield "".join(group)
            group = []
        group.append(line)
        last = key
    if group:
        yield "".join(group)


def _keyed(text, format, path):
    """Yields (lines of one row, its (source, frame, face)); the key is None if every row is a source."""
    try:
        if format == "kaggle":
            yield from ((line, None) for line in text)
        elif format == "jsonl":
            for line in text:
                record = json.loads(line)
                yield line, (record["source"], record["frame"], 0)
        else:
            for cells in csv.reader(text):
                yield _row(cells), (cells[0], int(cells[1]) if cells[1] else None, int(cells[5] or 0))
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        raise InputError(f"{path} has a line that is not a prediction ({error}): delete it and run it again") from error


def _continues(last, key):
    """Whether a row belongs to the same source as the previous one: a later frame, or the next face."""
    if key is None or last[0] != key[0] or (last[1] is None) != (key[1] is None):
        return False
    next_face = key[1] == last[1] and last[2] >= 1 and key[2] == last[2] + 1
    return next_face or (key[1] is not None and key[1] > last[1])
