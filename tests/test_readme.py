"""The commands of the README, of docs/ and of the configs' headers work, and what these pages name exists."""

import argparse
import importlib
import json
import pathlib
import re
import shlex

import pytest
from test_imports import FLOORS

from fer_jax import cli, export
from fer_jax import config as config_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
HEADERS = sorted((ROOT / "configs").glob("[!_]*.py"))
README = (ROOT / "README.md").read_text()
COMMAND = re.compile(r"(?:python -m fer_jax\.|fer-jax )(\w+) (.*)")
MODULES = {name: module.removeprefix("fer_jax.") for name, (module, _) in cli.COMMANDS.items()}
SECTIONS = {name.partition(".")[0] for name in config_lib.flat(config_lib.to_dict(config_lib.get_default()))}
FIELDS = set(config_lib.flat(config_lib.to_dict(config_lib.get_default())))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def shell(path):
    """Returns the shell lines of a page or of a config's header, each joined with the lines that continue it."""
    text = path.read_text()
    if path.suffix == ".py":
        return [line for line in text.split('"""')[1].splitlines() if line.startswith("python ")]
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]


def commands():
    """Returns (page, module, words) of every command of the package that the pages show."""
    found = []
    for path in PAGES + HEADERS:
        for line in shell(path):
            plain = re.sub(r"<[^>]*>|\$FER|\$CONFIG", "somewhere", re.sub(r'"\$@"', "", line))
            plain = re.sub(r'"\$\{\w+:-([^}]*)\}"', r"\1", plain)
            for name, rest in COMMAND.findall(plain):
                ended = rest if rest.count('"') % 2 == 0 else rest.rstrip().removesuffix('"')
                words = shlex.split(ended, comments=True)
                words = words[: min((words.index(word) for word in ("|", ">") if word in words), default=len(words))]
                found.append((name_of(path), MODULES.get(name, name), tuple(words)))
    return found


COMMANDS = commands()


def named(*modules):
    chosen = [one for one in COMMANDS if one[1] in modules]
    return pytest.mark.parametrize(
        ("page", "module", "words"), chosen, ids=[" ".join((one[0], *one[2])) for one in chosen]
    )


def test_every_command_is_one_of_the_package_and_its_kinds_are_all_shown():
    assert {module for _, module, _ in COMMANDS} == set(MODULES.values())
    pages = {page for page, *_ in COMMANDS}
    assert {"README.md", "docs/training.md", "docs/pictures.md", "docs/many_machines.md", "docs/index.md"} <= pages


