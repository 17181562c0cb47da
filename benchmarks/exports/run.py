"""Exports every network of the five reports and the shipped model to ONNX, and compares it with JAX.

python benchmarks/exports/run.py                                   # results.json and table.md
python benchmarks/exports/run.py --data_path <faces, as data.path>   # the shipped model's int8 accuracy too

The reports' networks have drawn weights, so that no two values are alike; what they compute depends on the faces. The
times are of one face: of onnxruntime with a thread for each core, and of `Recognizer.probs`. Rerun the same command to
resume; networks in results.json are skipped.
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
import tempfile
import zlib

import jax
import numpy as np

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "experiments" / "reports"))
import systems
import timing

import fer_jax
from fer_jax import command, export, models, workdir
from fer_jax import config as config_lib
from fer_jax.exports import onnx_models
from fer_jax.recognizer import Member, Recognizer

HERE = pathlib.Path(__file__).resolve().parent
CLASSES = tuple("abcdefg")
FACES, ROUNDS = 8, 7
IGNORED = ("init", "weights")  # fields that do not change what a network computes from given weights


def networks() -> dict:
    """Returns {row: (config section `model`, shape of a face)} of the reports' networks, each once."""
    found, seen = {}, set()
    for name, row in systems.ROWS.items():
        if row.kind != "train":
            continue
        config = config_lib.load(f"configs/{row.config}")
        config.update_from_flattened_dict(row.fields)
        if config.model.name == "average":
            continue
        section = {key: value for key, value in config_lib.to_dict(config)["model"].items() if key not in IGNORED}
        shape = (config.data.size_px, config.data.size_px, config.data.channels)
        key = json.dumps([section, shape], sort_keys=True)
        if key not in seen:
            seen.add(key)
            found[name] = config.model, shape
    return found


def draw(model, shape):
    """Returns variables of which no two values are alike, without compiling `init`."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, *shape), np.uint8), train=False))

    def leaf(path, one):
        rng = np.random.default_rng(zlib.crc32(jax.tree_util.keystr(path).encode()))
        if path[-1].key == "kernel":
            values = rng.normal(0, (2 / np.prod(one.shape[:-1])) ** 0.5, one.shape)
        else:
            low, high = {"scale": (0.5, 1), "var": (0.7, 1.5)}.get(path[-1].key, (-0.1, 0.1))
            values = rng.uniform(low, high, one.shape)
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def drawn(name, model, shape):
    """Returns a recognizer with drawn weights, whose logits differ between faces by about 1, so that errors show."""
    faces = np.random.default_rng(1).integers(0, 256, (FACES, *shape), np.uint8)
    variables = draw(model, shape)
    logits = np.asarray(model.apply(variables, faces, train=False))
    mean, spread = logits.mean(axis=0), logits.std(axis=0).mean()

    def rescale(path, leaf):
        if leaf.shape[-1] != len(CLASSES):  # not of the classifier
            return leaf
        return (leaf - mean) / spread if path[-1].key == "bias" else leaf / spread

    variables = jax.tree_util.tree_map_with_path(rescale, variables)
    return Recognizer(name, [Member(model, variables, CLASSES)], shape)


def compare(recognizer) -> dict:
    """Returns the parity, the size and the milliseconds of a recognizer in ONNX and in JAX."""
    faces = np.random.default_rng(0).integers(0, 256, (FACES, *recognizer.image_shape), np.uint8)
    model = onnx_models.classifier(recognizer)
    session = onnx_models.session(model)
    expected = recognizer.probs(faces)
    difference = float(np.abs(session.run(None, {"faces": faces})[0] - expected).max())
    found = {"largest_difference": difference, "varies_by": float(np.ptp(expected, axis=0).max())}
    found |= {"megabytes": len(model.SerializeToString()) / 1e6, "nodes": len(model.graph.node)}
    calls = {
        "onnxruntime": functools.partial(session.run, None, {"faces": faces[:1]}),
        "jax": functools.partial(recognizer.probs, faces[:1]),
    }
    for name, rounds in timing.seconds_in_turn(calls, ROUNDS).items():
        found[f"{name}_ms"] = 1000 * statistics.median(rounds)
    return found


def table(results) -> str:
    """Returns the table of results.json."""
    lines = [
        "| network | largest difference to JAX | MB | ms a face: onnxruntime | ms a face: JAX |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in results["networks"].items():
        times = f"{one['onnxruntime_ms']:.1f} | {one['jax_ms']:.1f}"
        lines.append(f"| {name} | {one['largest_difference']:.1e} | {one['megabytes']:.1f} | {times} |")
    return "\n".join(lines) + "\n"


def main():
    """Compares what results.json lacks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", help="faces, as data.path: scores the shipped model in int8 too")
    options = parser.parse_args()
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {"networks": {}}
    results["facts"] = workdir.facts() | {"command": "python benchmarks/exports/run.py"}
    wanted = {"shipped model, ten views": None, **networks()}
    for number, (name, parts) in enumerate(wanted.items(), 1):
        if name in results["networks"]:
            continue
        print(f"{number} of {len(wanted)}: {name}", flush=True)
        if parts is None:
            recognizer = fer_jax.load()
        else:
            model = models.make(parts[0], len(CLASSES))
            recognizer = drawn(name, model, parts[1])
        results["networks"][name] = compare(recognizer)
        workdir.write_json(path, results)
        (HERE / "table.md").write_text(table(results))
    if options.data_path:
        with tempfile.TemporaryDirectory() as folder:
            facts = export.export(
                "small", f"{folder}/small", formats=tuple(export.ENDINGS), data_path=options.data_path
            )
        results["shipped"] = {"exports": facts["exports"], "exported": facts["exported"]}
        workdir.write_json(path, results)


if __name__ == "__main__":
    command.run(main)
