"""FER-2013 and class folders through their builders: what is read, what is refused, what is prepared once."""

import bz2
import gzip
import lzma
import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from fer_jax import datasets
from fer_jax.datasets import builders, facts, readings
from fer_jax.errors import InputError


def assert_holds(data, rows, *, splits=facts.SPLITS):
    for split in splits:
        np.testing.assert_array_equal(data.split(split).images, rows.images[rows.of(split)])
        np.testing.assert_array_equal(data.split(split).labels, rows.labels[rows.of(split)])


def note(data, word):
    """Returns the one note that holds `word`."""
    (found,) = [text for text in data.notes if word in text]
    return found


@pytest.fixture
def table(files, rows, tmp_path):
    return files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()))


@pytest.mark.full
def test_every_form_gives_the_same_faces_and_fingerprint(files, rows, table, make_data, tmp_path):
    tar = files.write_tar(tmp_path / "fer.tgz", {"fer2013/README": "x", "fer2013/fer2013.csv": table.read_text()})
    quoted = [tuple(f'"{cell}"' for cell in cells) for cells in rows.cells()]
    forms = [
        table,
        files.write(tmp_path / "icml.csv", files.to_icml(rows.cells())),
        files.write(tmp_path / "windows.csv", "\ufeff" + table.read_text().replace("\n", "\r\n") + "\r\n"),
        files.write(tmp_path / "quoted.csv", files.to_csv(quoted)),
        files.write_zip(tmp_path / "a.zip", {"fer2013.csv": table.read_text()}),
        tar,
        files.write_zip(tmp_path / "b.zip", {"fer2013.tar.gz": tar.read_bytes()}),
        files.write_pictures(tmp_path / "folders", rows),
        files.write_bytes(tmp_path / "fer2013.csv.gz", gzip.compress(table.read_bytes())),
        files.write_bytes(tmp_path / "fer2013.csv.xz", lzma.compress(table.read_bytes())),
        files.write_zip(tmp_path / "c.zip", {"fer2013.csv.bz2": bz2.compress(table.read_bytes())}),
    ]
    loaded = [datasets.load(make_data(form)) for form in forms]
    for data in loaded:
        assert_holds(data, rows)
    assert len({data.fingerprint for data in loaded}) == 1
    assert loaded[0].name == "fer2013" and loaded[0].classes == facts.CLASSES
    assert loaded[0].train.images.dtype == np.uint8 and loaded[0].train.labels.dtype == np.int32


def test_fingerprint_tells_pixels_labels_splits_and_classes_apart(files, rows, make_data, tmp_path):
    cells = rows.cells()
    variants = {"same": cells, "pixel": list(cells), "label": list(cells), "split": list(cells)}
    label, pixels, usage = cells[0]
    first = "1" if pixels.split()[0] != "1" else "2"
    variants["pixel"][0] = (label, " ".join([first, *pixels.split()[1:]]), usage)
    variants["label"][0] = ("3", pixels, usage)
    variants["split"][0] = (label, pixels, "PrivateTest")
    prints = set()
    for name, some in variants.items():
        path = files.write(tmp_path / f"{name}.csv", files.to_csv(some))
        prints.add(datasets.load(make_data(path)).fingerprint)
    as_folders = files.write_pictures(tmp_path / "folders", rows)
    prints.add(datasets.load(make_data(as_folders, name="class_folders")).fingerprint)
    assert len(prints) == 5
    faces = {"train": datasets.Faces(rows.images, rows.labels)}
    assert len({readings.fingerprint(faces, classes) for classes in (("a", "b"), ("b", "a"))}) == 2


BROKEN = {
    3: (lambda c: (c[0], c[1].rsplit(" ", 1)[0], c[2]), "2303 pixels; it should have 2304"),
    4: (lambda c: (c[0], c[1] + " 7", c[2]), "2305 pixels; it should have 2304"),
    5: (lambda c: (c[0], "256" + c[1][c[1].index(" ") :], c[2]), "pixel value 256; it should be 0 to 255"),
    6: (lambda c: (c[0], "-1" + c[1][c[1].index(" ") :], c[2]), "pixel value -1; it should be 0 to 255"),
    7: (lambda c: (c[0], "x" + c[1][c[1].index(" ") :], c[2]), "a pixel is not a whole number"),
    8: (lambda c: (c[0], "1.5" + c[1][c[1].index(" ") :], c[2]), "a pixel is not a whole number"),
    9: (lambda c: ("7", c[1], c[2]), "unknown emotion '7'; it should be 0 to 6"),
    10: (lambda c: ("", c[1], c[2]), "unknown emotion ''; it should be 0 to 6"),
    11: (lambda c: (c[0], c[1], "Test"), "unknown Usage 'Test'"),
    12: (lambda c: (c[0], '"' + c[1], c[2][:3]), "unknown Usage 'Tra'"),
}


