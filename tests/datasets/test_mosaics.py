"""Packed faces: the same dataset as the table's, from any place, and what is refused."""

import csv
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from fer_jax import datasets
from fer_jax.datasets import facts, mosaics, readings, sources
from fer_jax.errors import InputError


@pytest.fixture
def rows(files):
    rows = files.Rows()
    rows.images[80] = rows.images[3]  # the same picture in two splits
    return rows


@pytest.fixture
def table(files, rows, tmp_path):
    return files.write(tmp_path / "table" / "fer2013.csv", files.to_csv(rows.cells()))


def pack(source, path):
    reading = readings.read(sources.find(source))
    mosaics.write(path, reading.faces, reading.rows)
    return path


@pytest.fixture
def packed(table, tmp_path):
    (tmp_path / "packed").mkdir()
    return pack(table, tmp_path / "packed" / "faces.zip")


def members(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_packed_faces_are_the_tables(table, packed, make_data):
    one, other = datasets.load(make_data(table)), datasets.load(make_data(packed))
    assert (other.name, other.fingerprint, other.classes) == ("fer2013", one.fingerprint, one.classes)
    for split in facts.SPLITS:
        np.testing.assert_array_equal(other.split(split).images, one.split(split).images)
        np.testing.assert_array_equal(other.split(split).labels, one.split(split).labels)


def test_pictures_in_folders_pack_alike(files, rows, table, packed, tmp_path):
    folders = pack(files.write_pictures(tmp_path / "folders", rows), tmp_path / "again.zip")
    assert members(folders) == members(packed)


def test_votes_join_packed_faces_row_for_row(files, rows, table, packed, make_data):
    votes = files.write_votes(table.with_name("fer2013new.csv"), rows)
    one, other = (datasets.load(make_data(path, votes_path=str(votes))) for path in (table, packed))
    np.testing.assert_array_equal(other.test.votes, one.test.votes)


def test_the_files_are_what_they_say(packed, rows):
    """Read by another way: the standard library's table and tiles cut one by one out of the picture."""
    found = members(packed)
    picture = Image.open(io.BytesIO(found[mosaics.PICTURE]))
    across = picture.width // 48
    lines = list(csv.DictReader(io.StringIO(found[mosaics.TABLE].decode())))
    assert len(lines) == len(rows.labels)
    for line, label, usage, image in zip(lines, rows.labels, rows.usages, rows.images, strict=True):
        left, top = 48 * (int(line["tile"]) % across), 48 * (int(line["tile"]) // across)
        np.testing.assert_array_equal(picture.crop((left, top, left + 48, top + 48)), image[..., 0])
        assert (int(line["emotion"]), line["Usage"]) == (label, usage)
    assert lines[80]["tile"] == lines[3]["tile"], "the same picture is stored once"
    assert len({line["tile"] for line in lines}) == len(lines) - 1


def test_packed_faces_are_found_in_a_folder_and_in_an_archive(packed, files, table, make_data, tmp_path):
    fingerprint = datasets.load(make_data(table)).fingerprint
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(packed) as file:
        file.extractall(folder)
    outer = files.write_zip(tmp_path / "outer.zip", {"faces.zip": packed.read_bytes()})
    for path in (packed.parent, folder, outer):
        assert datasets.load(make_data(path)).fingerprint == fingerprint


def test_a_changed_mosaic_is_prepared_again(packed, make_data, tmp_path):
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(packed) as file:
        file.extractall(folder)
    before = datasets.load(make_data(folder)).fingerprint
    pixels = np.asarray(Image.open(folder / mosaics.PICTURE)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(folder / mosaics.PICTURE)
    assert datasets.load(make_data(folder)).fingerprint != before


def without_its_picture(found):
    del found[mosaics.PICTURE]


def with_a_cut_picture(found):
    found[mosaics.PICTURE] = found[mosaics.PICTURE][:2000]


def with_a_small_picture(found):
    picture = io.BytesIO()
    Image.new("L", (48, 50)).save(picture, "png")
    found[mosaics.PICTURE] = picture.getvalue()


def with_tiles_missing(found):
    picture = io.BytesIO()
    Image.new("L", (96, 48)).save(picture, "png")
    found[mosaics.PICTURE] = picture.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_its_picture, "This is the table of packed faces: give the zip or folder that holds it and its mosaic"),
        (with_a_cut_picture, r"faces\.png cannot be read"),
        (with_a_small_picture, "is not a mosaic of grey tiles of 48x48 pixels"),
        (with_tiles_missing, r"row 4: there is no tile '2'; it should be 0 to 1"),
    ],
)
def test_what_is_wrong_with_packed_faces_is_said(change, message, packed, files, make_data):
    found = members(packed)
    change(found)
    with pytest.raises(InputError, match=message):
        datasets.load(make_data(files.write_zip(packed, found)))


def test_a_corrupt_byte_in_the_zip_is_found(packed, make_data):
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 255
    packed.write_bytes(content)
    with pytest.raises(InputError, match=r"faces\.png cannot be read"):
        datasets.load(make_data(packed))


@pytest.mark.full
def test_the_real_set_fits_and_is_whole(real, tmp_path):
    """FER-2013 itself, under 58 MiB, with the fingerprint of its table."""
    reading = readings.read(sources.find(real / "csv" / "fer2013.csv"))
    mosaics.write(tmp_path / "faces.zip", reading.faces, reading.rows)
    assert (tmp_path / "faces.zip").stat().st_size < 58 * 2**20
    again = readings.read(sources.find(tmp_path / "faces.zip"))
    assert readings.fingerprint(again.faces, again.classes) == readings.fingerprint(reading.faces, reading.classes)
