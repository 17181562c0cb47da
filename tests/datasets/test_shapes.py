"""Class folders in sizes of their own, grey and RGB: as Pillow decodes them, on both ways to a prepared set."""

import numpy as np
import pytest
from PIL import Image

from fer_jax import datasets
from fer_jax.datasets import class_folders, facts, sources


@pytest.fixture
def own(tmp_path):
    """Class folders `a` and `b` of 12 random RGB pictures each, 20 pixels wide and high."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(12):
            picture = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
            picture.save(tmp_path / "own" / name / f"{i:02d}.png")
    return tmp_path / "own"


@pytest.fixture(params=["tfds", "arrays"])
def way(request, monkeypatch):
    """Both ways to a prepared set: with TFDS, and where it is not installed."""
    if request.param == "arrays":
        monkeypatch.setattr(datasets, "_has_tfds", lambda: False)
    return request.param


def decoded(folder, mode, size):
    """Returns the bytes of every picture as Pillow decodes it, sorted."""
    pictures = []
    for path in folder.glob("*/*.png"):
        with Image.open(path) as opened:
            picture = opened.convert(mode)
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        pictures.append(picture.tobytes())
    return sorted(pictures)


def faces_of(data):
    return sorted(image.tobytes() for split in facts.SPLITS for image in data.split(split).images)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("size", "channels"), [(20, 3), (28, 3), (11, 1), (48, 3), (48, 1)])
def test_pictures_come_as_pillow_decodes_them(size, channels, own, make_data, monkeypatch):
    section = make_data(own, size_px=size, channels=channels)
    expected = decoded(own, "RGB" if channels == 3 else "L", size)
    for _ in range(2):  # read, and taken from what was kept
        data = datasets.load(section)
        assert data.image_shape == (size, size, channels) and data.train.images.dtype == np.uint8
        assert faces_of(data) == expected
        monkeypatch.setattr(class_folders, "read", None)
    resized = [text for text in data.notes if "resized" in text]
    assert resized == ([] if size == 20 else [f"24 of 24 pictures were resized to {size}x{size}."])


def test_each_shape_is_a_prepared_set_of_its_own(way, own, make_data, tmp_path):
    shapes = [(48, 1), (48, 3), (20, 1), (20, 3)]
    loaded = [datasets.load(make_data(own, size_px=size, channels=channels)) for size, channels in shapes]
    assert [data.image_shape for data in loaded] == [(size, size, channels) for size, channels in shapes]
    assert len({data.fingerprint for data in loaded}) == 4
    folder = tmp_path / "cache" / {"tfds": "class_folders", "arrays": "arrays"}[way]
    names = {path.name.removesuffix(".npz").removeprefix("class_folders-") for path in folder.iterdir()}
    # the first is the name that the default had before there were other shapes
    shapes = ("", "48x48x3-", "20x20x1-", "20x20x3-")
    assert names == {f"stop-{shape}{sources.find(own).signature()}" for shape in shapes}


def test_every_kind_of_picture_becomes_rgb(make_data, tmp_path):
    red = Image.new("RGB", (8, 8), (200, 10, 30))
    clear = Image.new("RGBA", (8, 8), (200, 10, 30, 128))
    kinds = [
        (red, (200, 10, 30)),
        (clear, (227, 132, 142)),  # half of it, and half white
        (red.convert("P", palette=Image.Palette.ADAPTIVE, colors=2), (200, 10, 30)),
        (Image.new("L", (8, 8), 90), (90, 90, 90)),
        (Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)), (100, 100, 100)),
        (Image.fromarray(np.full((8, 8), 70, np.float32)), (70, 70, 70)),
    ]
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "own" / split / name
            folder.mkdir(parents=True)
            for number, (picture, _) in enumerate(kinds):
                picture.save(folder / f"{number}.{'tiff' if picture.mode == 'F' else 'png'}")
    data = datasets.load(make_data(tmp_path / "own", size_px=8, channels=3))
    assert data.train.images.shape == (12, 8, 8, 3)
    expected = np.array([colour for _, colour in kinds], np.uint8)
    for first in (0, 6):
        np.testing.assert_array_equal(data.train.images[first : first + 6, 4, 4], expected)