@pytest.fixture
def broken(files, rows, tmp_path):
    """A table with one broken row of each kind; a text editor shows row 2 first after the header."""
    cells = rows.cells()
    for row, (breaks, _) in BROKEN.items():
        cells[row - 2] = breaks(cells[row - 2])
    return files.write(tmp_path / "broken.csv", files.to_csv(cells))


def test_broken_rows_stop_with_all_of_them_listed(broken, make_data):
    with pytest.raises(InputError, match=r"^10 of 112 rows cannot be read:") as raised:
        datasets.load(make_data(broken))
    lines = str(raised.value).splitlines()
    for line, (row, (_, reason)) in zip(lines[1:], BROKEN.items(), strict=False):
        assert line.startswith(f"  {broken}, row {row}: {reason}")
    assert "on_bad_row=skip" in lines[-1]


def test_broken_rows_can_be_skipped_and_stay_noted(broken, rows, make_data):
    kept = np.setdiff1d(np.flatnonzero(rows.of("train")), np.array(list(BROKEN)) - 2)
    for _ in range(2):  # fresh, and from the cache
        data = datasets.load(make_data(broken, on_bad_row="skip"))
        np.testing.assert_array_equal(data.train.images, rows.images[kept])
        assert len(note(data, "skipped").splitlines()) == 1 + len(BROKEN)
    with pytest.raises(InputError, match="10 of 112 rows"):
        datasets.load(make_data(broken, on_bad_row="stop"))


def test_long_lists_end_with_a_count(files, rows, make_data, tmp_path):
    cells = [
        ("9", pixels, usage) if i < 25 else ("0", pixels, usage) for i, (_, pixels, usage) in enumerate(rows.cells())
    ]
    path = files.write(tmp_path / "fer2013.csv", files.to_csv(cells))
    data = datasets.load(make_data(path, on_bad_row="skip"))
    lines = note(data, "skipped").splitlines()
    assert len(lines) == 1 + 20 + 1 and lines[-1].strip() == "and 5 more"


def test_a_split_without_a_good_row_is_refused(files, rows, make_data, tmp_path):
    cells = [("9", p, u) if u == "PublicTest" else (e, p, u) for e, p, u in rows.cells()]
    path = files.write(tmp_path / "fer2013.csv", files.to_csv(cells))
    with pytest.raises(InputError, match="nothing of validation can be read"):
        datasets.load(make_data(path, on_bad_row="skip"))
    path = files.write(tmp_path / "header.csv", files.to_csv([]))
    with pytest.raises(InputError, match="a header and no rows"):
        datasets.load(make_data(path))


def test_truncated_tar_around_a_table(files, table, make_data, tmp_path):
    tar = files.write_tar(tmp_path / "fer2013.tar.gz", {"fer2013.csv": table.read_text()})
    tar.write_bytes(tar.read_bytes()[:-20000])
    with pytest.raises(InputError, match=r"fer2013\.tar\.gz > fer2013\.csv cannot be read .*corrupt or incomplete"):
        datasets.load(make_data(tar))


def test_votes_join_row_for_row(files, rows, table, make_data, tmp_path):
    votes = files.write_votes(tmp_path / "votes.csv", rows)
    for place in (table, files.write_pictures(tmp_path / "folders", rows)):
        data = datasets.load(make_data(place, votes_path=str(votes)))
        parts = [data.split(split).votes for split in facts.SPLITS]
        joined = np.concatenate(parts)
        np.testing.assert_array_equal(joined[:, facts.VOTES.index("NF")], np.arange(112) % 3)
        assert joined.dtype == np.uint8
        names = np.array(facts.VOTES)[joined.argmax(axis=1)]
        expected = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"] * 16
        assert names.tolist() == expected
        assert "112 of 112 faces (100.0 %)" in note(data, "majority")
    assert datasets.load(make_data(table)).train.votes is None


def test_votes_skip_with_their_rows(files, rows, broken, make_data, tmp_path):
    votes = files.write_votes(tmp_path / "votes.csv", rows)
    data = datasets.load(make_data(broken, votes_path=str(votes), on_bad_row="skip"))
    kept = np.setdiff1d(np.arange(70), np.array(list(BROKEN)) - 2)
    np.testing.assert_array_equal(data.train.votes[:, facts.VOTES.index("NF")], kept % 3)


