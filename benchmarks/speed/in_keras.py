"""A row in Keras 3 on TensorFlow: Keras's own layers and networks, `fit` and `evaluate` on arrays."""

import importlib.metadata
import os
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

APPLICATIONS = {
    "vgg16": keras.applications.VGG16,
    "resnet50": keras.applications.ResNet50,
    "efficientnetb0": keras.applications.EfficientNetB0,
}
CAFFE_MEAN = (103.939, 116.779, 123.68)  # of ImageNet, in blue, green, red
MOST_BATCHES = 224  # of an epoch: as FER-2013 at batch 128
PROBE_SECONDS = 1.0


def versions() -> dict:
    """Returns the versions of the libraries."""
    return {"keras": keras.__version__, "tensorflow": importlib.metadata.version(_distribution())}


def _distribution():
    return importlib.metadata.packages_distributions()["tensorflow"][0]


def preprocess(x, spec):
    """Converts uint8 faces to float32 [B, S, S, channels], in the range that the network expects."""
    x = keras.ops.cast(x, "float32")
    if spec["size_px"] != x.shape[1]:
        x = layers.Resizing(spec["size_px"], spec["size_px"], interpolation="bilinear")(x)
    if spec["channels"] == 3:
        x = keras.ops.repeat(x, 3, axis=-1)
    if spec["scaling"] == "unit":
        return layers.Rescaling(1 / 255)(x)
    if spec["scaling"] == "caffe":
        return keras.ops.subtract(x[..., ::-1], np.array(CAFFE_MEAN, np.float32))
    return x  # raw, or EfficientNet's own first layers


def stack(x, spec):
    """Adds the layers that fer_jax specifies in text."""
    for layer in spec["layers"]:
        x = keras_layer(layer)(x)
    return x


def keras_layer(layer: dict):
    """Returns the Keras layer for a layer of `fer_jax.models.stack`."""
    kind, activation = layer["kind"], layer["activation"]
    if kind == "conv":
        return layers.Conv2D(layer["size"], layer["kernel"], padding=layer["padding"].lower(), activation=activation)
    if kind == "dense":
        return layers.Dense(layer["size"], activation=activation)
    if kind == "dropout":
        return layers.Dropout(layer["rate"])
    if kind == "leaky_relu":
        return layers.LeakyReLU(layer["rate"])
    if kind in ("max_pool", "avg_pool"):
        return {"max_pool": layers.MaxPooling2D, "avg_pool": layers.AveragePooling2D}[kind](2)
    return {
        "batch_norm": layers.BatchNormalization,
        "relu": layers.ReLU,
        "flatten": layers.Flatten,
        "global_avg_pool": layers.GlobalAveragePooling2D,
    }[kind]()


def build(spec):
    """Returns the uncompiled model of a row: uint8 faces [B, 48, 48, 1] to probabilities [B, K]."""
    faces = keras.Input((48, 48, 1), dtype="uint8")
    x = preprocess(faces, spec)
    if spec["network"] != "cnn":
        base = APPLICATIONS[spec["network"]](include_top=False, weights=None, input_shape=x.shape[1:])
        frozen = set(spec["frozen"])
        for layer in base.layers:
            layer.trainable = layer.name not in frozen
        x = base(x)
    x = stack(x, spec)
    probs = layers.Dense(spec["classes"], activation="softmax", dtype="float32")(x)
    return keras.Model(faces, probs)


def parameters(model) -> dict:
    """Returns the numbers of parameters, statistics included, and of trained ones.

    The constants of Keras's normalization layer (EfficientNet has 7) are not counted: the others have them in the code.
    """
    constants = sum(layer.count_params() for layer in _flat(model) if isinstance(layer, layers.Normalization))
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return {"total": model.count_params() - constants, "trained": trained}


def _flat(model):
    for layer in model.layers:
        yield from _flat(layer) if isinstance(layer, keras.Model) else [layer]


