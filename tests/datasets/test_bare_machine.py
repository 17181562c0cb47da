"""On a machine with JAX, Flax, Optax, Orbax, scikit-learn and Matplotlib alone: training, evaluation, ensemble."""

import json
import subprocess
import sys
import textwrap

import commands
import pytest

from fer_jax.datasets import mosaics, readings, sources

# Hidden by name: whatever is optional, or comes with the packages above by chance.
ABSENT = ("tensorflow", "tensorflow_datasets", "array_record", "keras", "torch", "h5py", "tqdm", "optuna")
HIDE = f"""
    import sys
    from importlib.machinery import PathFinder

    class Hiding(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            return None if name.partition(".")[0] in {ABSENT} else super().find_spec(name, path, target)

    sys.meta_path = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""
PROGRAM = """
    import pathlib
    from fer_jax import config, ensemble, scoring, train

    root, data_path, absent = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    for seed in (0, 1):
        run = config.get_default()
        run.seed = seed
        run.data.update({"path": data_path, "cache_dir": str(root / "cache"), "feeder": "resident"})
        run.augment.flip_horizontal = 0.5
        run.model.layers = "conv 4 relu, max_pool, flatten, dense 8 relu"
        run.train.update({"batch_size": 16, "epochs": 1})
        train.train(run, root / f"seed{seed}")
        scoring.evaluate(root / f"seed{seed}", split="validation")
    ensemble.ensemble([root / "seed0", root / "seed1"], root / "both", split="test")
    print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules} & set(absent)))
"""


@pytest.mark.full
def test_the_resident_path_needs_nothing_that_is_optional(files, rows, tmp_path):
    table = files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()))
    reading = readings.read(sources.find(table))
    mosaics.write(tmp_path / "faces.zip", reading.faces, reading.rows)
    program = textwrap.dedent(HIDE) + textwrap.dedent(PROGRAM)
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(tmp_path / "faces.zip"), *ABSENT],
        cwd=commands.ROOT,
        env=commands.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "loaded:\n"), ran.stderr
    run = json.loads((tmp_path / "seed0" / "run.json").read_text())
    assert run["data_fingerprint"] == readings.fingerprint(reading.faces, reading.classes)
    for path in ("seed0/evaluation-validation", "both/evaluation-test"):
        assert json.loads((tmp_path / f"{path}.json").read_text())["n"] == 21
        assert (tmp_path / f"{path}.html").read_text().startswith("<!")
