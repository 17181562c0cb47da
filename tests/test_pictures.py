"""Pictures of every kind that Pillow writes are read as it shows them, others are named; and what words mean."""

import io
import os
import struct
import zlib

import bombs
import numpy as np
import pytest
from PIL import Image

from fer_jax import pictures
from fer_jax.errors import InputError


def scene(width=64, height=48):
    """Returns a picture whose four quarters have colours of their own: red, green over blue, grey."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 200, 20, 20
    pixels[: height // 2, width // 2 :] = 20, 180, 30
    pixels[height // 2 :, : width // 2] = 30, 40, 220
    pixels[height // 2 :, width // 2 :] = 120, 120, 120
    return pixels


def written(path, picture, **options):
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.JPG", "a.webp", "a.gif", "a.mpo", "a.avif"])
def test_formats(tmp_path, name):
    path = tmp_path / name
    if name.endswith("avif") and "AVIF" not in pictures.FORMATS:
        pytest.skip("this Pillow knows no AVIF")
    pixels = scene()
    more = {"save_all": True, "append_images": [Image.fromarray(255 - pixels)]} if name.endswith("mpo") else {}
    lossless = {"lossless": True} if name.endswith("webp") else {"quality": 95} if "." in name and not more else {}
    written(path, pixels, **more, **lossless)
    found = pictures.read(path)
    assert found.dtype == np.uint8 and found.shape == pixels.shape
    exact = name.endswith(("png", "bmp", "tif", "ppm", "webp", "gif"))
    inside = np.s_[4:20, 4:28]  # away from the edges that JPEG smears
    assert np.abs(found.astype(int) - pixels)[... if exact else inside].max() <= (0 if exact else 12)


def test_bytes_and_open_files_are_read_too(tmp_path):
    path = written(tmp_path / "a.png", scene())
    with path.open("rb") as file:
        assert np.array_equal(pictures.read(file), scene())
    assert np.array_equal(pictures.read(path.read_bytes()), scene())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation(tmp_path, orientation, suffix):
    # EXIF's table: which side of the scene the stored first row and first column are.
    upright = scene()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    path = written(tmp_path / f"a.{suffix}", np.ascontiguousarray(stored), exif=exif, **options)
    found = pictures.read_reduced(path, None)
    assert found.size == (64, 48)
    assert np.abs(found.pixels[4:20, 4:28].astype(int) - upright[4:20, 4:28]).max() <= 12
    assert np.abs(found.pixels[28:44, 4:28].astype(int) - upright[28:44, 4:28]).max() <= 12


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_corrupt_exif_does_not_keep_a_picture_from_being_read(tmp_path):
    path = written(tmp_path / "a.jpg", scene(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert pictures.read(path).shape == (48, 64, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_greys_are_scaled_and_not_clipped(tmp_path, suffix):
    greys = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    if suffix == "pgm":
        path = tmp_path / "a.pgm"
        path.write_bytes(b"P5 16 16 65535\n" + greys.astype(">u2").tobytes())
    else:
        path = written(tmp_path / f"a.{suffix}", greys)
    found = pictures.read(path)
    assert np.array_equal(found, np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_16_bit_colours_are_scaled(tmp_path):
    rows = b"".join(b"\0" + struct.pack(">9H", *[65535, 257 * 100, 0] * 3) for _ in range(2))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    assert pictures.read(tmp_path / "a.png").tolist() == [[[255, 100, 0]] * 3] * 2


def test_numbers_beyond_16_bits_and_fractions_are_scaled(tmp_path):
    cases = {
        "unit": (np.linspace(0, 1, 256, dtype=np.float32), np.arange(256)),
        "bytes": (np.arange(256, dtype=np.float32), np.arange(256)),
        "wide": (np.arange(256, dtype=np.float32) * 1000 - 500, np.arange(256)),
        "int": (np.arange(256, dtype=np.int32) * 100_000, np.arange(256)),
    }
    for name, (values, greys) in cases.items():
        path = written(tmp_path / f"{name}.tif", values.reshape(16, 16))
        assert np.array_equal(pictures.read(path)[..., 0].ravel(), greys), name


def test_grey_and_black_and_white(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(pictures.read(written(tmp_path / "a.png", grey)), np.repeat(grey[..., None], 3, axis=2))
    path = written(tmp_path / "b.png", Image.fromarray(grey).convert("1", dither=Image.Dither.NONE))
    assert np.array_equal(pictures.read(path)[..., 0], np.where(grey > 127, 255, 0))
    assert pictures.load(path).mode == "L"
    assert np.array_equal(pictures.to_rgb(Image.open(path)), pictures.read(path))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_transparency_is_laid_over_white(tmp_path, suffix):
    pixels = np.dstack([scene(), np.full((48, 64), 255, np.uint8)])
    pixels[:24, :32] = 0, 0, 0, 0  # black, and all transparent
    pixels[24:, :32, 3] = 51  # a fifth of blue
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    found = pictures.read(written(tmp_path / f"a.{suffix}", pixels, **options)).astype(int)
    assert (found[:24, :32] == 255).all()
    assert np.abs(found[24:, :32] - (np.array([30, 40, 220]) * 0.2 + 255 * 0.8)).max() <= 1
    assert np.array_equal(found[:, 32:], scene()[:, 32:])


def test_transparent_colours_of_a_palette_and_of_grey_are_white(tmp_path):
    palette = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 7, 8, 9])
    palette.save(tmp_path / "p.png", transparency=1)
    assert pictures.read(tmp_path / "p.png").tolist() == [[[255, 0, 0], [255] * 3], [[0, 0, 255], [7, 8, 9]]]
    palette.save(tmp_path / "p.gif", transparency=1)
    assert pictures.read(tmp_path / "p.gif")[0, 1].tolist() == [255] * 3
    Image.fromarray(np.array([[0, 9]], np.uint8)).save(tmp_path / "l.png", transparency=0)
    assert pictures.read(tmp_path / "l.png").tolist() == [[[255] * 3, [9] * 3]]
    Image.fromarray(np.array([[[40, 0], [50, 255]]], np.uint8), "LA").save(tmp_path / "la.png")
    assert pictures.read(tmp_path / "la.png").tolist() == [[[255] * 3, [50] * 3]]


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path, suffix):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, :8] = 0, 255, 255, 0  # red
    inks[:, 8:] = 0, 0, 0, 128  # grey
    found = pictures.read(written(tmp_path / f"a.{suffix}", Image.fromarray(inks, "CMYK"))).astype(int)
    assert np.abs(found[:, 1:7] - [255, 0, 0]).max() <= 4
    assert np.abs(found[:, 9:] - 127).max() <= 4


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_frame_of_an_animated_picture_counts(tmp_path, suffix):
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(pictures.read(tmp_path / f"a.{suffix}"), scene())


def png_of(width, height):
    """Returns a PNG that says so much of its size and holds no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def half(suffix, **options):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, suffix, **options)
    return stream.getvalue()[: stream.tell() // 2]


UNREADABLE = {
    "text.jpg": (b"hello, world\n", "it is not one of JPEG, PNG"),
    "page.png": (b"<!DOCTYPE html><html>", "it is not one of JPEG"),
    "empty.jpg": (b"", "the file is empty"),
    "phone.jpg": (b"\0\0\0\x20ftypheic" + b"\0" * 40, "HEIC, which Pillow cannot read: convert it to JPEG"),
    "bomb.png": (png_of(20_000, 20_000), r"more than 100,000,000 pixels \(10,000x10,000\)"),
    "bomb2.png": (png_of(60_000, 60_000), "more than 100,000,000 pixels"),
    "bomb.bmp": (b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0), "pix"),
    "nothing.png": (png_of(100, 100), "not a readable picture"),
    **{f"half.{suffix}": (half(suffix), "") for suffix in ("png", "bmp", "tiff", "webp", "gif", "ppm")},
    "half.jpg": (half("jpeg"), "truncated"),
    "vector.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "it is not one of JPEG"),
}


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_named_once(tmp_path, name):
    content, reason = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^{tmp_path / name}: .*{reason}") as caught:
        pictures.read(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"^upload: .*{reason}"):
        pictures.read(content, name="upload")


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", None)  # calling it would be another error
    (tmp_path / "bomb.png").write_bytes(png_of(11_000, 11_000))
    with pytest.raises(InputError, match="more than 100,000,000 pixels"):
        pictures.read(tmp_path / "bomb.png")