def test_votes_of_other_files_are_refused(files, rows, table, make_data, tmp_path):
    votes = files.write_votes(tmp_path / "votes.csv", rows)
    lines = votes.read_text().splitlines(keepends=True)
    cases = {
        "".join(lines[:-1]): "has 111 rows and .* has 112",
        "".join([lines[0], lines[-1], *lines[2:-1], lines[1]]): "row 2: Usage 'PrivateTest', but .* 'Training'",
        "".join([lines[0].replace("NF", "Face"), *lines[1:]]): "is not that of FER",
        "".join([*lines[:5], lines[5].replace(",8", ",many"), *lines[6:]]): "row 6: it should hold 10 counts",
    }
    for text, message in cases.items():
        with pytest.raises(InputError, match=message):
            datasets.load(make_data(table, votes_path=str(files.write(votes, text))))
    with pytest.raises(InputError, match="there is no file"):
        datasets.load(make_data(table, votes_path=str(tmp_path / "none.csv")))


def test_votes_join_folders_only_where_numbers_are_rows(files, rows, make_data, tmp_path):
    root = files.write_pictures(tmp_path / "folders", rows)
    votes = str(files.write_votes(tmp_path / "votes.csv", rows))
    moves = [
        ("train/angry/Training_0.png", "train/angry/Training_1.png", "the same number"),
        ("train/angry/Training_0.png", "train/angry/Training_112.png", "row 112 of 112"),
        ("train/angry/Training_0.png", "test/angry/PublicTest_0.png", "have another Usage"),
    ]
    for old, new, message in moves:
        (root / old).rename(root / new)
        with pytest.raises(InputError, match=f"cannot be joined.*{message}"):
            datasets.load(make_data(root, votes_path=votes))
        (root / new).rename(root / old)
    others = str(files.write_votes(tmp_path / "others.csv", rows, agree=False))
    with pytest.raises(InputError, match=r"cannot be joined.*name another class"):
        datasets.load(make_data(root, votes_path=others))


@pytest.fixture
def own(tmp_path):
    """Class folders of any pictures: 20 cats in colour, 64x32; 30 dogs in grey, 48x48; no splits."""
    rng = np.random.default_rng(0)
    for name, count, shape in (("dog", 30, (48, 48)), ("cat", 20, (32, 64, 3))):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(count):
            picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
            picture.save(tmp_path / "own" / name / f"{i:02d}.png")
    return tmp_path / "own"


def test_class_folders_carve_validation_and_test_out_of_train(own, make_data):
    data = datasets.load(make_data(own))
    assert (data.name, data.classes) == ("class_folders", ("cat", "dog"))
    counts = {split: np.bincount(data.split(split).labels).tolist() for split in facts.SPLITS}
    assert counts == {"train": [16, 24], "validation": [2, 3], "test": [2, 3]}
    everything = {image.tobytes() for split in facts.SPLITS for image in data.split(split).images}
    assert len(everything) == 50
    assert "20 of 50 pictures were resized to 48x48; 20 of them are not square" in note(data, "resized")
    assert "no validation split" in note(data, "validation") and "no test split" in note(data, "test")
    other = datasets.load(make_data(own, split_seed=1))
    assert {i.tobytes() for i in other.test.images} != {i.tobytes() for i in data.test.images}
    assert other.fingerprint == data.fingerprint


