"""Finding what users have: by content, in a fixed order, with one clear message where nothing fits."""

import gzip
import os
import struct
import tracemalloc
import zipfile
import zlib

import pytest

from fer_jax import datasets
from fer_jax.datasets import facts, sources, tables
from fer_jax.errors import InputError


@pytest.fixture
def challenge(files, rows):
    """The members of the challenge's zip, with the two tables that lack a column."""
    cells = rows.cells()[:7]
    return {
        "icml_face_data.csv": files.to_icml(cells),
        "test.csv": "pixels\n" + "".join(f"{pixels}\n" for _, pixels, _ in cells),
        "train.csv": "emotion,pixels\n" + "".join(f"{label},{pixels}\n" for label, pixels, _ in cells),
        "example_submission.csv": "Id,emotion\n1,0\n",
    }


def test_finds_tables_by_content(files, rows, tmp_path):
    text = files.to_csv(rows.cells()[:7])
    for name in ("fer2013.csv", "downloaded", "faces.txt"):
        folder = tmp_path / name.split(".")[0]
        table = files.write(folder / "inner" / name, text)
        assert sources.find(table).path == table
        assert sources.find(folder) == sources.Source("fer2013", table)


def test_prefers_by_kind_then_depth_then_name(files, rows, tmp_path):
    text = files.to_csv(rows.cells()[:7])
    files.write_zip(tmp_path / "a.zip", {"fer2013.csv": text})
    assert sources.find(tmp_path).label == f"{tmp_path / 'a.zip'} > fer2013.csv"
    files.write_pictures(tmp_path / "a", rows)
    assert sources.find(tmp_path).tree.folder == "a"
    for name in ("a/z.csv", "c.csv", "b.csv"):
        files.write(tmp_path / name, text)
    source = sources.find(tmp_path)
    assert source.path == tmp_path / "b.csv"
    assert source.others == ("c.csv", "a/z.csv", "a", "a.zip")


def test_looks_into_the_challenge_zip(files, challenge, tmp_path):
    source = sources.find(files.write_zip(tmp_path / "challenge.zip", challenge))
    assert (source.name, source.table) == ("fer2013", "icml_face_data.csv")


def test_looks_into_a_tar_inside_a_zip(files, rows, challenge, tmp_path):
    table = files.to_csv(rows.cells()[:7])
    inner = {"fer2013/README": "text", "fer2013/fer2013.bib": "@a", "fer2013/fer2013.csv": table}
    tar = files.write_tar(tmp_path / "fer2013.tar.gz", inner)
    assert sources.find(tar).label == f"{tar} > fer2013/fer2013.csv"
    del challenge["icml_face_data.csv"]
    path = files.write_zip(tmp_path / "c.zip", challenge | {"fer2013.tar.gz": tar.read_bytes()})
    assert sources.find(path).label == f"{path} > fer2013.tar.gz > fer2013/fer2013.csv"
    deeper = files.write_zip(tmp_path / "deeper.zip", {"c.zip": path.read_bytes()})
    with pytest.raises(InputError, match="holds no FER-2013"):
        sources.find(deeper)


def test_file_names_decide_between_fer2013_and_class_folders(files, rows, tmp_path):
    named = files.write_pictures(tmp_path / "named", rows)
    unnamed = files.write_pictures(tmp_path / "unnamed", rows, named=False)
    assert sources.find(named).name == "fer2013"
    assert sources.find(named, name="class_folders").name == "class_folders"
    assert sources.find(unnamed).name == "class_folders"
    with pytest.raises(InputError, match="112 of 112 file names are not Training_"):
        sources.find(unnamed, name="fer2013")
    (named / "train" / "happy").rename(named / "train" / "joy")
    (named / "test" / "happy").rename(named / "test" / "joy")
    assert sources.find(named).name == "class_folders"


