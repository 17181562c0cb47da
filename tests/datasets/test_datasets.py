"""load: options against each other, splits and classes, notes, and the real FER-2013 where it is at hand."""

import itertools
import shutil
import zipfile

import numpy as np
import pytest

from fer_jax import datasets
from fer_jax.datasets import facts, splits
from fer_jax.datasets.faces import Faces
from fer_jax.errors import InputError


def blank(labels):
    labels = np.asarray(labels, np.int32)
    return Faces(np.zeros((len(labels), *facts.IMAGE_SHAPE), np.uint8), labels)


@pytest.fixture
def table(files, rows, tmp_path):
    return files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "fer"},
            "data.name is 'fer'; it should be one of auto, drawn_faces, fer2013, class_folders",
        ),
        ({"split": "cv"}, "data.split is 'cv'; it should be one of official, random"),
        ({"on_bad_row": "warn"}, "data.on_bad_row is 'warn'; it should be one of stop, skip"),
        ({"name": "drawn_faces", "path": "here"}, "drawn_faces reads no files"),
        ({"name": "fer2013"}, "fer2013 needs data.path"),
        ({"name": "class_folders"}, "class_folders needs data.path"),
        ({"votes_path": "votes.csv"}, "the faces are drawn_faces"),
        ({"path": "nowhere"}, "nowhere does not exist"),
        ({"size_px": 0}, r"data.size_px is 0: give 1 or more \(side that pictures"),
        ({"train_faces": -1}, "data.train_faces is -1: give 0 or more"),
        ({"channels": 2}, r"data.channels is 2: give 1 \(grey\) or 3 \(RGB\)"),
        ({"size_px": 96}, "data.size_px is 96 and data.channels 1, but the faces are drawn_faces, 48x48 grey"),
        ({"channels": 3}, "data.size_px is 48 and data.channels 3, .* leave these fields at 48 and 1 .*network sees"),
    ],
)
def test_options_are_checked_before_work_starts(make_data, tmp_path, fields, message):
    for call in (datasets.load, datasets.resolve_name):
        with pytest.raises(InputError, match=message):
            call(make_data(**fields))
    assert not (tmp_path / "cache").exists()


def test_fer2013_is_48_px_and_grey_and_nothing_else(files, rows, table, make_data, tmp_path):
    folders = files.write_pictures(tmp_path / "folders", rows)
    for fields in ({"size_px": 64}, {"channels": 3}):
        with pytest.raises(InputError, match=r"the faces are fer2013, 48x48 grey; .* leave these fields") as caught:
            datasets.load(make_data(table, **fields))
        assert "class_folders" not in str(caught.value)
        with pytest.raises(InputError, match=r"or set data\.name=class_folders to read these folders unchanged"):
            datasets.load(make_data(folders, **fields))
        assert not (tmp_path / "cache").exists()
        data = datasets.load(make_data(folders, name="class_folders", **fields))
        assert data.image_shape == (fields.get("size_px", 48), fields.get("size_px", 48), fields.get("channels", 1))
        shutil.rmtree(tmp_path / "cache")
    assert datasets.load(make_data(table)).image_shape == (48, 48, 1)


def test_resolve_name(files, rows, table, make_data, tmp_path):
    unnamed = files.write_pictures(tmp_path / "unnamed", rows, named=False)
    assert datasets.resolve_name(make_data()) == "drawn_faces"
    assert datasets.resolve_name(make_data(table)) == "fer2013"
    assert datasets.resolve_name(make_data(unnamed)) == "class_folders"


def test_split_gives_splits_by_name(table, make_data):
    data = datasets.load(make_data(table))
    assert data.split("test") is data.test and not data.synthetic
    with pytest.raises(InputError, match="no split 'val'; the splits are train, validation, test"):
        data.split("val")


