"""Packs the folder to upload to a GPU machine without a network: faces, commit and the one missing wheel.

python benchmarks/gpu/pack.py --data_path <folder with fer2013.csv>
"""

import argparse
import importlib.metadata
import pathlib
import subprocess
import sys

from fer_jax import command
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import mosaics, readings, sources
from fer_jax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
WHEELS = ("ml_collections",)
MOST_MIB = 64  # of the working tree and the folder


def pack_faces(data_path, path) -> str:
    """Packs FER-2013 from any layout and reads it back; returns its fingerprint. Raises InputError like reading."""
    reading = readings.read(sources.find(data_path, name="fer2013"))
    mosaics.write(path, reading.faces, reading.rows)
    packed = readings.read(sources.find(path))
    fingerprint, again = (readings.fingerprint(one.faces, one.classes) for one in (reading, packed))
    if fingerprint != again:
        raise InputError(f"{path} holds other faces than {data_path} ({again}, not {fingerprint})")
    return fingerprint


def fetch_wheels(folder) -> None:
    """Downloads the missing wheels, in the versions installed here."""
    for name in WHEELS:
        version = importlib.metadata.version(name)
        if not list(folder.glob(f"{name}-{version}-*.whl")):
            line = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*line, "-d", str(folder), f"{name}=={version}"], check=True)


def travelling_mib(folder) -> float:
    """Returns the size of the working tree's files that git does not ignore, and of the folder, in MiB."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    files = [ROOT / name for name in listed if name] + [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files if path.exists()) / 2**20


def main():
    """Writes the folder. Raises InputError if the upload is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", help="FER-2013 as data.path; default: the faces that are packed already")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / ".gpu", help="default: %(default)s")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    faces = options.out / "faces.zip"
    if options.data_path:
        print(f"{faces}: {pack_faces(options.data_path, faces)}, {faces.stat().st_size / 2**20:.1f} MiB")
    elif not faces.exists():
        raise InputError(f"{faces} is missing: give --data_path")
    fetch_wheels(options.out / "wheels")
    (options.out / "commit").write_text(workdir_lib.commit() + "\n")
    mib = travelling_mib(options.out)
    print(f"commit {workdir_lib.commit()}; working tree and {options.out}: {mib:.1f} of {MOST_MIB} MiB")
    if mib > MOST_MIB:
        raise InputError(f"{mib:.1f} MiB is too much: empty {options.out / 'resume'}, and the unfinished run restarts")


if __name__ == "__main__":
    command.run(main)