@named("main", "search")
def test_a_command_with_a_config_names_one_and_known_fields_and_flags(page, module, words):
    words = " ".join(words).replace("--config ", "--config=").split()
    flags = {word.split("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    if flags == {"fields"} or "help" in flags:
        return
    (name,) = [word.split("=", 1)[1] for word in words if word.startswith("--config=")]
    if not name.endswith("mine.py"):
        file = name.partition(":")[0]
        config_lib.load(ROOT / name if file.endswith(".py") else name)
    known = set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', (ROOT / "fer_jax" / f"{module}.py").read_text()))
    known |= {"config"} | {f"config.{field}" for field in FIELDS}
    assert flags <= known


@named("evaluate", "ensemble", "export", "predict", "pretrained", "serve")
def test_a_command_is_understood(page, module, words):
    name = f"{module}.__main__" if module in ("pretrained", "serve") else module
    command = importlib.import_module(f"fer_jax.{name}")
    parsed = command._parse(list(words))
    assert isinstance(parsed, argparse.Namespace)
    if module in ("predict", "serve"):
        command._check(parsed)


def test_an_export_keeps_the_views_that_the_page_names():
    parsed = [export._parse(list(words)) for _, module, words in COMMANDS if module == "export"]
    assert {one.views for one in parsed if one.views} == {"flip_shifts"}
    assert {name for one in parsed if one.formats for name in one.formats.split(",")} == set(export.FORMATS)


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """Returns the anchors of a page's headings, as GitHub and MkDocs make them of plain titles."""
    titles = re.findall(r"^#+ (.*)$", without_code(path.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_links_of_a_page_exist(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        if not target.startswith(("http://", "https://")):
            file, _, anchor = target.partition("#")
            place = (path.parent / file).resolve() if file else path
            assert place.is_relative_to(ROOT) and place.exists(), target
            assert not anchor or anchor in anchors(place), target


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_fields_files_targets_and_flags_that_a_page_names_exist(path):
    text = path.read_text()
    for field in re.findall(r"--config\.([a-z0-9_.]+)=", text):
        assert field in FIELDS, field
    for code in re.findall(r"`([^`\n]+)`", without_code(text)):
        field = re.fullmatch(r"(\w+)\.([a-z0-9_.]+)(=.*)?", code)
        if field and field[1] in SECTIONS and not code.endswith((".py", ".json", ".md", ".onnx")):
            name = f"{field[1]}.{field[2]}"
            source = ROOT / "fer_jax" / f"{field[1]}.py"  # a function of the module with the section's name
            is_function = source.exists() and f"\ndef {field[2]}(" in source.read_text()
            assert is_function or name in FIELDS or any(other.startswith(f"{name}.") for other in FIELDS), code
        if re.fullmatch(r"(?:benchmarks|configs|constraints|experiments|fer_jax|tests)/[\w./]+", code):
            assert (ROOT / code).exists(), code
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile, target


def test_every_page_is_reached_from_the_readme():
    linked = set(re.findall(r"\((docs/\w+\.(?:md|ipynb))\)", README))
    assert {name_of(path) for path in (ROOT / "docs").glob("*.md")} - linked == {"docs/index.md", "docs/api.md"}


def test_the_readme_is_short_and_its_picture_small():
    assert len(README.splitlines()) < 120
    assert (ROOT / "docs" / "report.png").stat().st_size < 300_000


def test_the_results_of_the_readme_are_recorded():
    rows = [line.split("|") for line in README.splitlines() if re.match(r"\| \[", line)]
    assert len(rows) >= 5
    for _, system, _, split, accuracy, macro_f1, _, config, _ in rows:
        (file,) = re.findall(r"\(([\w/.-]+\.json)\)", system)
        recorded = json.loads((ROOT / file).read_text())
        scores = recorded.get("scores", recorded.get("figures"))[split.strip()]
        assert (accuracy.strip(), macro_f1.strip()) == (f"{scores['accuracy']:.4f}", f"{scores['macro_f1']:.4f}")
        about = recorded.get("trained", recorded)
        assert about["seed"] is not None and about["data_fingerprint"].startswith("sha256:")
        assert config_lib.load(config.strip(" `")).is_locked


def test_the_config_of_the_training_page_is_one(tmp_path):
    (text,) = re.findall(r"```python\n(# mine\.py.*?)```", (ROOT / "docs" / "training.md").read_text(), flags=re.DOTALL)
    (tmp_path / "mine.py").write_text(text)
    assert config_lib.differences(
        config_lib.to_dict(config_lib.get_default()), config_lib.to_dict(config_lib.load(tmp_path / "mine.py"))
    )


def test_the_structure_page_has_every_module_on_its_floor():
    text = (ROOT / "docs" / "structure.md").read_text()
    (block,) = re.findall(r"^```\n(entry.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    shown, floor = {}, None
    for line in block.splitlines():
        label, words = line[:10].strip(), line[10:].split("python -m")[0].split()
        floor = label or floor
        shown.setdefault(floor, set()).update(word.rstrip("/") for word in words)
    assert shown == {floor: set(units) for floor, units in FLOORS.items()}
    table = "".join(line for line in text.splitlines() if line.startswith("|"))
    assert not {unit for units in FLOORS.values() for unit in units if not re.search(rf"`{unit}(\.py|/)`", table)}