def test_random_split_has_the_sizes_of_the_reports():
    official = {split: blank(np.repeat(np.arange(7), facts.OFFICIAL_COUNTS[split])) for split in facts.SPLITS}
    drawn = splits.draw(official, facts.CLASSES, seed=0)
    assert [len(drawn[split]) for split in facts.SPLITS] == [29068, 3230, 3589]
    shares = np.array([np.bincount(drawn[split].labels) / len(drawn[split]) for split in facts.SPLITS])
    assert np.ptp(shares, axis=0).max() < 5e-4


def test_random_split_draws_from_all_faces_by_seed(files, make_data, tmp_path):
    rows = files.Rows((12, 6, 6))
    path = files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()))
    number = {image.tobytes(): i for i, image in enumerate(rows.images)}

    def numbers(**fields):
        data = datasets.load(make_data(path, split="random", **fields))
        return [[number[image.tobytes()] for image in data.split(split).images] for split in facts.SPLITS]

    first = numbers()
    assert sorted(itertools.chain(*first)) == list(range(168))
    assert [len(part) for part in first] == [135, 16, 17]
    assert numbers() == first and numbers(split_seed=1) != first
    sad = [[i for i in part if rows.labels[i] == facts.CLASSES.index("sad")] for part in first]
    happy_and_sad = numbers(classes=("sad", "happy"))
    assert all(set(some) <= set(part) for some, part in zip(sad, happy_and_sad, strict=True))


def test_classes_are_selected_and_renumbered(files, rows, table, make_data, tmp_path):
    votes = str(files.write_votes(tmp_path / "votes.csv", rows))
    data = datasets.load(make_data(table, classes=("surprise", "angry"), votes_path=votes))
    assert data.classes == ("surprise", "angry")
    for split in facts.SPLITS:
        kept = rows.of(split) & np.isin(rows.labels, [5, 0])
        np.testing.assert_array_equal(data.split(split).images, rows.images[kept])
        np.testing.assert_array_equal(data.split(split).labels, np.where(rows.labels[kept] == 5, 0, 1))
        surprised = data.split(split).votes[:, facts.VOTES.index("surprise")] > 0
        np.testing.assert_array_equal(surprised, data.split(split).labels == 0)
    for classes, message in (
        (("happy", "joy"), "no class 'joy'; the classes are angry, disgust"),
        (("happy",), "at least two classes"),
        (("happy", "happy"), "each once"),
    ):
        with pytest.raises(InputError, match=message):
            datasets.load(make_data(table, classes=classes))


def test_empty_splits_are_refused_with_the_mend(files, make_data, tmp_path):
    rows = files.Rows((12, 6, 6))
    cells = rows.cells()
    path = files.write(tmp_path / "a.csv", files.to_csv([c for c in cells if c[2] != "PublicTest"]))
    with pytest.raises(InputError, match=r"split validation holds no faces.*data.split=random"):
        datasets.load(make_data(path))
    assert len(datasets.load(make_data(path, split="random")).validation)
    path = files.write(tmp_path / "b.csv", files.to_csv([c for c in cells if c[0] in "45" or c[2] != "PrivateTest"]))
    with pytest.raises(InputError, match=r"split test holds no faces of data.classes"):
        datasets.load(make_data(path, classes=("happy", "angry")))


def test_too_few_faces_to_split_are_refused(files, make_data, tmp_path):
    path = files.write(tmp_path / "a.csv", files.to_csv(files.Rows((2, 1, 1)).cells()))
    with pytest.raises(InputError, match=r"too few to take a stratified tenth .*angry 4"):
        datasets.load(make_data(path, split="random"))


