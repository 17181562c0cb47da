"""python -m fer_jax.pretrained: the list, the fetching, and how it ends on bad input."""

import subprocess
import sys

import pytest

from fer_jax import command
from fer_jax.pretrained import __main__ as entry
from fer_jax.pretrained import fetch, registry


@pytest.fixture
def run(monkeypatch, capsys, home):
    """Runs the command in this process; returns (exit code, stdout, stderr)."""

    def start(*flags):
        monkeypatch.setattr(sys, "argv", ["fer_jax.pretrained", *flags])
        monkeypatch.setattr(command, "start_logging", lambda: None)
        try:
            command.run(entry._main)
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return start


def test_the_list_says_what_is_here(run, home):
    folder = home / ".keras" / "models"
    folder.mkdir(parents=True)
    (folder / registry.find("resnet50").file).write_bytes(b"")
    code, out, _ = run("--list")
    header, *rows = [line.split() for line in out.splitlines()]
    assert code == 0 and header == ["NAME", "VARIANT", "MB", "HERE", "SOURCE", "LICENCE"]
    assert [row[0] for row in rows] == [row.name for row in (*registry.ROWS, *registry.DETECTOR_ROWS)]
    here = {tuple(row[:2]) for row in rows if row[3] == "yes"} - {("mobilenet_v2", "notop")}  # which may be installed
    assert here == {("resnet50", "notop"), ("efficientnet_lite0", "top")}
    assert ["resnet50", "notop", "94.8", "yes", "Keras", "applications"] in [row[:6] for row in rows]


def test_a_file_is_fetched_into_a_folder(run, tmp_path):
    code, out, _ = run("--fetch", "efficientnet_lite0", "--to", str(tmp_path / "to"))
    row = registry.find("efficientnet_lite0")
    assert code == 0 and fetch.verify(row, tmp_path / "to" / row.file).verified
    assert out == f"{tmp_path / 'to' / row.file}: SHA-256 is the published one; licence: {row.licence}\n"


def test_bad_input_ends_with_one_message(run, tmp_path):
    code, out, err = run("--fetch", "vgg61", "--to", str(tmp_path))
    assert (code, out) == (2, "") and err.startswith("error: unknown weights 'vgg61'; known are vgg16, ")
    assert err.count("\n") == 1


def test_the_wrong_file_of_the_folder_is_named(run, tmp_path):
    (tmp_path / registry.find("vgg16", top=True).file).write_bytes(b"x")
    code, _, err = run("--fetch", "vgg16", "--top", "--to", str(tmp_path))
    assert code == 2 and "published one is 64373286793e3c8b2b4e3219cbf3544b" in err


def test_nothing_to_do_is_a_usage_error(run):
    code, _, err = run()
    assert code == 2 and "one of the arguments --list --fetch is required" in err


def test_help_imports_nothing_heavy():
    script = (
        "import runpy, sys\n"
        "sys.argv = ['x', '--help']\n"
        "try: runpy.run_module('fer_jax.pretrained', run_name='__main__', alter_sys=True)\n"
        "except SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'jax', 'h5py', 'keras', 'tensorflow', 'torch', 'flax', 'tqdm', 'fer_jax'}))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--fetch NAME" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "['fer_jax']"
