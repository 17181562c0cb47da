"""Models the time of a data-parallel step on many accelerators, from measured steps of one and from gradient bytes.

A step's gradients are summed over all devices after the backward pass, without overlap: a reduce-scatter among the
devices of a machine, a ring over the machines for each device's part, and an all-gather among the devices. A ring of n
sends 2 (n - 1) / n of its bytes through each link (Patarasuk and Yuan 2009), in 2 (n - 1) messages; the trees that NCCL
uses for small sums take 2 log2(n) messages; the smaller number counts here.
"""

import json
import math
import pathlib

SPEED = pathlib.Path(__file__).resolve().parents[1] / "gpu" / "speed.json"
DEVICES = (1, 8, 16, 32, 64, 128, 256, 512, 1024)
A_MACHINE = 8
# NVIDIA DGX H100: NVLink 900 GB/s per GPU in both directions, one 400 Gb/s adapter per GPU. Latencies are of the order
# shown by nccl-tests for small messages.
LINK_BYTES_PER_SECOND, LINK_LATENCY_SECONDS = 450e9, 3e-6
NETWORK_BYTES_PER_SECOND, NETWORK_LATENCY_SECONDS = 50e9, 10e-6
FACES = 28_709  # of an epoch of FER-2013


def sum_seconds(size_bytes: float, devices: int) -> float:
    """Returns the seconds to sum `size_bytes` over devices."""
    inside = min(devices, A_MACHINE)
    machines = devices // inside
    links = 2 * (inside - 1) / inside * size_bytes / LINK_BYTES_PER_SECOND
    links += 2 * math.ceil(math.log2(inside)) * LINK_LATENCY_SECONDS if inside > 1 else 0
    network = 2 * (machines - 1) / machines * size_bytes / inside / NETWORK_BYTES_PER_SECOND
    network += 2 * math.ceil(math.log2(machines)) * NETWORK_LATENCY_SECONDS if machines > 1 else 0
    return links + network


def scaling() -> list[dict]:
    """Returns a row for each measured network and number of devices; the batch of each device is the measured one."""
    rows = []
    for key, record in json.loads(SPEED.read_text()).items():
        seconds = sorted(one["fer_jax"]["seconds"] / one["fer_jax"]["images"] for one in record["rounds"]["train"])
        step_seconds = seconds[len(seconds) // 2] * record["batch"]
        parameters = record["workers"]["fer_jax"][0]["parameters"]["trained"]
        for devices in DEVICES:
            total = step_seconds + sum_seconds(4 * parameters, devices)
            rows.append(
                {
                    "network": key,
                    "device": record["device"],
                    "devices": devices,
                    "gradient_MB": 4 * parameters / 1e6,
                    "measured_step_seconds": step_seconds,
                    "step_seconds": total,
                    "efficiency": step_seconds / total,
                    "batch": devices * record["batch"],
                    "steps_of_an_epoch": FACES / (devices * record["batch"]),
                }
            )
    return rows


def table(rows) -> list[str]:
    """Returns the rows in Markdown."""
    head = ("network", "gradients, MB", "accelerators", "batch", "step, ms", "efficiency", "steps an epoch of FER-2013")
    lines = [f"| {' | '.join(head)} |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    return lines + [
        f"| {row['network']} | {row['gradient_MB']:.1f} | {row['devices']:,} | {row['batch']:,} | "
        f"{1e3 * row['step_seconds']:.2f} | {row['efficiency']:.0%} | {row['steps_of_an_epoch']:.1f} |"
        for row in rows
    ]


def draw(axes, rows) -> None:
    """Draws the efficiency against the number of accelerators."""
    for network in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == network]
        axes.plot([row["devices"] for row in mine], [row["efficiency"] for row in mine], "o-", label=network)
    axes.set(xscale="log", xlabel="accelerators (computed)", ylabel="efficiency", ylim=(0, 1.05), xticks=DEVICES[::2])
    axes.set_xticklabels(DEVICES[::2])
    axes.minorticks_off()
    axes.legend()
