"""RGB class folders at 96 px through the commands, in two classes that differ in colour and in nothing else."""

import json

import commands
import jax
import numpy as np
import pytest
from PIL import Image

from fer_jax import config as config_lib
from fer_jax import inference, scoring, submission, train
from fer_jax.errors import InputError

# Both are grey 76 by ITU-R 601, at any brightness: 0.299 R + 0.587 G + 0.114 B.
COLOURS = {"cold": (0, 80, 255), "warm": (255, 0, 0)}
SIZE = 96


def write_faces(root, size, counts=(("train", 24), ("val", 8), ("test", 8))):
    """Writes pictures of smooth random shades: the n-th of both classes have the same shades, in another colour."""
    for split, count in counts:
        for number in range(count):
            rng = np.random.default_rng([len(split), number])
            coarse = Image.fromarray(rng.integers(60, 255, (4, 4), dtype=np.uint8))
            shades = np.asarray(coarse.resize((size, size), Image.Resampling.BILINEAR))[..., None] / 255
            for name, colour in COLOURS.items():
                folder = root / split / name
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.rint(shades * colour).astype(np.uint8)).save(folder / f"{number:02d}.png")
    return root


def decoded(root, split, mode="RGB"):
    """Returns the pictures of a split as Pillow decodes them, class after class."""
    faces = []
    for path in sorted((root / split).glob("*/*.png")):
        with Image.open(path) as picture:
            faces.append(np.asarray(picture.convert(mode)))
    return np.stack(faces)


def flags_of(root):
    return (
        "--config=configs/cnn.py:model_2",
        "--config.model.layers=conv 4 relu, max_pool, avg_pool, avg_pool, avg_pool, flatten",
        "--config.model.scaling=symmetric",
        "--config.model.channels=3",
        f"--config.data.path={root / 'faces'}",
        f"--config.data.cache_dir={root / 'cache'}",
        f"--config.data.size_px={SIZE}",
        "--config.data.channels=3",
        "--config.data.feeder=resident",
        "--config.augment.rotate_degrees=10",
        "--config.augment.contrast=0.1",
        "--config.optim.learning_rate=0.03",
        "--config.train.batch_size=16",
        "--config.train.epochs=10",
        f"--workdir={root / 'run'}",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the faces and a finished run on them."""
    root = tmp_path_factory.mktemp("colour")
    write_faces(root / "faces", SIZE)
    result = commands.run("main", *flags_of(root))
    assert result.returncode == 0, result.stderr
    return root


@pytest.mark.full
def test_colour_alone_is_learnt_and_reaches_the_network_as_pillow_decodes_it(root):
    grey = decoded(root / "faces", "test", "L").astype(int)
    assert np.abs(grey[:8] - grey[8:]).max() <= 1  # without colour nobody could tell the classes apart
    result = commands.run("evaluate", "--workdir", root / "run", "--split", "test")
    assert result.returncode == 0, result.stderr
    assert "test: accuracy 1.0000" in result.stdout
    assert json.loads((root / "run" / "run.json").read_text())["image_shape"] == [SIZE, SIZE, 3]
    model = inference.load(root / "run")
    assert model.image_shape == (SIZE, SIZE, 3)
    assert [leaf.shape for leaf in jax.tree.leaves(model.variables["params"]) if leaf.ndim == 4] == [(3, 3, 3, 4)]
    logits = model.model.apply(model.variables, decoded(root / "faces", "test"), train=False)
    recorded = np.load(root / "run" / "evaluation-test.npz")
    assert recorded["labels"].tolist() == [0] * 8 + [1] * 8
    np.testing.assert_allclose(recorded["probs"], jax.nn.softmax(logits), atol=1e-5)


@pytest.mark.full
def test_other_folders_are_read_in_the_runs_size_and_channels(root, tmp_path):
    write_faces(tmp_path / "small", 32)
    model = inference.load(root / "run")
    eval_data = scoring.load_faces(model, str(tmp_path / "small"))
    assert eval_data.data.image_shape == (SIZE, SIZE, 3)
    _, probs = inference.predict(model, eval_data.splits["test"])
    assert probs.argmax(axis=1).tolist() == [0] * 8 + [1] * 8


@pytest.mark.full
def test_tables_of_grey_faces_are_refused(root, tmp_path):
    pixels = " ".join(["7"] * 2304)
    (tmp_path / "fer2013.csv").write_text(f"emotion,pixels,Usage\n0,{pixels},Training\n")
    (tmp_path / "test.csv").write_text(f"pixels\n{pixels}\n")
    message = "48x48 grey.* trained on .*data.size_px 96 and data.channels 3"
    with pytest.raises(InputError, match=rf"fer2013.csv has fer2013, {message}.* give class folders as --data_path"):
        scoring.load_faces(inference.load(root / "run"), str(tmp_path / "fer2013.csv"))
    with pytest.raises(InputError, match=rf"test.csv has {message}"):
        submission.predict_table(root / "run", tmp_path / "test.csv", tmp_path / "out.csv", format="csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.full
@pytest.mark.parametrize("name", ["cnn", "dual_channel_roi"])
def test_a_grey_network_is_refused_before_the_faces_are_read(root, tmp_path, name):
    config = config_lib.get_default()
    config.model.name = name
    config.data.update({"path": str(root / "faces"), "cache_dir": str(tmp_path / "cache"), "channels": 3})
    with pytest.raises(InputError, match=r"3 channels \(data.channels\) and the model 1 \(model.channels\)"):
        train.train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())
