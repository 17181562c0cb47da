"""The command `fer-jax serve`: what it refuses at once, and a whole life of it."""

import http.client
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import commands
import pytest

from fer_jax import cli
from fer_jax.serve import __main__ as serve
from fer_jax.serve import server

ROOT = commands.ROOT


def refused(capsys, *words):
    """Returns the one message of a command that is refused."""
    from fer_jax import command

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["serve", *words])
        with pytest.raises(SystemExit) as ended:
            command.run(serve._main)
    assert ended.value.code == 2
    (message,) = capsys.readouterr().err.splitlines()
    return message


def test_another_host_needs_a_token(capsys, monkeypatch):
    monkeypatch.delenv(serve.TOKEN_VARIABLE, raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        message = refused(capsys, "--host", host)
        assert message.startswith(f"error: --host {host} is open to other machines") and "--token_file" in message


def test_a_token_is_long_enough(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv(serve.TOKEN_VARIABLE, "short")
    assert "the token in FER_JAX_TOKEN must have 16 ASCII characters or more" in refused(capsys)
    (tmp_path / "token").write_text("\n")
    assert "must have 16 ASCII characters" in refused(capsys, "--token_file", str(tmp_path / "token"))
    assert "none cannot be read" in refused(capsys, "--token_file", str(tmp_path / "none"))


def test_a_token_is_read_from_a_file_or_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(serve.TOKEN_VARIABLE, " of the environment\n")
    (tmp_path / "token").write_text("of the whole file\n")
    assert serve._read_token(serve._parse(["--token_file", str(tmp_path / "token")])) == "of the whole file"
    assert serve._read_token(serve._parse([])) == "of the environment"
    monkeypatch.delenv(serve.TOKEN_VARIABLE)
    assert serve._read_token(serve._parse([])) is None


def test_a_port_in_use_is_said_before_a_model_is_loaded(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused(capsys, "--port", str(port), "--model", "none")
    assert message.startswith(f"error: 127.0.0.1, port {port} cannot be used") and message.endswith("--port")
    assert "cannot be used" in refused(capsys, "--port", "70000")


def test_packages_that_are_not_installed_are_named(capsys, monkeypatch):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else name)
    assert refused(capsys) == "error: uvicorn not installed: pip install 'fer-jax[serve]'"


@pytest.mark.parametrize("flag", ["--max_mib=0", "--max_files=-1", "--body_seconds=nan"])
def test_a_limit_is_more_than_nothing(capsys, flag):
    assert f"error: {flag.partition('=')[0]} is " in refused(capsys, flag)


@pytest.mark.parametrize(
    ("host", "is_one"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("::", False)]
)
def test_loopback_is_known(host, is_one):
    assert server.is_loopback(host) == is_one


@pytest.fixture
def heard():
    """Has what this process starts hear Ctrl-C, which a shell has programs in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.full
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_loads_answers_and_ends_by_a_signal(signum):
    words = commands.command("serve", "--port=0", "--views=none", "--detector=lbp", "--runtime=jax")
    with subprocess.Popen(
        words,
        cwd=ROOT,
        env=commands.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            place = re.fullmatch(r"serving small at http://127\.0\.0\.1:(\d+)/\n", process.stdout.readline())
            line = http.client.HTTPConnection("127.0.0.1", int(place[1]), timeout=60)
            photograph, headers = (ROOT / "docs" / "astronaut.jpg").read_bytes(), {"Content-Type": "image/jpeg"}
            line.request("POST", "/v1/predict", photograph, headers)
            answer = json.loads(line.getresponse().read())
            assert [face["label"] for face in answer["faces"]] == ["happy"] * len(answer["faces"]) != []
            line.request("POST", "/v1/predict?faces=given", photograph, headers)
            time.sleep(0.05)
            process.send_signal(signum)
            assert line.getresponse().status == 200
            line.close()
            assert process.wait(60) == 128 + signum
        finally:
            process.kill()
        said = process.stderr.read()
    assert said.splitlines()[-2:] == [serve.STOPPING, "stopped"] and "Traceback" not in said


def test_the_image_installs_known_extras_and_runs_known_commands():
    text = (ROOT / "Dockerfile").read_text()
    setup = (ROOT / "setup.cfg").read_text()
    extras = {extra for group in re.findall(r"\[([\w,]+)\]\"", text) for extra in group.split(",")}
    assert extras == {"serve"} and all(re.search(rf"^{extra} =", setup, flags=re.MULTILINE) for extra in extras)
    used = re.findall(r"fer-jax\"?,? \"?(\w+)", text)
    assert set(used) == {"pretrained", "serve"} <= set(cli.COMMANDS)
    (words,) = re.findall(r"^(?:CMD|ENTRYPOINT) (\[.*\])$", text, flags=re.MULTILINE)
    flags = serve._parse(json.loads(words)[2:])
    assert flags.host == "0.0.0.0" and re.search(rf"^EXPOSE {flags.port}$", text, flags=re.MULTILINE)
    assert f"127.0.0.1:{flags.port}/health/live" in text  # a busy service is a healthy one
    assert re.search(r"^USER (?!root)\w+$", text, flags=re.MULTILINE)
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, flags=re.MULTILINE):
        assert all((ROOT / pathlib.Path(one)).exists() for one in source.split()), source
