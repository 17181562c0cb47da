"""Does rotating a face until its eyes are level (`--align`, the default) improve recognition?

python -m fer_jax.pretrained --fetch blazeface
FER2013_DIR=<folder with csv/fer2013.csv> python experiments/faces/align.py

Faces of PublicTest are placed upright and tilted in composed scenes (scenes.py), found by BlazeFace, cropped with and
without alignment, and recognized by the shipped model. Writes align.json next to this file and prints the table of
README.md. Faces that are not found count in neither column.
"""

import argparse
import json
import pathlib

import numpy as np
import run
import scenes

import fer_jax
from fer_jax import faces, significance
from fer_jax import workdir as workdir_lib

HERE = pathlib.Path(__file__).resolve().parent
SIZE_PX = 128
TILTS = (0, 10, 20, 30, 45)  # degrees, to either side


def measure(model, detector, shown, labels, tilt):
    """Returns the accuracies over the found faces of scenes, with and without alignment, and of their originals."""
    cuts, kept, first = {False: [], True: []}, [], 0
    for scene in scenes.make(shown, SIZE_PX, tilt):
        (found,) = detector.detect([scene.picture])
        for face, square in run.match(found, scene.squares):
            kept.append(first + scene.squares.index(square))
            for align, crops in cuts.items():
                crops.append(faces.crop(scene.picture, face, model.image_shape[0], align=align))
        first += len(scene.squares)
    truth = labels[kept]
    predicted = {align: model.probs(np.stack(crops)).argmax(1) for align, crops in cuts.items()}
    given = model.probs(shown[kept][..., None]).argmax(1)
    return {
        "found": len(kept),
        "original": float((given == truth).mean()),
        "plain": float((predicted[False] == truth).mean()),
        "aligned": float((predicted[True] == truth).mean()),
        "aligned_minus_plain": significance.mcnemar(truth, predicted[True], predicted[False]),
    }


def main():
    """Measures all tilts and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=1200, help="of PublicTest; default: %(default)s")
    options = parser.parse_args()
    shown, labels = scenes.read_labelled(scenes.data_folder(), "PublicTest", options.faces)
    model, detector = fer_jax.load(), faces.make_detector("blazeface")
    assert tuple(model.classes) == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    rows = {}
    for tilt in TILTS:
        rows[tilt] = measure(model, detector, shown, labels, tilt)
        print(tilt, rows[tilt], flush=True)
    facts = {"faces": options.faces, "size_px": SIZE_PX, "model": model.name, "views": model.views}
    results = {**facts, "by_tilt_degrees": rows, "made": workdir_lib.facts()}
    (HERE / "align.json").write_text(json.dumps(results, indent=1) + "\n")
    print("| tilt | found | original | plain | aligned | difference | p |\n" + "| --- " * 7 + "|")
    for tilt, row in rows.items():
        test = row["aligned_minus_plain"]
        shares = " | ".join(f"{row[name]:.4f}" for name in ("original", "plain", "aligned"))
        print(f"| {tilt}° | {row['found']} | {shares} | {test['difference']:+.4f} | {test['p_value']:.2g} |")


if __name__ == "__main__":
    main()
