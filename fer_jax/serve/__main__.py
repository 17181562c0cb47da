"""Serves a model over HTTP: fer-jax serve, then POST a picture to /v1/predict.

Loads and warms up the model and the detector, prints the address, and answers until Ctrl-C or SIGTERM; requests in work
are answered first. docs/serving.md describes the interface.
"""

import argparse
import importlib.util
import logging
import os
import pathlib

from fer_jax import command
from fer_jax.errors import InputError
from fer_jax.serve.limits import Limits

NEEDED = ("fastapi", "prometheus_client", "python_multipart", "uvicorn")
TOKEN_VARIABLE = "FER_JAX_TOKEN"
MIN_TOKEN = 16
STOPPING = "stopping: requests in work are answered first; a second signal ends at once"
logger = logging.getLogger("fer_jax")


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog=command.program("serve"),
        description="Serves a model over HTTP: emotions of the faces in the pictures that are sent to it, as JSON.",
        epilog="Exit codes: 2 bad input, 130 Ctrl-C, 143 SIGTERM.",
    )
    model = parser.add_argument_group("model").add_argument
    model("--model", metavar="NAME|PATH", help="a shipped model, .safetensors, or folder of a run or ensemble")
    model("--views", metavar="NAME", help="test-time views to average; default: the model's")
    model("--detector", default="auto", metavar="NAME", help="of faces, as --faces of predict; default: %(default)s")
    model(
        "--runtime",
        choices=("auto", "jax", "onnxruntime"),
        default="auto",
        help="auto: the faster one, measured at start; default: %(default)s",
    )
    address = parser.add_argument_group("address").add_argument
    address("--host", default="127.0.0.1", help="any but this machine needs a token; default: %(default)s")
    address("--port", type=int, default=8000, metavar="N", help="0: a free one; default: %(default)s")
    address(
        "--token_file",
        metavar="FILE",
        help=f"its text is the token that requests must bear; default: the environment variable {TOKEN_VARIABLE}",
    )
    limits = parser.add_argument_group("limits").add_argument
    for name, kind, default, text in (
        ("--max_mib", float, Limits.max_bytes // 2**20, "of a request's body"),
        ("--max_megapixels", float, Limits.max_pixels // 10**6, "of a picture"),
        ("--body_seconds", float, Limits.body_seconds, "for a request's body to arrive"),
        ("--max_files", int, Limits.max_files, "in a batch"),
        ("--max_requests", int, Limits.max_requests, "in work at once"),
    ):
        limits(name, type=kind, default=default, metavar="N", help=f"{text}; default: %(default)s")
    return parser.parse_args(argv)


def _read_token(flags):
    if flags.token_file is None:
        where, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE)
    else:
        where = flags.token_file
        try:
            token = pathlib.Path(where).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--token_file {where} cannot be read ({error}): give a text file") from error
    if token is None:
        return None
    token = token.strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise InputError(f"the token in {where} must have {MIN_TOKEN} ASCII characters or more: make a longer one")
    return token


def _check(flags):
    """Rejects wrong flags before anything is imported."""
    for name in ("max_mib", "max_megapixels", "max_files", "max_requests", "body_seconds"):
        if not 0 < getattr(flags, name) < float("inf"):
            raise InputError(f"--{name} is {getattr(flags, name)}: give a number above 0")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} not installed: pip install 'fer-jax[serve]'")


def _main():
    flags = _parse()
    _check(flags)
    command.begin()
    token = _read_token(flags)
    from fer_jax.serve import server

    if token is None and not server.is_loopback(flags.host):
        raise InputError(
            f"--host {flags.host} is open to other machines, which needs a token: give --token_file or "
            f"{TOKEN_VARIABLE}, or leave out --host"
        )
    _serve(flags, token, server.bind(flags.host, flags.port))


def _serve(flags, token, bound):
    import fer_jax
    from fer_jax import config as config_lib
    from fer_jax.runtime import interrupts, timing
    from fer_jax.serve import app, server
    from fer_jax.serve.service import Service

    command.keep_compiled(config_lib.get_default())
    recognizer = fer_jax.load(flags.model, views=flags.views)
    limits = Limits(
        max_bytes=int(flags.max_mib * 2**20),
        body_seconds=flags.body_seconds,
        max_pixels=int(flags.max_megapixels * 10**6),
        max_files=flags.max_files,
        max_requests=flags.max_requests,
    )
    hosts = None if token else {"127.0.0.1", "localhost", "[::1]", flags.host}
    with (
        Service(recognizer, detector=flags.detector, runtime=flags.runtime, max_pixels=limits.max_pixels) as service,
        interrupts.stop("stopped", STOPPING) as stop,
    ):
        stop.defer()
        application = app.make_app(service, token=token, limits=limits, hosts=hosts)
        timing.collect_usually()
        place = f"serving {recognizer.name} at {server.address(bound)}"
        server.Server(application, stop.asks, lambda: print(place, flush=True)).run([bound])
        stop.end("stopped")


if __name__ == "__main__":
    command.run(_main)
