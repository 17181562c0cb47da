"""Which detector finds faces best, and how do its boxes become FER-2013's squares?

pip install ai-edge-litert 'fer-jax[video]'
python -m fer_jax.pretrained --fetch blazeface
FER2013_DIR=<folder with csv/fer2013.csv> python experiments/faces/run.py [--yunet face_detection_yunet_2023mar.onnx]

Scenes are composed (scenes.py) of faces of the training split. The framings are fitted on half of the faces, upright;
the other half are used for counting. Writes results.json next to this file and prints the tables of README.md.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys

import numpy as np
import scenes

from fer_jax import faces
from fer_jax.pretrained import fetch, registry

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))
import timing

HERE = pathlib.Path(__file__).resolve().parent
FRAMING_SIZES_PX = (64, 96, 128, 192, 256)
# A face is found if a framed box overlaps its square by this much (intersection over union).
FOUND = 0.4
PHOTOGRAPHS = {"astronaut": 1, "camera": 1, "coffee": 0, "cat": 0, "rocket": 0}  # scikit-image's: people in them


def detectors(options):
    """Returns {label: detector}."""
    made = {"lbp": faces.make_detector("lbp")}
    for name, levels in (("blazeface", (1, 2, 3, 4)), ("blazeface:back", (1, 2)), ("blazeface:full", (1, 2))):
        for level in levels:
            made[f"{name}, {level} level{'s' * (level > 1)}"] = faces.make_detector(name, levels=level)
    if options.yunet:
        made["yunet"] = faces.make_detector(f"yunet:{options.yunet}")
    return made


def overlap(a, b):
    """Intersection over union of two squares (x, y of the centre, side)."""
    shared = np.prod(
        [max(0, min(a[i] + a[2] / 2, b[i] + b[2] / 2) - max(a[i] - a[2] / 2, b[i] - b[2] / 2)) for i in (0, 1)]
    )
    return shared / (a[2] ** 2 + b[2] ** 2 - shared)


def match(found, squares, threshold=FOUND, frame=faces.square):
    """Pairs faces with squares, best score first, each once; returns [(face, square)]."""
    left, pairs = list(squares), []
    for face in found:
        if left:
            best = max(left, key=lambda square: overlap(frame(face), square))
            if overlap(frame(face), best) >= threshold:
                left.remove(best)
                pairs.append((face, best))
    return pairs


def fit(detector, shown):
    """Returns the framing of a detector: medians over upright faces, and the spread around the true squares."""
    rows = []
    for size_px in FRAMING_SIZES_PX:
        made = list(scenes.make(shown, size_px))
        for scene, found in zip(made, detector.detect([scene.picture for scene in made]), strict=True):
            # The plain box may be much smaller than the square.
            plain = lambda face: (face.box[0] + face.box[2] / 2, face.box[1] + face.box[3] / 2, face.box[2] * 1.2)  # noqa: E731
            for face, (x, y, side, _) in match(found, scene.squares, 0.25, plain):
                left, top, width, height = face.box
                size = (width + height) / 2
                rows.append((side / size, (x - left - width / 2) / size, (y - top - height / 2) / size))
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    spread = [float(np.subtract(*np.percentile(column, (75, 25)))) for column in zip(*rows, strict=True)]
    names = ("scale", "right", "down")
    return {
        "n": len(rows),
        **dict(zip(names, np.round(middle, 3).tolist(), strict=True)),
        "quartiles": dict(zip(names, np.round(spread, 3).tolist(), strict=True)),
    }


def count(detector, made):
    """Returns recall and false boxes over scenes."""
    hits = boxes = squares = 0
    for scene, found in zip(made, detector.detect([scene.picture for scene in made]), strict=True):
        hits += len(match(found, scene.squares))
        boxes += len(found)
        squares += len(scene.squares)
    return {"faces": squares, "found": hits, "false": boxes - hits}


def milliseconds(call, repeats=7):
    """Returns the minimum time of a call after a warm-up: other load on the machine can only add to it."""
    return round(1e3 * min(timing.seconds_in_turn({"call": call}, repeats)["call"]), 2)


def network_speed(name):
    """Times the network alone, per picture: LiteRT one at a time, ours in batches."""
    detector = faces.make_detector(name, levels=1)
    size_px = detector.spec.size_px
    images = np.random.default_rng(0).integers(0, 256, (32, size_px, size_px, 3), np.uint8)
    found = {
        f"jax, batch {size}": milliseconds(lambda size=size: detector.outputs(images[:size])) / size
        for size in (1, 8, 32)
    }
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return found
    for threads in (1, 2):
        lite = Interpreter(str(fetch.find(registry.find(name))), num_threads=threads)
        lite.allocate_tensors()
        place = lite.get_input_details()[0]["index"]

        def run(lite=lite, place=place):
            lite.set_tensor(place, images[:1] / np.float32(127.5) - 1)
            lite.invoke()

        found[f"litert, {threads} thread{'s' * (threads > 1)}"] = milliseconds(run, 50)
    return {key: round(value, 2) for key, value in found.items()}


def main():
    """Measures everything and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=144, help="of each size and tilt; default: %(default)s")
    parser.add_argument("--yunet", default="", help="the ONNX file of a YuNet")
    parser.add_argument("--only", default="", choices=("", "framing"), help="measure only the framings again")
    options = parser.parse_args()
    shown = scenes.read_faces(scenes.data_folder(), count=2 * options.faces)
    fitting, counted = shown[: options.faces], shown[options.faces :]
    made = detectors(options)
    load = os.getloadavg()[0]
    results = {"faces": options.faces, "framings": {}, "scenes": {}, "photographs": {}, "network_ms": {}}
    for label in ("lbp", "blazeface, 3 levels", "blazeface:back, 2 levels", "blazeface:full, 2 levels", "yunet"):
        if label in made:
            results["framings"][label.split(",")[0]] = fit(made[label], fitting)
            print(label, results["framings"][label.split(",")[0]], flush=True)
    if options.only == "framing":
        known = json.loads((HERE / "results.json").read_text())
        (HERE / "results.json").write_text(json.dumps(known | {"framings": results["framings"]}, indent=1) + "\n")
        return
    cases = [(size, 0) for size in scenes.SIZES_PX] + [(128, tilt) for tilt in scenes.TILTS if tilt]
    for size_px, tilt in cases:
        one = counted[: options.faces // 4] if size_px > 200 else counted
        composed = list(scenes.make(one, size_px, tilt))
        for label, detector in made.items():
            row = count(detector, composed)
            results["scenes"].setdefault(label, {})[f"{size_px} px, {tilt} degrees"] = row
            print(size_px, tilt, label, row, flush=True)
    import skimage.data

    for label, detector in made.items():
        found = {}
        for name in PHOTOGRAPHS:
            picture = getattr(skimage.data, name)()
            picture = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture
            found[name] = len(detector.detect([picture])[0])
        picture = next(iter(scenes.make(counted, 96))).picture
        found["ms for a scene of 800 x 600 px with 9 faces"] = milliseconds(lambda d=detector, p=picture: d.detect([p]))
        results["photographs"][label] = found
    for row in registry.DETECTOR_ROWS:
        results["network_ms"][row.name] = network_speed(row.name)
    results["machine"] = {"cores": os.cpu_count(), "load_average": [round(load, 1), round(os.getloadavg()[0], 1)]}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def table(results):
    """Returns the results as Markdown."""
    cases = list(next(iter(results["scenes"].values())))
    lines = ["| detector | " + " | ".join(case.replace(" degrees", "°") for case in cases) + " | precision | ms |"]
    lines.append("| --- " * (len(cases) + 3) + "|")
    for label, rows in results["scenes"].items():
        hits, false = (sum(row[key] for row in rows.values()) for key in ("found", "false"))
        recalls = [f"{row['found'] / row['faces']:.2f}" for row in rows.values()]
        ms = results["photographs"][label]["ms for a scene of 800 x 600 px with 9 faces"]
        lines.append(f"| {label} | " + " | ".join(recalls) + f" | {hits / max(1, hits + false):.2f} | {ms:.0f} |")
    lines += ["", "| detector | " + " | ".join(f"{name} ({n})" for name, n in PHOTOGRAPHS.items()) + " |"]
    lines.append("| --- " * (len(PHOTOGRAPHS) + 1) + "|")
    for label, found in results["photographs"].items():
        lines.append(f"| {label} | " + " | ".join(str(found[name]) for name in PHOTOGRAPHS) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
