"""The command `fer-jax` starts the package's commands with their own flags."""

import configparser
import importlib
import os
import subprocess
import sys

import commands
import pytest

from fer_jax import cli

ROOT = commands.ROOT


def run(*words):
    command = [sys.executable, "-m", "fer_jax.cli", *words]
    return subprocess.run(
        command, cwd=ROOT, env=commands.environment(), capture_output=True, text=True, timeout=120, check=False
    )


def test_the_console_script_is_the_entry():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    script, _, place = config["options.entry_points"]["console_scripts"].strip().partition(" = ")
    module, _, function = place.partition(":")
    assert script == "fer-jax" and getattr(importlib.import_module(module), function) is cli.main


def test_help_lists_the_commands_and_imports_nothing():
    script = "import sys\nfrom fer_jax import cli\ncli.main(['--help'])\n"
    script += "print('loaded:', *sorted(name for name in sys.modules if name.startswith('fer_jax') or name == 'numpy'))"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in ran.stdout for name in cli.COMMANDS)
    assert ran.stdout.splitlines()[-1] == "loaded: fer_jax fer_jax.cli fer_jax.faulty_releases fer_jax.files"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("words", "code"), [(["--help"], 0), (["--version"], 0), (["predict", "--help"], 0), (["train", "--fields"], 141)]
)
def test_a_reader_that_ends_first_is_no_error(words, code, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fer_jax.cli", *words]
    environment = {**commands.environment(), "PYTHONUNBUFFERED": unbuffered}
    with os.fdopen(writing, "w") as stdout:
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (code, "")


@pytest.mark.parametrize("words", [[], ["predcit", "a.jpg"]])
def test_an_unknown_word_gets_the_list_and_2(words):
    result = run(*words)
    assert result.returncode == 2 and not result.stdout
    assert cli.usage() in result.stderr
    assert not words or "there is no command 'predcit'" in result.stderr


@pytest.mark.parametrize(
    ("name", "flag"),
    [("predict", "--annotate"), ("train", "--config"), ("evaluate", "--split"), ("ensemble", "--weights"),
     ("search", "--trials"), ("pretrained", "--fetch"), ("serve", "--token_file")],
)  # fmt: skip
def test_a_command_has_its_own_flags(name, flag):
    result = run(name, "--help")
    assert result.returncode == 0 and flag in result.stdout, result.stderr
    assert f"usage: fer-jax {name} " in result.stdout or name in ("train", "search")


def test_exit_codes_and_messages_are_those_of_the_command():
    result = run("predict", "none.jpg")
    assert result.returncode == 2
    assert result.stderr == "error: none.jpg: there is no such file or folder\n"
    result = run("pretrained", "--list")
    assert result.returncode == 0 and "NAME" in result.stdout
