"""The files around the code agree with it: versions, the workflow, the formatter, the site and the notebook."""

import configparser
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import packaging.requirements
import packaging.utils
import pytest
import yaml

import fer_jax
from fer_jax import config as config_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_the_version_is_the_same_everywhere():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == fer_jax.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest[1] == fer_jax.__version__


def test_the_workflow_runs_make_targets_on_the_supported_versions():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    runs = [step["run"] for step in steps if "run" in step]
    targets = [re.fullmatch(r"make ([a-z-]+) PYTHON=python", run)[1] for run in runs]
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(f"\n{target}:" in makefile for target in targets)
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]
    assert f"python_requires = >={versions[0]}\n" in (ROOT / "setup.cfg").read_text()
    assert workflow[True]["push"]["branches"] == ["main"]  # YAML reads `on` as true


def test_pre_commit_has_the_formatter_of_the_newer_stack():
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    pinned = re.search(r"^ruff==(.*)$", (ROOT / "constraints" / "jax-0.12.txt").read_text(), flags=re.MULTILINE)
    assert hooks["rev"] == f"v{pinned[1]}"
    assert {hook["id"] for hook in hooks["hooks"]} == {"ruff-check", "ruff-format"}


@pytest.mark.parametrize("stack", ["jax-0.10", "jax-0.12"])
def test_what_make_installs_is_pinned_and_allowed_by_setup(stack):
    pins = dict(line.split("==") for line in (ROOT / "constraints" / f"{stack}.txt").read_text().splitlines()[1:])
    versions = {packaging.utils.canonicalize_name(name): version for name, version in pins.items()}
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    for extra in ("dev", "onnx", "pretrained", "search", "serve", "tensorboard", "video"):
        lines += setup["options.extras_require"][extra].splitlines()
    wanted = [
        packaging.requirements.Requirement(line) for line in lines if line and not line.startswith(("#", "fer-jax["))
    ]
    linux = {"sys_platform": "linux", "platform_machine": "x86_64"}
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate(linux)]
    assert {"jax", "ruff", "nbclient"} <= {one.name for one in wanted}
    for one in wanted:
        assert versions.get(packaging.utils.canonicalize_name(one.name), "nothing") in one.specifier, one


@pytest.mark.full
def test_the_site_builds_without_warnings(tmp_path):
    for name in ("mkdocs-material", "mkdocs-jupyter", "mkdocstrings-python"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed: `make docs` builds the site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "fer_jax.steps.make_train_step" in (tmp_path / "api" / "index.html").read_text()


@pytest.mark.full
def test_the_tutorial_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND")  # the notebook shows its figures inline
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", 4)
    settings = {"timeout": 1200, "resources": {"metadata": {"path": str(tmp_path)}}}
    nbclient.NotebookClient(notebook, **settings).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "macro avg" in text and "\nhappy (" in f"\n{text}"  # of the evaluation; of the photograph
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    saved = config_lib.flat(yaml.safe_load((tmp_path / "runs" / "tutorial" / "config.json").read_text()))
    assert len((tmp_path / "runs" / "tutorial" / "history.csv").read_text().splitlines()) == 1 + saved["train.epochs"]
