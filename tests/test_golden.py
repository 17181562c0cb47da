"""A short training gives the scores that another stack of Python and JAX wrote down.

Rewrite them, after a change that is meant to move them: python tests/test_golden.py
"""

import json
import pathlib
import tempfile

import commands

GOLDEN = pathlib.Path(__file__).parent / "golden" / "small_run.json"
FLAGS = (*commands.SMALL, "--config.data.feeder=resident", "--config.train.epochs=2", "--config.log.every_steps=1")
# Stacks round differently, and training amplifies that: by 1e-5 in the first steps, by 1e-3 after two epochs.
FIRST_STEPS = 4
TOLERANCE_FIRST, TOLERANCE_EPOCH = 2e-4, 1e-2


def train(workdir):
    """Returns what a run wrote: its stack, the losses of its first steps, the losses of its epochs."""
    ran = commands.run("main", *FLAGS, f"--workdir={workdir}")
    assert ran.returncode == 0, ran.stderr
    run = json.loads((workdir / "run.json").read_text())
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    return {
        "stack": {"python": run["python"], "device": run["device"], **run["packages"]},
        "first_losses": [record["loss"] for record in records if record["kind"] == "step"][:FIRST_STEPS],
        **{name: [epoch[name] for epoch in epochs] for name in ("train_loss", "validation_loss")},
    }


def test_a_training_gives_the_scores_of_another_stack(tmp_path):
    golden, found = json.loads(GOLDEN.read_text()), train(tmp_path)
    assert golden["stack"]["jax"], "the golden values do not say which stack wrote them"
    for name, tolerance in (
        ("first_losses", TOLERANCE_FIRST),
        ("train_loss", TOLERANCE_EPOCH),
        ("validation_loss", TOLERANCE_EPOCH),
    ):
        for ours, theirs in zip(found[name], golden[name], strict=True):
            assert abs(ours - theirs) < tolerance, f"{name}: {ours}, but {theirs} by {golden['stack']}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(train(pathlib.Path(folder) / "run"), indent=2) + "\n")