class Stopwatch(keras.callbacks.Callback):
    """Measures the seconds from its creation to the end of the epoch.

    `fit` and `evaluate` return up to seconds later, when a tf.data thread that tunes the input wakes up: TensorFlow
    2.21 waits for it, for 10 ms, 20 ms, 40 ms and so on. That hardly affects long epochs, but would affect short ones.
    """

    def __init__(self):
        super().__init__()
        self._started, self.seconds = time.perf_counter(), 0.0

    def _stop(self, logs=None):
        self.seconds = time.perf_counter() - self._started

    on_train_end = on_test_end = on_predict_end = _stop


class System:
    """The compiled model of a row; jit_compile: of `compile`, 'auto' is its default."""

    def __init__(self, spec, images, labels, *, jit_compile="auto"):
        keras.config.set_dtype_policy("mixed_bfloat16" if spec["dtype"] == "bfloat16" else "float32")
        self._images, self._labels, self._batch = images, labels, spec["batch"]
        self.model = build(spec)
        self.model.compile(
            keras.optimizers.Adam(spec["learning_rate"]),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=jit_compile,
        )
        self._predict, self._predicts_by = None, ""

    def parameters(self) -> dict:
        """Returns the numbers of parameters and of trained ones."""
        return parameters(self.model)

    def _arrays(self, batches):
        """Returns faces and labels for so many batches, repeating them if there are fewer."""
        picked = np.arange(batches * self._batch) % len(self._labels)
        return self._images[picked], self._labels[picked]

    def _in_epochs(self, method, batches) -> float:
        """Calls `fit` or `evaluate` on whole epochs, each at most as long as FER-2013's; returns their seconds."""
        seconds = 0.0
        for first in range(0, batches, MOST_BATCHES):
            arrays = self._arrays(min(MOST_BATCHES, batches - first))
            watch = Stopwatch()
            method(*arrays, batch_size=self._batch, verbose=0, callbacks=[watch])
            seconds += watch.seconds
        return seconds

    def train(self, batches: int) -> float:
        """Fits; returns the seconds."""
        return self._in_epochs(self.model.fit, batches)

    def evaluate(self, batches: int) -> float:
        """Evaluates; returns the seconds."""
        return self._in_epochs(self.model.evaluate, batches)

    def predict(self, batches: int) -> float:
        """Copies the probabilities of batches to the host, by the fastest documented method; returns the seconds."""
        if self._predict is None:
            self._predict = self._fastest_predict()
        return self._predict(batches)

    def _fastest_predict(self):
        def by_function(jit):
            call = tf.function(lambda x: self.model(x, training=False), jit_compile=jit)
            return lambda n: self._one_by_one(lambda x: call(tf.constant(x)).numpy(), n)

        ways = {
            "predict": self._whole,
            "predict_on_batch": lambda n: self._one_by_one(self.model.predict_on_batch, n),
            "function": by_function(False),
            "function, jit_compile": by_function(True),
        }
        speeds = {name: _speed(way) for name, way in ways.items()}
        self._predicts_by = max(speeds, key=speeds.get)
        return ways[self._predicts_by]

    def _whole(self, batches):
        images, watch = self._arrays(batches)[0], Stopwatch()
        self.model.predict(images, batch_size=self._batch, verbose=0, callbacks=[watch])
        return watch.seconds

    def _one_by_one(self, call, batches):
        started = time.perf_counter()
        for number in range(batches):
            start = number * self._batch % len(self._labels)
            call(self._images[start : start + self._batch])
        return time.perf_counter() - started

    def describe(self) -> dict:
        """Returns the choices made."""
        return {"predict_by": self._predicts_by, "jit_compiled": bool(self.model.jit_compile)}


def _speed(way):
    """Returns batches/s."""
    way(1)  # compiles
    batches = max(1, round(PROBE_SECONDS / way(1)))
    return batches / way(batches)
