"""What the README and the headers of the configs tell people to type works, and its figures are recorded ones."""

import json
import pathlib
import re
import shlex

import pytest

from fer_jax import config as config_lib
from fer_jax import evaluate, export, predict

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text().replace("\\\n  ", "")
PICTURES = (ROOT / "docs" / "pictures.md").read_text()


def commands_of(text, module):
    """Returns the words after `python -m fer_jax.<module>` of every command in a text."""
    found = re.findall(rf"^(?:- )?`?python -m fer_jax\.{module} ([^\n`#]*)", text, flags=re.MULTILINE)
    return [shlex.split(re.sub(r"<[^>]*>", "somewhere", line)) for line in found]


TRAININGS = commands_of(README, "main") + commands_of(PICTURES, "main")
for header in sorted((ROOT / "configs").glob("*.py")):
    TRAININGS += commands_of(header.read_text(), "main")


def test_there_are_commands():
    assert len(TRAININGS) >= 3
    assert commands_of(README, "evaluate")


@pytest.mark.parametrize("words", TRAININGS, ids=" ".join)
def test_a_training_command_names_a_config_and_known_fields(words):
    words = " ".join(words).replace("--config ", "--config=").split()
    (name,) = [word.split("=", 1)[1] for word in words if word.startswith("--config=")]
    known = config_lib.flat(config_lib.to_dict(config_lib.load(ROOT / name)))
    for word in words:
        if word.startswith("--config."):
            assert word.removeprefix("--config.").split("=")[0] in known


def shell_commands(text, name):
    """Returns the words after `fer-jax <name>` of every command in a text."""
    lines = re.findall(rf"^(?:.*\| )?fer-jax {name} ([^\n#]*)", text, flags=re.MULTILINE)
    return [shlex.split(re.sub(r"<[^>]*>", "somewhere", line)) for line in lines]


@pytest.mark.parametrize("words", shell_commands(README + PICTURES, "predict"), ids=" ".join)
def test_a_prediction_command_is_understood(words):
    predict._check(predict._parse(words))


def test_the_commands_of_the_documents_are_there():
    assert len(shell_commands(README + PICTURES, "predict")) >= 8
    assert shell_commands(PICTURES, "pretrained") == [["--fetch", "blazeface"]]
    assert [export._parse(words).views for words in commands_of(PICTURES, "export")] == ["flip_shifts"]


@pytest.mark.parametrize("words", commands_of(README, "evaluate"), ids=" ".join)
def test_an_evaluation_command_is_understood(words):
    assert evaluate._parse(words).workdir


def test_every_flag_and_file_that_the_readme_names_exists():
    known = config_lib.flat(config_lib.to_dict(config_lib.get_default()))
    for field in re.findall(r"--config\.([a-z_.]+)=", README):
        assert field in known
    for target in re.findall(r"make (\w+) ", README):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text()
    for path in re.findall(r"`((?:benchmarks|configs|experiments|fer_jax)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path


def test_the_figures_of_the_results_table_are_recorded():
    rows = re.findall(r"^\| .*\((experiments/[\w/.-]+\.json)\).*\|$", README, flags=re.MULTILINE)
    assert rows
    for line in README.splitlines():
        if found := re.search(r"\((experiments/[\w/.-]+\.json)\)", line):
            recorded = json.loads((ROOT / found.group(1)).read_text())
            split = line.split("|")[3].strip()
            scores = recorded["scores"][split] if "scores" in recorded else recorded
            assert f"| {scores['accuracy']:.4f} | {scores['macro_f1']:.4f} |" in line
            assert recorded["seed"] is not None
            assert recorded["data_fingerprint"].startswith("sha256:")