def test_what_systems_leave_behind_is_not_seen(files, rows, tmp_path):
    text = files.to_csv(rows.cells()[:7])
    members = {"__MACOSX/fer2013.csv": text, ".hidden.csv": text, "fer2013.csv": text}
    assert sources.find(files.write_zip(tmp_path / "a.zip", members)).others == ()


def test_signature_follows_every_file(files, rows, tmp_path):
    root = files.write_pictures(tmp_path / "faces", rows)
    votes = str(files.write_votes(tmp_path / "votes.csv", rows))
    first = sources.find(root).signature(votes)
    assert sources.find(root).signature(votes) == first
    os.utime(root / "test" / "sad" / "PublicTest_74.png", (1, 1))
    second = sources.find(root).signature(votes)
    os.utime(votes, (1, 1))
    third = sources.find(root).signature(votes)
    assert len({first, second, third, sources.find(root).signature()}) == 4


@pytest.mark.parametrize("cut", [0.5, 0.98])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_truncated_archives_are_named(files, rows, tmp_path, kind, cut):
    members = {"README": "text", "no.csv": files.to_csv(rows.cells()[:20]).replace("emotion", "mood")}
    path = getattr(files, f"write_{kind}")(tmp_path / "faces.bin", members)
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(InputError, match=r"faces\.bin.* corrupt or incomplete"):
        sources.find(path)


def test_missing_path(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        sources.find(tmp_path / "nowhere")


def test_wrong_header_shows_what_was_found_and_what_is_accepted(files, challenge, tmp_path):
    path = files.write(tmp_path / "train.csv", challenge["train.csv"])
    for place in (path, tmp_path):
        with pytest.raises(InputError, match=r"train\.csv.*'emotion,pixels'.*emotion,pixels,Usage.*lacks"):
            sources.find(place)


def test_nothing_to_find(files, rows, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no FER-2013"):
        sources.find(tmp_path / "empty")
    table = files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()[:7]))
    for place in (table, tmp_path):
        with pytest.raises(InputError, match=r"a FER-2013 table, not class folders|is a FER-2013 table"):
            sources.find(place, name="class_folders")


def test_class_folders_must_be_filled_equal_and_with_train(files, rows, tmp_path):
    root = files.write_pictures(tmp_path / "faces", rows, named=False)
    (root / "train" / "bored").mkdir()
    with pytest.raises(InputError, match="class folder 'bored' of split train holds no pictures"):
        sources.find(root)
    (root / "train" / "bored").rmdir()
    (root / "test" / "sad").rename(tmp_path / "sad")
    with pytest.raises(InputError, match="split test has no class folder sad"):
        sources.find(root)
    (tmp_path / "sad").rename(root / "test" / "sad")
    (root / "train").rename(root / "val")
    with pytest.raises(InputError, match="no folder `train`"):
        sources.find(root)
    (root / "test").rename(root / "valid")
    with pytest.raises(InputError, match="two folders are for the split validation"):
        sources.find(root)


