"""How fast and how accurate is each of `fer_jax.ops` on a CPU?

GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python benchmarks/cpu_ops/run.py [part ...]

For 3x3 and 5x5 convolutions in the shapes of our networks: GF/s (of the direct algorithm's operations) forward, for the
input's and for the kernel's gradient, by XLA, in chunks of the batch and by Winograd's algorithm, interleaved; and the
largest errors against float64. The same for kernels larger than the picture, by XLA and as a matrix product. Then the
train step of R1's model 2 with parts turned off. Parts are convolutions, small_pictures, step_of_model_2; others keep
their values in results.json.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import command, freezing, losses, ops, steps
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.ops import convolution, winograd

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = 7
# side of the kernel: (batch, side, channels in, filters)
SHAPES = {
    3: [(128, 48, 32, 32), (128, 24, 32, 64), (128, 24, 64, 64), (128, 12, 64, 128), (128, 12, 128, 128)],
    5: [(128, 48, 32, 32), (128, 24, 32, 64), (128, 24, 64, 64), (64, 24, 64, 128), (128, 12, 128, 128)],
}
SHAPES[3] += [(128, 12, 256, 256), (128, 6, 128, 128), (128, 6, 256, 256), (64, 6, 512, 512), (64, 3, 512, 512)]
SHAPES[3] += [(32, 14, 256, 256), (32, 56, 64, 64)]
SHAPES[5] += [(128, 6, 64, 64)]
# (side of the kernel, zero padding, shape): the last layer of R3's 4-layer CNN, ResNet's at 64 px, 5x5 on 4x4
SMALL_SHAPES = [(3, 0, (128, 4, 256, 512)), (3, 1, (32, 2, 512, 512)), (5, 2, (64, 4, 128, 128))]

WAYS = {
    "xla": lambda x, w, padding: convolution._plain(x, w, (1, 1), padding),
    "pieces": lambda x, w, padding: convolution._direct(x, w, (1, 1), padding),
    "winograd": winograd.conv,
    "product": lambda x, w, padding: convolution._product(x, w, (1, 1), padding),
}
PARTS = {
    "forward": lambda way, x, w, g: way(x, w),
    "input_gradient": lambda way, x, w, g: jax.vjp(lambda x: way(x, w), x)[1](g)[0],
    "kernel_gradient": lambda way, x, w, g: jax.vjp(lambda w: way(x, w), w)[1](g)[0],
}
# name -> parts turned off in the step of model 2
STEPS = {
    "all": (),
    "no Winograd": ("winograd",),
    "no compiler options": ("options",),
    "no huge pages": ("pages",),
    "cpu_path off": ("path", "options"),
    "cpu_path off, no huge pages": ("path", "options", "pages"),
}


def convolution_row(taps, shape, rim, names):
    """Returns the speeds and errors for a shape by the named methods; kernels are taps x taps, with padding `rim`."""
    batch, side, channels, filters = shape
    out, padding, rng = side + 2 * rim - taps + 1, ((rim, rim), (rim, rim)), np.random.default_rng(0)
    exact = [rng.normal(size=size) for size in ((batch, side, side, channels), (taps, taps, channels, filters))]
    exact.append(rng.normal(size=(batch, out, out, filters)))
    args = [jnp.asarray(values, jnp.float32) for values in exact]
    operations = 2 * taps**2 * batch * out**2 * channels * filters
    ways = {name: functools.partial(WAYS[name], padding=padding) for name in names}
    row = {"kernel": taps, "rim": rim, "shape": shape, "GFs": {}}
    for part, of in PARTS.items():
        calls = {name: functools.partial(ops.jit(functools.partial(of, way)), *args) for name, way in ways.items()}
        seconds = timing.seconds_in_turn(calls, TRIALS)
        row["GFs"][part] = {name: operations / statistics.median(some) / 1e9 for name, some in seconds.items()}
    row["error"] = errors(ways, exact, args)
    return row


def errors(ways, exact, args):
    """Returns the largest error of each part and method relative to the largest value; on 8 faces, in float64."""
    x, w, g = exact[0][:8], exact[1], exact[2][:8]
    with jax.enable_x64(True):
        truth = {part: np.asarray(of(ways["xla"], *map(jnp.asarray, (x, w, g)))) for part, of in PARTS.items()}
    small = args[0][:8], args[1], args[2][:8]
    return {
        part: {
            name: float(np.abs(np.asarray(of(way, *small), np.float64) - truth[part]).max() / np.abs(truth[part]).max())
            for name, way in ways.items()
        }
        for part, of in PARTS.items()
    }


def time_step(without):
    """Prints the median seconds of a train step with parts turned off."""
    if "winograd" in without:
        winograd.pays = lambda *_: False
    config = config_lib.load(HERE.parents[1] / "configs" / "cnn.py:model_2")
    if "path" in without:
        os.environ[ops.SWITCH] = "off"
    (phase,) = freezing.make_phases(config, 7, image_shape=facts.IMAGE_SHAPE, steps_per_epoch=225)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (128, *facts.IMAGE_SHAPE)), jnp.uint8),
        "label": jnp.asarray(rng.integers(0, 7, 128), jnp.int32),
        "mask": jnp.ones(128),
    }
    state = jax.jit(lambda: steps.init_state(phase, jax.random.key(0)))()
    jit = jax.jit if "options" in without else ops.jit
    step = jit(
        steps.make_train_step(phase, losses.make_objective(config.loss, (1,) * 7), key=jax.random.key(1)),
        donate_argnums=0,
    )
    print(statistics.median(timing.seconds_in_turn({"step": timing.Stepper(step, state, batch)}, TRIALS)["step"]))


def measure_step():
    """Returns the median seconds with each part turned off, in two separate processes each, alternating."""

    def step(name, without):
        pages = {"GLIBC_TUNABLES": f"glibc.malloc.hugetlb={int('pages' not in without)}"}
        line = [sys.executable, __file__, "--step", ",".join(without)]
        ran = subprocess.run(line, env={**os.environ, **pages}, check=True, capture_output=True, text=True)
        print(name, seconds := float(ran.stdout.split()[-1]), flush=True)
        return seconds

    works = {name: functools.partial(step, name, without) for name, without in STEPS.items()}
    rounds = list(timing.take_turns(works, 2))
    return {"seconds": {name: statistics.median(done[name] for done in rounds) for name in STEPS}}


def measure_convolutions():
    """Returns a row for each shape, with the choice of `ops.conv`."""
    rows = []
    for taps, shapes in SHAPES.items():
        for shape in shapes:
            rim, (batch, side, channels, filters) = taps // 2, shape
            x, w = (
                jax.ShapeDtypeStruct(size, jnp.float32)
                for size in ((batch, side, side, channels), (taps, taps, channels, filters))
            )
            chosen = "winograd" if winograd.pays(x, w, ((rim, rim), (rim, rim))) else "pieces"
            rows.append({**convolution_row(taps, shape, rim, ("xla", "pieces", "winograd")), "chosen": chosen})
            print(json.dumps(rows[-1]), flush=True)
    return {"rows": rows}


def measure_small_pictures():
    """Returns a row for each shape whose kernel is larger than the picture."""
    rows = []
    for taps, rim, shape in SMALL_SHAPES:
        rows.append(convolution_row(taps, shape, rim, ("xla", "product")))
        print(json.dumps(rows[-1]), flush=True)
    return {"rows": rows}


MEASURES = {
    "convolutions": measure_convolutions,
    "small_pictures": measure_small_pictures,
    "step_of_model_2": measure_step,
}


def main():
    """Measures, and writes the results after each part. Raises InputError for an unknown part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(MEASURES)}; default: all")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results.json", help="default: %(default)s")
    options = parser.parse_args()
    parts, path = options.parts or list(MEASURES), options.out
    if unknown := set(parts) - set(MEASURES):
        raise InputError(f"unknown part {', '.join(sorted(unknown))}; parts are {', '.join(MEASURES)}")
    for part in parts:
        found = json.loads(path.read_text()) if path.exists() else {}
        found[part] = {**workdir_lib.facts(), "trials": TRIALS, **MEASURES[part]()}
        workdir_lib.write_json(path, found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        time_step(sys.argv[2].split(","))
    else:
        command.run(main)
