"""R1's model 2 in Keras on TensorFlow: prints the time at the end of its first batch, then exits.

python benchmarks/startup/keras_reference.py FACES.npz

The faces are arrays (`images` uint8 [N, 48, 48, 1], `labels` [N]) prepared by run.py, so that Keras reads no CSV.
"""

import os
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers


def build():
    """Returns the compiled model: the layers, the loss and the optimizer of configs/cnn.py:model_2."""
    model = keras.Sequential([keras.Input((48, 48, 1))])
    for filters, pool in ((32, layers.MaxPooling2D), (64, layers.AveragePooling2D), (128, layers.AveragePooling2D)):
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        model.add(pool(2))
        model.add(layers.Dropout(0.25))
    model.add(layers.Flatten())
    model.add(layers.Dense(256, activation="relu"))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(7, activation="softmax"))
    rate = keras.optimizers.schedules.ExponentialDecay(1e-3, decay_steps=1000, decay_rate=0.98, staircase=True)
    model.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class FirstBatch(keras.callbacks.Callback):
    """Prints when the first batch has ended, and exits."""

    def on_train_batch_end(self, batch, logs=None):
        """See Keras."""
        print(f"first batch ended at {time.time():.3f}, loss {logs['loss']:.3f}", flush=True)
        os._exit(0)


def main():
    """Reads the faces, builds the model, and fits it."""
    keras.utils.set_random_seed(0)
    faces = np.load(sys.argv[1])
    build().fit(faces["images"], faces["labels"], batch_size=128, shuffle=True, callbacks=[FirstBatch()], verbose=0)


if __name__ == "__main__":
    main()