@pytest.mark.parametrize("name", ["/abs/fer2013.csv", "//abs/fer2013.csv", "../abs/fer2013.csv", "./abs//fer2013.csv"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_outside_the_archive_is_read_as_one_inside(files, rows, tmp_path, kind, name):
    path = getattr(files, f"write_{kind}")(tmp_path / "faces.bin", {name: files.to_csv(rows.cells())})
    source = sources.find(path)
    assert source.label == f"{path} > abs/fer2013.csv"
    with source.open_table() as stream:
        assert len(tables.read(stream, label=source.label).labels) == 112


def test_class_folders_under_an_absolute_path_are_found(files, rows, tmp_path):
    root = files.write_pictures(tmp_path / "folders", rows)
    members = {f"/{p.relative_to(root)}": p.read_bytes() for p in root.rglob("*.png")}
    assert sources.find(files.write_zip(tmp_path / "a.zip", members)).tree.is_fer2013()


def test_a_line_without_an_end_is_refused_and_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("fer2013.csv", "w") as member:
        member.write(b"emotion,pixels,Usage\n0,")
        for _ in range(200):
            member.write(b"1 " * (1 << 18))  # 100 MiB in all
    source = sources.find(path)
    tracemalloc.start()
    message = r"bomb\.zip > fer2013\.csv: line 2 is longer than 65,536 characters"
    with pytest.raises(InputError, match=message), source.open_table() as stream:
        tables.read(stream, label=source.label)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**24


@pytest.mark.parametrize("header", ["", "pixels\n", f"Usage,{','.join(facts.VOTES)}\n"])
def test_other_tables_with_a_line_without_an_end_are_refused(tmp_path, files, header):
    path = files.write(tmp_path / "table.csv", header + "1 " * 50_000)
    read = tables.read_votes if header.startswith("Usage") else tables.read_pixels
    with pytest.raises(InputError, match=rf"table\.csv: line {2 if header else 1} is longer than 65,536 characters"):
        read(path)


def test_files_that_are_missing_or_folders_are_not_called_corrupt(tmp_path):
    for read in (tables.read_pixels, tables.read_votes):
        with pytest.raises(InputError, match=r"none\.csv: there is no such file\.$"):
            read(tmp_path / "none.csv")
        with pytest.raises(InputError, match=r" is a folder: give a file\.$"):
            read(tmp_path)


def test_a_compressed_file_that_is_no_table_is_passed_over(files, rows, tmp_path):
    (tmp_path / "notes.txt.gz").write_bytes(gzip.compress(b"notes"))
    with pytest.raises(InputError, match="holds no FER-2013"):
        sources.find(tmp_path)
    (tmp_path / "other.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(InputError, match=r"other\.csv\.gz: other\.csv: the header 'a,b' is not FER-2013's"):
        sources.find(tmp_path)
    whole = gzip.compress(files.to_csv(rows.cells()).encode())
    (tmp_path / "fer2013.csv.gz").write_bytes(whole[: len(whole) // 2])
    source = sources.find(tmp_path)
    assert source.label == f"{tmp_path / 'fer2013.csv.gz'} > fer2013.csv"
    with (
        pytest.raises(InputError, match=r"fer2013\.csv cannot be read .*corrupt or incomplete"),
        source.open_table() as s,
    ):
        tables.read(s, label=source.label)


def test_pictures_of_one_class_are_said(files, rows, tmp_path):
    root = files.write_pictures(tmp_path / "faces", rows, named=False)
    happy = root / "train" / "happy"
    happy.rename(tmp_path / "happy")
    for place in (root / "train", root / "test"):
        for folder in place.iterdir():
            for picture in folder.iterdir():
                picture.unlink()
            folder.rmdir()
        place.rmdir()
    (tmp_path / "happy").rename(root / "happy")
    with pytest.raises(InputError, match="happy: pictures in one folder; there must be a folder for each class"):
        sources.find(root)
    (root / "train").mkdir()
    (root / "happy").rename(root / "train" / "happy")
    with pytest.raises(InputError, match="holds one class, 'happy'; training needs at least two"):
        sources.find(root)


def png_of(width, height):
    """Returns the start of a PNG that says so much of its size and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 100) + b"IDAT"


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_picture_of_too_many_pixels_is_named(files, rows, make_data, tmp_path, side):
    root = files.write_pictures(tmp_path / "faces", rows, named=False)
    (root / "train" / "sad" / "large.png").write_bytes(png_of(side, side))
    with pytest.raises(
        InputError, match=r"1 of 113 pictures .*\n.*sad/large\.png: more than 100,000,000 pixels \(10,000x"
    ):
        datasets.load(make_data(root))
    members = {"faces.csv": "emotion,Usage,tile\n0,Training,0\n", "faces.png": png_of(side, side)}
    with pytest.raises(InputError, match=r"faces\.png: more than 100,000,000 pixels"):
        datasets.load(make_data(files.write_zip(tmp_path / "packed.zip", members)))
