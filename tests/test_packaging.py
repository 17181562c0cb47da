"""The wheel holds the whole package with its configs, and its commands work in an empty folder."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile

import commands
import pytest

from fer_jax import config as config_lib

ROOT = commands.ROOT
NEEDED = ("fer_jax", "configs", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")  # of the repository, to build it


def declared():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser["options"]["packages"].split()


def test_every_folder_with_modules_is_a_package_of_the_wheel():
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("fer_jax/**/*.py")}
    assert sorted(declared()) == sorted(folders | {"fer_jax.configs"})


def test_every_package_has_an_init():
    folders = [name.replace("fer_jax.configs", "configs").replace(".", "/") for name in declared()]
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the repository, so that the build leaves no files in it."""
    copy = tmp_path_factory.mktemp("repository")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", copy / "dist", copy], check=True, capture_output=True, text=True)
    (path,) = (copy / "dist").glob("fer_jax-*.whl")
    return path


def test_the_wheel_holds_every_module_config_and_data_file(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path for path in (ROOT / "fer_jax").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    wanted = {path.relative_to(ROOT).as_posix() for path in files}
    assert inside == wanted | {f"fer_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}


def test_the_commands_of_the_wheel_work_in_an_empty_folder(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    script = "import fer_jax; from fer_jax import config; print(fer_jax.__file__)\n"
    script += "for name in config.known(): config.load_module(config.find(name))\n"
    script += "print(config.digest(config.load('cnn:model_2')), config.find('demo'))\n"

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, check=False
        )

    ran = run("-c", script)
    assert ran.returncode == 0, ran.stderr
    package, digest, demo = ran.stdout.split()
    assert package == str(tmp_path / "site" / "fer_jax" / "__init__.py")
    assert digest == config_lib.digest(config_lib.load("cnn:model_2"))
    assert demo == str(tmp_path / "site" / "fer_jax" / "configs" / "demo.py")
    assert run("-m", "fer_jax.cli", "--help").stdout.startswith("usage: fer-jax COMMAND")
    ran = run("-m", "fer_jax.cli", "train", "--config", "demo", "--config.train.epochs=0")
    assert (ran.returncode, ran.stderr.splitlines()[-1][:23]) == (2, "error: train.epochs is "), ran.stderr


def test_a_run_is_named_by_config_variant_and_digest():
    """In a process of its own: the flags of main and search have the same names."""
    script = (
        "from fer_jax import config, main\n"
        "for name in ('cnn:model_2', 'configs/cnn.py:model_2', '/elsewhere/cnn.py:model_2'):\n"
        "    main.config_flags.get_config_filename = lambda _: name\n"
        "    print(main._workdir(config.load('cnn:model_2')))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = os.path.join("runs", f"cnn-model_2-{config_lib.digest(config_lib.load('cnn:model_2'))}")
    assert ran.stdout.splitlines() == [expected] * 3
