"""R1's model 2 in Keras, with the same recipe, as a reference for our curve.

python experiments/r1_cnns/keras_reference.py --data_path <fer2013.csv> --epochs 13

Writes one line per epoch to model_2-keras-seed_<n>-history.jsonl next to this file. Needs Keras, the extra `dev`.
"""

import argparse
import csv
import json
import pathlib

import keras
import numpy as np
from keras import layers

HERE = pathlib.Path(__file__).resolve().parent
POOLS = (layers.MaxPooling2D, layers.AveragePooling2D, layers.AveragePooling2D)


def read(path, usage):
    """Returns (faces [N, 48, 48, 1] float32, labels [N]) of one split of the CSV."""
    with open(path) as file:
        rows = [row for row in csv.DictReader(file) if row["Usage"] == usage]
    faces = np.stack([np.array(row["pixels"].split(), np.uint8) for row in rows])
    return faces.reshape(-1, 48, 48, 1).astype(np.float32), np.array([int(row["emotion"]) for row in rows])


def build():
    """Builds and compiles the network."""
    model = keras.Sequential([keras.Input((48, 48, 1))])
    for filters, pool in zip((32, 64, 128), POOLS, strict=True):
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        model.add(pool(2))
        model.add(layers.Dropout(0.25))
    head = (layers.Flatten(), layers.Dense(256, activation="relu"), layers.Dropout(0.5))
    for layer in (*head, layers.Dense(7, activation="softmax")):
        model.add(layer)
    rate = keras.optimizers.schedules.ExponentialDecay(1e-3, 1000, 0.98, staircase=True)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    """Trains, and writes one line per epoch."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", required=True, help="fer2013.csv")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    with (HERE / f"model_2-keras-seed_{options.seed}-history.jsonl").open("w") as file:

        def write(epoch, scores):
            line = {"epoch": epoch + 1, "seed": options.seed, **{name: float(value) for name, value in scores.items()}}
            file.write(json.dumps(line) + "\n")
            file.flush()

        build().fit(
            *read(options.data_path, "Training"),
            batch_size=128,
            epochs=options.epochs,
            validation_data=read(options.data_path, "PublicTest"),
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=write)],
        )


if __name__ == "__main__":
    main()
