"""How much memory does a long video take, and what is the latency for a camera?

pip install 'fer-jax[video]'
python -m fer_jax.pretrained --fetch blazeface
FER2013_DIR=<folder with csv/fer2013.csv> python benchmarks/video/run.py [--minutes 10] [--only video|camera]

The film shows three faces of PublicTest that drift over photographs without people, and change every three seconds.
`python -m fer_jax.predict` processes all of its frames, and its memory is read at each minute. The camera delivers such
frames at its own rate to a page without viewers. Writes results.json to this folder.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

import fer_jax
from fer_jax import live, predicting, videos
from fer_jax import workdir as workdir_lib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "experiments" / "faces"))
import scenes  # noqa: E402

WIDTH, HEIGHT = 640, 480
FACE_PX, FACES = 128, 3
CAMERA_FPS = 30


def frames(fps, seconds):
    """Yields the frames of a film, uint8 [480, 640, 3]."""
    faces = scenes.read_faces(scenes.data_folder(), "PublicTest")
    grounds = [np.asarray(Image.fromarray(one).resize((WIDTH, HEIGHT))) for one in scenes.backgrounds().values()]
    for number in range(round(fps * seconds)):
        second = number / fps
        squares = [
            (
                (0.5 + place) * WIDTH / FACES + 30 * math.sin(second / 2 + place),
                HEIGHT / 2 + 90 * math.sin(second / 3 + 2 * place),
                FACE_PX,
                0.0,
            )
            for place in range(FACES)
        ]
        shown = [faces[(int(second / 3) * FACES + place) % len(faces)] for place in range(FACES)]
        yield scenes.compose(shown, grounds[int(second / 10) % len(grounds)], squares)


def resident_mib(pid):
    """Returns the resident memory of a process (Linux)."""
    (line,) = (line for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line[:5] == "VmRSS")
    return round(int(line.split()[1]) / 1024)


def measure_video(minutes, fps):
    """Returns the memory of the command at each minute of a film, and its speed."""
    with tempfile.TemporaryDirectory() as folder:
        film = os.path.join(folder, "film.mp4")
        with videos.Writer(film, fps) as writer:
            for pixels in frames(fps, 60 * minutes):
                writer.write(pixels)
        command = [sys.executable, "-m", "fer_jax.predict", film]
        began, memory, found, count = time.perf_counter(), {}, 0, 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                record = json.loads(line)
                count, found = count + 1, found + len(record["faces"])
                # The last minute is incomplete at its last frame.
                if (minute := int((record["seconds"] + 1) / 60)) > len(memory):
                    memory[minute] = resident_mib(process.pid)
                    print(f"minute {minute}: {memory[minute]} MiB, {time.perf_counter() - began:.0f} s", flush=True)
        if process.returncode:
            raise SystemExit(f"predict ended with {process.returncode}")
    seconds = time.perf_counter() - began
    return {
        "minutes": minutes,
        "frames": count,
        "frames_per_second_of_film": fps,
        "faces_found": round(found / (FACES * count), 4),
        "mib_by_minute": memory,
        "seconds": round(seconds, 1),
        "images_per_second": round(count / seconds, 1),
    }


def measure_camera(seconds):
    """Returns the latencies from a frame's arrival until it was shown, at the rate of a camera."""
    stored = list(frames(CAMERA_FPS, 10))

    def camera():
        start = time.perf_counter()
        for number in range(round(CAMERA_FPS * seconds)):
            time.sleep(max(0.0, start + number / CAMERA_FPS - time.perf_counter()))
            yield videos.Frame(number, number / CAMERA_FPS, stored[number % len(stored)])

    model = fer_jax.load()
    model.predict(stored[0])  # compiles
    with live.Page(0) as page:
        latencies, _ = predicting.watch(
            model, camera(), "camera:0", None, "jsonl", options=predicting.Options(), show_fn=page.show
        )
    median, high = live.percentiles_ms(latencies)
    return {"seconds": seconds, "frames": len(latencies), "median_ms": round(median, 1), "p95_ms": round(high, 1)}


def main():
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=10, help="of the film; default: %(default)s")
    parser.add_argument("--fps", type=int, default=10, help="of the film; default: %(default)s")
    parser.add_argument("--seconds", type=int, default=60, help="of the camera; default: %(default)s")
    parser.add_argument("--only", choices=("video", "camera"))
    options = parser.parse_args()
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    works = {
        "camera": lambda: measure_camera(options.seconds),
        "video": lambda: measure_video(options.minutes, options.fps),
    }
    for name, work in works.items():
        if options.only in (None, name):
            results[name] = work() | {"load": round(os.getloadavg()[0], 1), "made": workdir_lib.facts()}
            print(name, results[name], flush=True)
            path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
