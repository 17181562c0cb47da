"""Compares fer_jax with torch.compile on one GPU, some minutes per call: step times and fractions of the peak.

python benchmarks/gpu/speed.py --minutes 9 --out $OUT

Measures the rows of benchmarks/speed in the same way: one process per framework, taking turns for some rounds. bfloat16
comes first, then float32 for reference. Rows in --done are kept and not measured again.
"""

import argparse
import os
import pathlib
import sys
import time

import in_fer_jax
import jax
import rows as rows_lib
import run as benchmark

from fer_jax import command, datasets
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Dense TFLOP/s by a prefix of the device's name. The data sheets "NVIDIA H100 Tensor Core GPU" and "NVIDIA H200 Tensor
# Core GPU" give 1,979 (BFLOAT16) and 989 (TF32) for SXM with sparsity, which doubles them. float32 products are TF32 in
# both frameworks.
PEAK_TFLOPS = {
    "NVIDIA H100 80GB HBM3": {"bfloat16": 989.4, "float32": 494.7},
    "NVIDIA H200": {"bfloat16": 989.4, "float32": 494.7},
}
KINDS = ("train", "evaluate")
SHOWN = {"fer_jax": "fer_jax", "torch": "torch.compile"}
ROW_SECONDS = 150.0  # first estimate for a row: mostly torch.compile


def peak_tflops(device: str, dtype: str) -> float | None:
    """Returns the peak of a device in dense TFLOP/s; None if unknown."""
    return next((peaks[dtype] for name, peaks in PEAK_TFLOPS.items() if device.startswith(name)), None)


def measure(name: str, dtype: str, faces, options) -> dict:
    """Returns the record of a row."""
    spec = rows_lib.describe(rows_lib.get_config(rows_lib.ROWS[name], dtype))
    workers, rounds = benchmark.measure(name, spec, faces, options, options.platform)
    summary = benchmark.summary.summarize(rounds)
    flops = {kind: in_fer_jax.step_flops(spec, kind) for kind in KINDS}
    device = jax.devices()[0].device_kind
    peak = peak_tflops(device, dtype)
    steps = {}
    for kind in KINDS:
        seconds = {one: spec["batch"] / rate for one, rate in summary[kind]["images_per_second"].items()}
        shares = {one: flops[kind] / second / (peak * 1e12) for one, second in seconds.items()} if peak else {}
        steps[kind] = {"flops": flops[kind], "seconds": seconds, "model_flops_utilization": shares}
    return {
        **workdir_lib.facts(),
        "device_kind": device,
        "peak_tflops": peak,
        "row": name,
        **{key: spec[key] for key in ("batch", "size_px", "dtype")},
        "workers": workers,
        "rounds": rounds,
        "summary": summary,
        "steps": steps,
    }


def table(found: dict) -> str:
    """Returns the rows in Markdown."""
    head = ["row", "dtype", "batch", "work", *(f"{name}, {unit}" for unit in ("ms", "MFU") for name in SHOWN.values())]
    lines = [[*head, "times as fast (min to max)"], ["---"] * (len(head) + 1)]
    for row in found.values():
        for kind, step in row["steps"].items():
            cells = [row["row"], row["dtype"], row["batch"], kind]
            cells += [_number(step["seconds"].get(name), "{:.3f}", 1000) for name in SHOWN]
            cells += [_number(step["model_flops_utilization"].get(name), "{:.1%}") for name in SHOWN]
            ratio = row["summary"][kind]["ratio"]
            cells.append("{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio) if ratio else "-")
            lines.append(map(str, cells))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value, form, factor=1):
    return "-" if value is None else form.format(value * factor)


def parse(argv=None):
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call; default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder that comes back")
    parser.add_argument("--done", type=pathlib.Path, default=ROOT / ".gpu" / "speed.json", help="default: %(default)s")
    parser.add_argument("--data", default=str(ROOT / ".gpu" / "faces.zip"), help="as data.path; default: %(default)s")
    parser.add_argument("--cache", default="/tmp/fer_gpu/cache", help="as data.cache_dir; default: %(default)s")
    parser.add_argument("--rows", type=names, default=list(rows_lib.ROWS), help="default: all")
    parser.add_argument("--dtypes", type=names, default=["bfloat16", "float32"], help="default: bfloat16,float32")
    parser.add_argument("--frameworks", type=names, default=["fer_jax", "torch"], help="default: fer_jax,torch")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each kind of work in a round (%(default)s)")
    parser.add_argument("--dry_run", action="store_true", help="one round of a step or two")
    options = parser.parse_args(argv)
    options.torch_python = sys.executable
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the workers need the memory
    options.platform = "cpu" if jax.default_backend() == "cpu" else "gpu"
    if options.dry_run:
        options.rounds, options.seconds = 1, 0.1
    return options


def main():
    """Measures rows until the time is over, and writes after each. Failed rows are named at the end."""
    options = parse()
    deadline = time.monotonic() + 60 * options.minutes
    config = config_lib.get_default()
    config.data.update({"path": options.data, "cache_dir": options.cache})
    faces = datasets.load(config.data).train
    found = workdir_lib.read_json(options.done, what="record", fix="remove it") if options.done.exists() else {}
    options.out.mkdir(parents=True, exist_ok=True)
    longest, failed = ROW_SECONDS, []
    for dtype in options.dtypes:
        for name in options.rows:
            key, started = f"{name} {dtype}", time.monotonic()
            if key in found or deadline - started < (0 if options.dry_run else longest):
                continue
            try:
                found[key] = measure(name, dtype, faces, options)
            except InputError as error:
                print(f"{key}: {error}", file=sys.stderr, flush=True)
                failed.append(key)
                continue
            longest = max(longest, time.monotonic() - started)
            workdir_lib.write_json(options.out / "speed.json", found)
            (options.out / "speed.md").write_text(table(found))
    print(table(found) + (f"failed: {', '.join(failed)}" if failed else ""))


if __name__ == "__main__":
    command.run(main)
