"""Whatever a file holds, its reader gives a result or one InputError, in little memory, and writes nothing elsewhere.

FUZZ_EXAMPLES=5000 python -m pytest tests/test_fuzz.py looks longer; the examples are the same in each run.
"""

import contextlib
import csv
import gzip
import io
import json
import os
import pathlib
import re
import shutil
import sys
import tarfile
import warnings
import zipfile

import h5py
import numpy as np
import pytest
import torch_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_jax import checkpoint, members, outputs, pictures, portable, pretrained, workdir
from fer_jax import config as config_lib
from fer_jax.datasets import readings, sources, tables
from fer_jax.errors import InputError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
MORE_MIB = 1024  # than the process has, in virtual memory: a reader's bound
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 48, 48), dtype=np.uint8)
USAGES = ("Training", "Training", "Training", "Training", "PublicTest", "PrivateTest")


def table(header="emotion,pixels,Usage"):
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(header.split(","))
    for number, (face, usage) in enumerate(zip(PIXELS, USAGES, strict=True)):
        cells = {"emotion": number % 7, "pixels": " ".join(map(str, face.ravel())), "Usage": usage}
        rows.writerow([cells[name] for name in header.split(",")])
    return text.getvalue().encode()


def votes():
    head = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    return "\n".join(
        [head, *(f"{usage},fer000000{n}.png,4,0,0,1,3,2,0,0,0,0" for n, usage in enumerate(USAGES))]
    ).encode()


def picture(format, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[0]).convert("RGB").save(buffer, format, **options)
    return buffer.getvalue()


def folders():
    return {
        f"{part}/{name}/{number}.png": picture("PNG")
        for part in ("train", "test")
        for name in ("angry", "happy")
        for number in range(2)
    }


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def keras_file():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = np.array([b"block1_conv1"])
        group = file.create_group("block1_conv1")
        group.attrs["weight_names"] = np.array([b"block1_conv1/kernel:0", b"block1_conv1/bias:0"])
        group["block1_conv1/kernel:0"], group["block1_conv1/bias:0"] = np.ones((3, 3, 3, 64)), np.zeros(64)
    return buffer.getvalue()


def torch_file(tmp_path):
    path = torch_files.write_arrays(tmp_path / "made.pth", {"conv_stem.weight": np.ones((4, 3, 3, 3), np.float32)})
    return path.read_bytes()


def load_faces(path):
    readings.read(sources.find(path))


def read_job(path):
    with outputs.Output(path.with_suffix(""), "", {"digest": "1", "format": "jsonl", "part": [1, 1], "sources": 1}):
        pass


# The file's name: (what a whole one holds, its reader). A reader that is given a folder's file reads the folder.
READERS = {
    "fer2013.csv": (table(), load_faces),
    "icml_face_data.csv": (table("emotion,Usage,pixels"), load_faces),
    "fer2013.csv.gz": (gzip.compress(table()), load_faces),
    "fer2013.zip": (zipped({"fer2013/fer2013.csv": table()}), load_faces),
    "folders.zip": (zipped(folders()), load_faces),
    "fer2013.tar": (tarred({"fer2013/fer2013.csv": table()}), load_faces),
    "folders.tar": (tarred(folders()), load_faces),
    "fer2013.tar.gz": (tarred({"fer2013.csv": table()}, "w:gz"), load_faces),
    "test.csv": (table("pixels"), tables.read_pixels),
    "fer2013new.csv": (votes(), tables.read_votes),
    "face.png": (picture("PNG"), pictures.read),
    "face.jpg": (picture("JPEG"), pictures.read),
    "face.gif": (picture("GIF"), pictures.read),
    "face.webp": (picture("WEBP", lossless=True), pictures.read),
    "face.tiff": (picture("TIFF", compression="tiff_lzw"), pictures.read),
    "face.bmp": (picture("BMP"), pictures.read),
    "vgg16.h5": (keras_file(), lambda path: pretrained.read(path, "vgg16")),
    "list.txt": (b"a.jpg\nb/c.png\n", lambda path: list(pictures.find([f"@{path}"]))),
    "config.json": (
        json.dumps(config_lib.to_dict(config_lib.get_default())).encode(),
        lambda path: workdir.read_config(path.parent),
    ),
    "run.json": (
        json.dumps({"data_fingerprint": "1", "packages": {}}).encode(),
        lambda path: workdir.read_provenance(path.parent),
    ),
    "history.csv": (b"epoch,loss\n1,0.5\n2,0.25\n", lambda path: workdir.read_history(path.parent)),
    "metrics.jsonl": (
        b'{"kind": "epoch", "epoch": 1, "step": 2}\n' * 3,
        lambda path: workdir.read_metrics(path.parent),
    ),
    "ensemble.json": (
        json.dumps({"members": [{"workdir": "a", "weight": 1.0}]}).encode(),
        lambda path: members.read_record(path.parent),
    ),
    "out.jsonl.job.json": (json.dumps({"digest": "1", "format": "jsonl", "part": [1, 1]}).encode(), read_job),
}


PIECES = tuple(
    '\0\0\0\0\0|\xff\xff\xff\xff|\n|,|"|{|]|/|../../x|1e999|-1|null|99999999999'.encode("latin1").split(b"|")
)


