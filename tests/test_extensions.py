"""Users' files: what a name in the config loads, what is refused, and what a workdir keeps of them."""

import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys

import pytest

from fer_jax import config as config_lib
from fer_jax import extensions
from fer_jax.errors import InputError

FIELD = "model.name"
SOURCE = """\
import dataclasses
import json
from pathlib import Path

@dataclasses.dataclass
class Point:
    x: int = 3

def double(x):
    return 2 * x

_HIDDEN, SIZE = 1, 4
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file in the current directory; returns its path."""
    monkeypatch.chdir(tmp_path)

    def write(text=SOURCE, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", ["mine.py:Net", "~/a b/mine.py:net", "C:\\x\\mine.py:Net", "mine.py", "mine.py:"])
def test_a_name_of_a_file_is_no_name_of_the_package(name):
    assert extensions.names_file(name)
    assert not any(map(extensions.names_file, ("cnn", "cross_entropy", "resnet50", "average", "")))


def test_a_file_is_found_from_here_from_the_root_and_from_home(write, monkeypatch):
    path = write()
    monkeypatch.setenv("HOME", str(path.parent))
    names = ("mine.py:double", "./mine.py:double", f"{path}:double", "~/mine.py:double")
    (double,) = {extensions.load(name, FIELD) for name in names}
    assert double(4) == 8


def test_a_file_is_run_once_and_again_when_its_text_has_changed(write):
    write("VALUE = object()\n")
    first = extensions.load("mine.py:VALUE", FIELD)
    assert extensions.load("mine.py:VALUE", FIELD) is extensions.load("mine.py:VALUE", "loss.name") is first
    write("VALUE = 2\n")
    assert extensions.load("mine.py:VALUE", FIELD) == 2


def test_its_classes_are_found_by_pickle_and_those_of_another_file_of_its_name_are_others(write):
    write()
    write(SOURCE.replace("= 3", "= 5"), "other/mine.py")
    one, two = (extensions.load(f"{name}:Point", FIELD) for name in ("mine.py", "other/mine.py"))
    assert [pickle.loads(pickle.dumps(kind())).x for kind in (one, two)] == [3, 5]
    assert dataclasses.replace(one(), x=1) != two(x=1)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "gone.py:Net", "gone.py cannot be read (No such file or directory)"),
        (SOURCE, "mine.py", "model.name is 'mine.py': give a file as FILE.py:NAME"),
        (SOURCE, "mine.py:1st", "give a file as FILE.py:NAME"),
        (SOURCE, "mine.py:Nett", "mine.py has no 'Nett'; it has Point, double, SIZE"),
        ("", "mine.py:Net", "it has no names"),
        ("x = 1\n\ny = x / 0\n", "mine.py:y", "mine.py cannot be loaded, line 3: ZeroDivisionError: division by zero"),
        ("def f():\n  raise KeyError\n\nf()\n", "mine.py:f", "line 2: KeyError"),
        ("import json\njson.loads('{')\n", "mine.py:x", "line 2: JSONDecodeError: Expecting property name"),
        ("x = 1\ny = = 2\n", "mine.py:x", "line 2: SyntaxError: invalid syntax"),
        ("import nowhere_to_be_found\n", "mine.py:x", "line 1: ModuleNotFoundError: No module named 'nowhere_"),
        ("raise SystemExit(3)\n", "mine.py:x", "line 1: SystemExit: 3"),
    ],
)
def test_what_cannot_be_loaded_is_refused(write, text, name, message):
    if text is not None:
        write(text)
    for _ in range(2):  # a file that has failed leaves nothing that the next start takes for it
        with pytest.raises(InputError) as caught:
            extensions.load(name, FIELD)
        assert message in str(caught.value)
        assert str(caught.value).startswith("model.name")


def test_it_is_imported_without_jax():
    script = "import sys, fer_jax.extensions; print('jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def saved(**fields):
    config = config_lib.get_default()
    config.update_from_flattened_dict(fields)
    return config_lib.to_dict(config)


@pytest.fixture
def run(write, tmp_path):
    """A run of a file of the user's, its members' files among it: (config, record, workdir)."""
    write()
    write("VALUE = 5\n", "other/mine.py")
    inner = {"name": "average", "member_models": [{"name": "other/mine.py:VALUE"}, {"name": "cnn"}]}
    config = saved(**{"loss.name": "mine.py:double", "model.name": "average", "model.member_models": (inner, {})})
    sources = extensions.record(config)
    extensions.keep(sources, tmp_path / "run")
    return config, sources, tmp_path / "run"


def test_the_record_has_every_file_by_its_field_with_the_published_digest(run, tmp_path):
    _, sources, _ = run
    files = {
        "loss.name": tmp_path / "mine.py",
        "model.member_models.0.member_models.0.name": tmp_path / "other/mine.py",
    }
    assert sources == {
        field: {"file": str(path), "digest": hashlib.sha256(path.read_bytes()).hexdigest()}
        for field, path in files.items()
    }
    assert extensions.record(saved()) == {}


def found(config):
    return config["loss"]["name"], config["model"]["member_models"][0]["member_models"][0]["name"]


def test_files_that_have_not_changed_are_used_where_they_were(run, tmp_path, monkeypatch, caplog):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config, sources, workdir = run
    assert found(extensions.locate(config, sources, workdir)) == (
        f"{tmp_path / 'mine.py'}:double",
        f"{tmp_path / 'other' / 'mine.py'}:VALUE",
    )
    assert not caplog.records
    assert found(config)[0] == "mine.py:double"  # what is given stays as it is


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_else_the_copy_is_used_and_it_is_said_once(run, tmp_path, caplog, change):
    config, sources, workdir = run
    caplog.set_level("INFO")
    other = tmp_path / "other" / "mine.py"
    other.write_text("VALUE = 6\n") if change == "changed" else other.unlink()
    for _ in range(2):
        loss, member = found(extensions.locate(config, sources, workdir))
    assert loss == f"{tmp_path / 'mine.py'}:double"
    assert extensions.load(member, FIELD) == 5
    (record,) = caplog.records
    assert str(other) in record.message
    assert member.rpartition(":")[0] in record.message


def test_without_the_text_as_it_was_in_either_place_it_is_refused(run, tmp_path):
    config, sources, workdir = run
    (tmp_path / "mine.py").unlink()
    (copy,) = (workdir / "sources" / sources["loss.name"]["digest"][:8]).iterdir()
    copy.write_text(SOURCE + "\n")
    with pytest.raises(InputError) as caught:
        extensions.locate(config, sources, workdir)
    for text in ("loss.name", f"{tmp_path / 'mine.py'} is gone", f"{copy} has changed", sources["loss.name"]["digest"]):
        assert text in str(caught.value)


def test_a_config_without_such_names_comes_back_as_it_was():
    config = saved(**{"model.name": "resnet50"})
    assert extensions.locate(config, {}, "run") == extensions.without_folders(config) == json.loads(json.dumps(config))


def test_two_records_differ_by_digest_alone():
    one = {"model.name": {"file": "/a/mine.py", "digest": "12"}, "loss.name": {"file": "/a/x.py", "digest": "9"}}
    two = {"model.name": {"file": "/b/mine.py", "digest": "34"}, "loss.name": {"file": "/b/x.py", "digest": "9"}}
    assert extensions.differences(one, two) == ["model.name: /b/mine.py has the digest 34, and it was 12"]
    assert extensions.differences({}, two) == []