def test_class_folders_resize_with_antialias(tmp_path, make_data):
    # One pixel in four is white: sampling without a filter sees only black or only white.
    comb = np.zeros((192, 192), np.uint8)
    comb[::2, ::2] = 255
    for name in ("a", "b"):
        for i in range(12):
            (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(comb).save(tmp_path / "own" / name / f"{i}.png")
    faces = datasets.load(make_data(tmp_path / "own")).train.images
    assert abs(faces[:, 4:-4, 4:-4].astype(int) - 64).max() <= 6


def test_class_folders_read_16_bit_and_colour(tmp_path, make_data):
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(np.full((48, 48), 257 * 100, np.uint16)).save(tmp_path / "own" / name / f"{i}.png")
    Image.new("RGB", (48, 48), (255, 0, 0)).save(tmp_path / "own" / "b" / "5.png")
    data = datasets.load(make_data(tmp_path / "own"))
    greys = np.concatenate([np.unique(data.split(split).images) for split in facts.SPLITS])
    assert set(greys.tolist()) == {100, 76}  # 76: ITU-R 601 luma of pure red


def test_class_folders_keep_the_splits_that_exist(files, rows, make_data, tmp_path):
    root = files.write_pictures(tmp_path / "folders", rows, named=False)
    data = datasets.load(make_data(root))
    assert data.classes == tuple(sorted(facts.CLASSES))
    assert [len(data.split(split)) for split in facts.SPLITS] == [63, 7, 42]
    assert "not the official split" in note(data, "official")
    (root / "test").rename(root / "VAL")
    data = datasets.load(make_data(root))
    assert [len(data.split(split)) for split in facts.SPLITS] == [63, 42, 7]


def test_unreadable_pictures_are_listed(own, make_data):
    (own / "cat" / "03.png").write_bytes(b"no picture")
    whole = (own / "dog" / "04.png").read_bytes()
    (own / "dog" / "04.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"2 of 50 pictures cannot be read:\n.*cat/03\.png.*\n.*dog/04\.png"):
        datasets.load(make_data(own))
    data = datasets.load(make_data(own, on_bad_row="skip"))
    assert sum(len(data.split(split)) for split in facts.SPLITS) == 48
    for picture in own.glob("*/*.png"):
        picture.write_bytes(b"no picture")
    with pytest.raises(InputError, match="nothing of train can be read"):
        datasets.load(make_data(own, on_bad_row="skip"))


def test_pictures_in_a_zip(files, rows, make_data, tmp_path):
    root = files.write_pictures(tmp_path / "folders", rows)
    members = {f"fer/{p.relative_to(root)}": p.read_bytes() for p in sorted(root.rglob("*.png"), reverse=True)}
    assert_holds(datasets.load(make_data(files.write_zip(tmp_path / "a.zip", members))), rows)


def test_a_prepared_set_is_not_read_again(table, rows, make_data, monkeypatch):
    first = datasets.load(make_data(table))
    calls = []
    read = readings.read
    monkeypatch.setattr(readings, "read", lambda *a, **k: calls.append(a) or read(*a, **k))
    again = datasets.load(make_data(table))
    assert calls == [] and (again.fingerprint, again.notes) == (first.fingerprint, first.notes)
    assert_holds(again, rows)
    os.utime(table, (1, 1))
    datasets.load(make_data(table))
    assert len(calls) == 1


def test_an_interrupted_preparation_leaves_nothing(table, rows, make_data, monkeypatch, tmp_path):
    generate = builders.Fer2013._generate_examples

    def interrupted(self, faces, positions):
        for key, example in generate(self, faces, positions):
            if key == 80:  # within validation: train is written
                raise KeyboardInterrupt
            yield key, example

    with monkeypatch.context() as patch:
        patch.setattr(builders.Fer2013, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            datasets.load(make_data(table))
    assert not list((tmp_path / "cache").rglob("*array_record*"))
    assert_holds(datasets.load(make_data(table)), rows)


def change_bytes(folder):
    path = next(folder.glob("*train.array_record*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def change_length(folder):
    path = next(folder.glob("*train.array_record*"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap_splits(folder):
    one, two = (next(folder.glob(f"*{split}.array_record*")) for split in ("validation", "test"))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        change_bytes,
        change_length,
        swap_splits,
        lambda folder: next(folder.glob("*test.array_record*")).unlink(),
        lambda folder: (folder / "metadata.json").unlink(),
        lambda folder: (folder / "dataset_info.json").unlink(),
        lambda folder: (folder / "dataset_info.json").write_text("{"),
    ],
)
def test_a_corrupt_cache_names_the_folder_to_delete(table, make_data, tmp_path, change):
    datasets.load(make_data(table))
    (info,) = (tmp_path / "cache").rglob("dataset_info.json")
    change(info.parent)
    with pytest.raises(InputError, match=f"{info.parent} is corrupt .*Delete this folder"):
        datasets.load(make_data(table))


def test_builder_is_a_tfds_builder(table, rows, make_data, tmp_path):
    datasets.load(make_data(table))
    (info,) = (tmp_path / "cache").rglob("dataset_info.json")
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(info.parent))
    example = builder.as_data_source("validation")[4]
    assert example["row"] == 74 and example["label"] == rows.labels[74]
    np.testing.assert_array_equal(example["image"], rows.images[74])


WITHOUT_TENSORFLOW = """
    import importlib.abc, importlib.machinery, sys

    class Refuse(importlib.abc.Loader):
        def create_module(self, spec):
            raise ImportError("TensorFlow was imported")
        def exec_module(self, module):
            pass

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "tensorflow":
                return importlib.machinery.ModuleSpec(name, Refuse())

    sys.meta_path.insert(0, Finder())
    from fer_jax import config, datasets
    data = config.get_default().data
    data.cache_dir, data.path = sys.argv[1:]
    data.drawn_size = "tiny"
    first, second = datasets.load(data), datasets.load(data)
    assert first.fingerprint == second.fingerprint and "tensorflow" not in sys.modules
    assert len(second.train) > len(second.test) > 0
    assert second.synthetic == (not data.path)
    if not data.path:  # the builder shuffles; the order is that of the source all the same
        from fer_jax.datasets import drawn_faces
        assert second.train.labels.tolist() == drawn_faces.draw_labels("train", 700).tolist()
"""


@pytest.mark.full
@pytest.mark.parametrize("drawn", [False, True])
def test_load_imports_no_tensorflow_and_is_silent(table, tmp_path, drawn):
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(WITHOUT_TENSORFLOW),
        str(tmp_path / "cache"),
        "" if drawn else str(table),
    ]
    root = pathlib.Path(__file__).parents[2]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