def test_the_tile_of_a_tiff_counts_as_it_is_decoded_whole():
    for side, limit in ((16, 256), (1024, 1024 * 1024)):
        content = bombs.tiff(side)
        assert pictures.read_reduced(content, None, max_pixels=limit).size == (1, 1)
        with pytest.raises(pictures.TooManyPixels, match=f"more than {limit - 1:,} pixels"):
            pictures.read_reduced(content, None, max_pixels=limit - 1)


def test_files_that_are_not_there_or_no_files(tmp_path):
    with pytest.raises(InputError, match=r"a\.png: there is no such file"):
        pictures.read(tmp_path / "a.png")
    with pytest.raises(InputError, match="is a folder"):
        pictures.read(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_huge_picture_is_read_reduced(tmp_path, suffix):
    whole = np.asarray(Image.fromarray(scene(16, 12)).resize((1600, 1200), Image.Resampling.NEAREST))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = written(tmp_path / f"a.{suffix}", whole, exif=exif)
    found = pictures.read_reduced(path, 300)
    assert found.size == (1200, 1600)
    height, width, _ = found.pixels.shape
    assert 300 <= height < 600 and width / height == pytest.approx(3 / 4, rel=0.01)
    small = np.asarray(Image.fromarray(np.rot90(whole, -1)).resize((width, height), Image.Resampling.BOX)).astype(int)
    assert np.abs(found.pixels - small).mean() < 3
    assert pictures.read_reduced(path, 4096).pixels.shape == (1600, 1200, 3)


def test_50_megapixels_are_read(tmp_path):
    Image.new("RGB", (8660, 5774), (10, 200, 30)).save(tmp_path / "a.jpg")
    found = pictures.read_reduced(tmp_path / "a.jpg", 4096)
    assert found.size == (8660, 5774) and found.pixels.shape == (2887, 4330, 3)
    assert np.abs(found.pixels[::100, ::100].astype(int) - [10, 200, 30]).max() <= 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [
        "b.jpg",
        "a.PNG",
        "notes.txt",
        ".hidden.png",
        "sub/c.webp",
        "sub/.d/e.png",
        "sub/f[1].tif",
        "__MACOSX/g.png",
    ]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    return tmp_path


ALL = ["in/a.PNG", "in/b.jpg", "in/sub/c.webp", "in/sub/f[1].tif"]


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["in"], ALL),
        (["in/b.jpg", "in/notes.txt"], ["in/b.jpg", "in/notes.txt"]),
        (["in/sub", "in/b.jpg"], ["in/sub/c.webp", "in/sub/f[1].tif", "in/b.jpg"]),
        (["in/*"], ALL),
        (["in/**"], ALL),
        (["in/**/*.tif", "in/?.jpg"], ["in/sub/f[1].tif", "in/b.jpg"]),
        (["in/sub/f[1].tif"], ["in/sub/f[1].tif"]),
        (["in/sub/.d"], ["in/sub/.d/e.png"]),
        (["-"], ["in/b.jpg", "missing[0].png", "in/sub/c.webp", "in/sub/f[1].tif"]),
        (["@list.txt", "in/a.PNG"], ["in/b.jpg", "missing[0].png", "in/sub/c.webp", "in/sub/f[1].tif", "in/a.PNG"]),
    ],
)
def test_words_mean_files(folder, words, files):
    text = "in/b.jpg\nmissing[0].png\n\nin/sub\n"
    (folder / "list.txt").write_text(text)
    found = [name.replace(os.sep, "/") for name in pictures.find(words, stdin=io.StringIO(text))]
    assert found == files


def test_a_list_may_be_separated_by_nul(folder):
    assert list(pictures.find(["-"], stdin=io.StringIO("in/b.jpg\0in/a\nb.png\0"))) == ["in/b.jpg", "in/a\nb.png"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("in/none.jpg", r"in/none\.jpg: there is no such file or folder"),
        ("in/*.heic", r"in/\*\.heic: no picture matches"),
        ("in/*.txt", r"in/\*\.txt: no picture matches, only in/notes\.txt"),
        ("empty", "empty: no pictures in this folder; pictures end in .jpg"),
        ("@none.txt", r"none\.txt: the list cannot be read"),
        ("@blank.txt", r"blank\.txt is empty"),
        ("-", "the list on stdin is empty"),
    ],
)
def test_words_that_mean_nothing_are_refused_before_the_first_file(folder, word, message):
    (folder / "empty").mkdir()
    (folder / "blank.txt").write_text("\n")
    with pytest.raises(InputError, match=message):
        pictures.find(["in", word], stdin=io.StringIO(""))