def test_class_folders_without_splits_can_be_taken_whole(files, rows, table, make_data, tmp_path):
    root = files.write_pictures(tmp_path / "folders", rows, named=False)
    for split in ("validation", "test"):
        for fields in ({}, {"split": "random"}):
            data = datasets.load(make_data(root / "train", **fields), single_split=split)
            counts = {name: len(data.split(name)) for name in facts.SPLITS}
            assert counts == {**dict.fromkeys(facts.SPLITS, 0), split: 70}
            assert f"all 70 faces are taken as the split {split}" in " ".join(data.notes)
    for place in (table, root):  # which have splits
        data, other = (datasets.load(make_data(place), single_split=split) for split in ("test", ""))
        assert [len(data.split(name)) for name in facts.SPLITS] == [len(other.split(name)) for name in facts.SPLITS]


def test_unofficial_counts_are_noted_with_the_differences(table, make_data):
    (found,) = [text for text in datasets.load(make_data(table)).notes if "not the official FER-2013" in text]
    assert "train angry 10 instead of 3,995" in found and "test neutral 3 instead of 626" in found
    assert found.count("instead of") == 21
    official = {split: blank(np.repeat(np.arange(7), facts.OFFICIAL_COUNTS[split])) for split in facts.SPLITS}
    assert splits.unofficial_counts(official) == []
    official["test"].labels[0] = 1
    assert splits.unofficial_counts(official)[0].endswith(
        "test angry 490 instead of 491, test disgust 56 instead of 55."
    )


def test_pictures_in_two_splits_are_counted(files, make_data, tmp_path):
    rows = files.Rows()
    rows.images[[70, 71, 91]] = rows.images[0]  # train's first: twice in validation, once in test
    rows.images[72] = rows.images[1]
    rows.images[2] = rows.images[3]  # within train: no matter
    path = files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()))
    shared = [text for text in datasets.load(make_data(path)).notes if " too" in text]
    assert shared == [
        "2 pictures are in train and in validation too: 3 of the 21 validation faces.",
        "1 picture is in train and in test too: 1 of the 21 test faces.",
        "1 picture is in validation and in test too: 1 of the 21 test faces.",
    ]


def test_training_faces_that_are_in_other_splits_can_be_left_out(files, make_data, tmp_path):
    rows = files.Rows()
    rows.images[[70, 71, 91]] = rows.images[0]  # train's first: twice in validation, once in test
    rows.images[72] = rows.images[1]
    rows.images[2] = rows.images[3]  # within train: no matter
    rows.images[[5, 6, 92]] = rows.images[4]  # three of train, once in test
    path = files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()))
    everything, data = (datasets.load(make_data(path, drop_shared=drop)) for drop in (False, True))
    kept = np.setdiff1d(np.arange(70), [0, 1, 4, 5, 6])
    np.testing.assert_array_equal(data.train.images, rows.images[kept])
    np.testing.assert_array_equal(data.train.labels, rows.labels[kept])
    assert (len(data.validation), len(data.test), data.fingerprint) == (21, 21, everything.fingerprint)
    shared = [text for text in data.notes if " too" in text]
    assert shared == [
        "5 training faces of 70, whose pictures are in validation or test too, are dropped (data.drop_shared).",
        "1 picture is in validation and in test too: 1 of the 21 test faces.",
    ]
    few = datasets.load(make_data(path, drop_shared=True, train_faces=65))  # of what is left
    assert len(few.train) == 65
    # Of the classes that are taken: 92 is of disgust, which scores 4, of sad; 72, which 1 of disgust is in, is of fear.
    some = datasets.load(make_data(path, drop_shared=True, classes=("disgust", "sad")))
    np.testing.assert_array_equal(some.train.images, rows.images[[i for i in range(70) if i % 7 in (1, 4) and i != 4]])


def test_several_candidates_are_noted_even_when_prepared(files, table, make_data):
    other = files.write(table.parent / "other.csv", table.read_text())
    assert not any("not used" in text for text in datasets.load(make_data(table)).notes)
    notes = datasets.load(make_data(table.parent)).notes
    assert f"Faces are taken from {table}; not used: {other.name}." in notes


def thin(path, target, step):
    """Copies the header and every `step`-th row."""
    with open(path) as source, open(target, "w") as copy:
        copy.writelines(line for i, line in enumerate(source) if i == 0 or i % step == 1)
    return target