@st.composite
def changes(draw):
    """Draws what is done to a file: a function of its bytes."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(("set", "flip", "cut", "drop", "insert", "repeat", "splice")),
                st.floats(0, 1),
                st.floats(0, 1),
                st.binary(min_size=1, max_size=12) | st.sampled_from(PIECES),
            ),
            min_size=1,
            max_size=4,
        )
    )  # fmt: skip

    def change(content):
        content = bytearray(content)
        for kind, share, other, piece in steps:
            at = int(share * len(content))
            to = min(len(content), at + int(other * 64))
            if kind == "set":
                content[at : at + len(piece)] = piece
            elif kind == "flip" and at < len(content):
                content[at] ^= 1 << int(other * 7.99)
            elif kind == "cut":
                del content[at:]
            elif kind == "drop":
                del content[at:to]
            elif kind == "insert":
                content[at:at] = piece
            elif kind == "repeat":
                content[at:at] = bytes(content[at:to]) * 20
            elif kind == "splice":
                content[at:to] = content[int(other * len(content)) :][: to - at]
        return bytes(content)

    return change


_watched = {}


def _audit(event, arguments):
    folder = _watched.get("folder")
    if folder is None:
        return
    writes = event in ("os.mkdir", "os.rename", "os.symlink", "os.link", "os.remove")
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        mode, flags = arguments[1] or "", arguments[2] or 0
        writes = any(letter in mode for letter in "wax+") or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if writes:
        for given in arguments[: 2 if event in ("os.rename", "os.symlink", "os.link") else 1]:
            path = pathlib.Path(os.path.abspath(os.fsdecode(given)))
            if not path.is_relative_to(folder) and str(path) != os.devnull:
                _watched["elsewhere"].append(f"{event} {path}")


sys.addaudithook(_audit)


@contextlib.contextmanager
def confined(folder):
    """Lets the process have little more memory, and asserts that what is written lies in a folder."""
    resource = pytest.importorskip("resource")
    if not sys.platform.startswith("linux"):
        pytest.skip("the bound on memory is Linux's")
    size_kib = int(re.search(r"VmSize:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, ((size_kib + 1024 * MORE_MIB) * 1024, before[1]))
    _watched.update(folder=folder, elsewhere=[])
    try:
        yield
    finally:
        _watched["folder"] = None
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not _watched["elsewhere"]


def survives(read, path, folder):
    """Reads a file: it is read, or refused by name."""
    with confined(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # h5py and Pillow warn of what they then refuse
        try:
            read(path)
        except InputError as error:
            text = str(error)
            assert text and len(text) < 4000 and "Traceback" not in text


common = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_whole_file_is_read(name, tmp_path):
    content, read = READERS[name]
    (tmp_path / name).write_bytes(content)
    read(tmp_path / name)


@pytest.mark.parametrize("name", READERS)
@given(change=changes())
@common
def test_a_corrupt_file_is_read_or_refused(name, change, tmp_path):
    content, read = READERS[name]
    (tmp_path / name).write_bytes(change(content))
    survives(read, tmp_path / name, tmp_path)


def test_a_zip_with_a_name_that_is_no_utf_8_is_refused(tmp_path):
    files = {
        f"{part}/{name}/{number}é.png": picture("PNG")
        for part in ("train", "test")
        for name in ("angry", "happy")
        for number in (0, 1)
    }
    content = bytearray(zipped(files))
    first = content.index("é".encode())
    content[first : first + 2] = b"\xfa\xfa"  # before the file, and not in the directory
    (tmp_path / "folders.zip").write_bytes(content)
    with pytest.raises(InputError, match="corrupt or incomplete"):
        load_faces(tmp_path / "folders.zip")


@given(change=changes())
@common
def test_a_corrupt_torch_file_is_read_or_refused(change, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(change(torch_file(tmp_path)))
    survives(lambda path: pretrained.read(path, "efficientnet_lite0"), path, tmp_path)


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
@given(change=changes())
@common
def test_a_corrupt_model_file_is_read_or_refused(ending, change, tmp_path):
    place = pathlib.Path(portable.__file__).parent / "shipped" / "small"
    for other in (".json", ".safetensors"):
        shutil.copy(place.with_suffix(other), tmp_path / f"mine{other}")
    path = tmp_path / f"mine{ending}"
    path.write_bytes(change(path.read_bytes()))
    survives(portable.load, tmp_path / "mine", tmp_path)


@given(
    words=st.lists(
        st.text(max_size=40) | st.sampled_from(("**", "[", "../**", "~", "@", "-", "a\0b", "*" * 30)), max_size=4
    )
)
@common
def test_any_words_are_files_or_refused(words, tmp_path):
    with contextlib.chdir(tmp_path):
        survives(lambda words: list(pictures.find(words, stdin=io.StringIO("a\nb"))), words, tmp_path)


def test_a_corrupt_description_of_a_checkpoint_is_refused_or_skipped(tmp_path):
    whole = tmp_path / "whole"
    ckpt = checkpoint.Checkpoints(whole)
    for step in (1, 2):
        ckpt.save("latest", step, {"w": np.full(3, step, np.float32)}, {"epoch": step})
    ckpt.close()
    newest = whole / "checkpoints" / "latest" / "2"
    described = [
        path.relative_to(whole)
        for path in sorted(newest.rglob("*"))
        if path.is_file() and path.stat().st_size and "ocdbt" not in str(path) and not re.search(r"/d/", str(path))
    ]

    @given(change=changes(), which=st.sampled_from(described))
    @settings(common, max_examples=max(10, EXAMPLES // 2))
    def check(change, which):
        mine = tmp_path / "mine"
        shutil.rmtree(mine, ignore_errors=True)
        shutil.copytree(whole, mine)
        (mine / which).write_bytes(change((mine / which).read_bytes()))

        def read(folder):
            with contextlib.closing(checkpoint.Checkpoints(folder)) as ckpt:
                tree, meta = ckpt.restore("latest", None)
                assert tree["w"].tolist() == [meta["epoch"]] * 3

        survives(read, mine, tmp_path)

    check()
