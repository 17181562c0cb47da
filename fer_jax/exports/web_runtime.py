"""Finds or fetches ONNX Runtime Web, the program that runs networks in a browser."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tarfile

from fer_jax.errors import InputError
from fer_jax.pretrained import fetch

VERSION = "1.30.0"
TARBALL = f"onnxruntime-web-{VERSION}.tgz"
# As npm publishes it: base64 of the same digest is the package's `dist.integrity`.
SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
REGISTRY = "https://registry.npmjs.org"


def find(path=None, *, cache_dir=None) -> pathlib.Path:
    """Returns the path of the npm package TARBALL, verified; it is fetched if it is not in the cache.

    Args:
      path: of the package on this machine; None: it is looked for in the cache, then fetched from the user's npm
        registry.
      cache_dir: of the fetched package; default: fetch.CACHE_DIR.

    Raises:
      InputError: no such file, no internet connection, or it is not the published package.
    """
    if path is not None:
        found = pathlib.Path(path).expanduser()
        if not found.is_file():
            raise InputError(f"{found}: there is no such file; give the {TARBALL} that `npm pack` writes")
        return _verify(found, f"give the {TARBALL} of {REGISTRY}")
    found = pathlib.Path(cache_dir or fetch.CACHE_DIR).expanduser() / TARBALL
    if found.is_file():
        return _verify(found, "remove it, and it is fetched again")
    fix = f"run `npm pack onnxruntime-web@{VERSION}` on a machine with a network and put its file into {found.parent}"
    fetch.download(f"{_registry()}/onnxruntime-web/-/{TARBALL}", found, "sha512", SHA512, fix=fix)
    return found


def unpack(tarball, folder) -> None:
    """Unpacks what a page needs, FILES, from a verified package into a new folder."""
    folder = pathlib.Path(folder)
    folder.mkdir()
    with tarfile.open(tarball) as archive:
        for name in FILES:
            with archive.extractfile(f"package/dist/{name}") as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def _verify(path, fix):
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").hexdigest()
    if digest != SHA512:
        raise InputError(f"{path} is not onnxruntime-web {VERSION}: its SHA-512 is {digest}, not {SHA512}; {fix}")
    return path


def _registry():
    """Returns the user's npm registry: that of the environment or of npm's configuration; by default the public one."""
    named = os.environ.get("NPM_CONFIG_REGISTRY")
    npm = shutil.which("npm")
    if not named and npm:
        ran = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, check=False)
        named = ran.stdout.strip() if ran.returncode == 0 else ""
    return (named or REGISTRY).rstrip("/")