@pytest.mark.full
def test_real_forms_have_one_fingerprint(real, files, make_data, tmp_path):
    table = thin(real / "csv/fer2013.csv", tmp_path / "fer2013.csv", 100)
    icml = thin(real / "icml/icml_face_data.csv", tmp_path / "icml_face_data.csv", 100)
    tar = files.write_tar(tmp_path / "fer2013.tar.gz", {"fer2013/fer2013.csv": table.read_text()})
    challenge = files.write_zip(tmp_path / "c.zip", {icml.name: icml.read_text(), tar.name: tar.read_bytes()})
    loaded = [datasets.load(make_data(form)) for form in (table, icml, tar, challenge)]
    assert len({data.fingerprint for data in loaded}) == 1
    assert sum(len(loaded[0].split(split)) for split in facts.SPLITS) == 359


@pytest.mark.full
def test_the_whole_real_set(real, make_data, tmp_path):
    with zipfile.ZipFile(tmp_path / "icml.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(real / "icml/icml_face_data.csv", "icml_face_data.csv")
    votes = str(real / "ferplus/fer2013new.csv")
    table = datasets.load(make_data(real / "csv/fer2013.csv", votes_path=votes))
    zipped = datasets.load(make_data(tmp_path / "icml.zip"))
    folders = datasets.load(make_data(real / "folders", votes_path=votes))
    assert table.fingerprint == zipped.fingerprint == facts.FINGERPRINT
    for data in (table, zipped, folders):
        counts = {split: tuple(np.bincount(data.split(split).labels)) for split in facts.SPLITS}
        assert counts == facts.OFFICIAL_COUNTS
        assert not any("official" in text for text in data.notes)
    for split in facts.SPLITS:
        np.testing.assert_array_equal(table.split(split).labels, folders.split(split).labels)
        np.testing.assert_array_equal(table.split(split).votes, folders.split(split).votes)
        difference = table.split(split).images.astype(int) - folders.split(split).images
        assert 0 < np.abs(difference).mean() < 3  # JPEG
    assert any("22,014 of 35,887 faces" in text for text in table.notes)
    assert any("280 of the 3,589 validation faces" in text for text in table.notes)
    assert any("288 of the 3,589 test faces" in text for text in table.notes)
    seen = {image.tobytes() for split in ("validation", "test") for image in table.split(split).images}
    apart = datasets.load(make_data(real / "csv/fer2013.csv", votes_path=votes, drop_shared=True))
    kept = [image.tobytes() not in seen for image in table.train.images]
    np.testing.assert_array_equal(apart.train.images, table.train.images[kept])
    assert not any("in train and in" in text for text in apart.notes)
    shutil.rmtree(tmp_path / "cache")


def test_a_few_training_faces_keep_the_shares_of_the_classes_and_the_other_splits():
    faces = {"train": blank(np.repeat(np.arange(7), facts.OFFICIAL_COUNTS["train"])), "test": blank([0, 1])}
    thinned, notes = splits.thin(faces, 3000, seed=0)
    counts = np.bincount(thinned["train"].labels)
    shares = np.array(facts.OFFICIAL_COUNTS["train"]) * 3000 / 28709
    assert counts.sum() == 3000 and np.abs(counts - shares).max() < 1
    assert thinned["test"] is faces["test"] and "Only 3,000 of 28,709 training faces" in notes[0]
    assert splits.thin(faces, 28709, seed=0) == (faces, [])


@pytest.mark.parametrize(("count", "message"), [(28710, "give 1 to 28,709"), (-1, "give 1 to"), (3, "too few")])
def test_an_impossible_number_of_training_faces_is_refused(count, message):
    faces = {"train": blank(np.repeat(np.arange(7), facts.OFFICIAL_COUNTS["train"]))}
    with pytest.raises(InputError, match=message):
        splits.thin(faces, count, seed=0)
