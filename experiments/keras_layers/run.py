"""Writes fer_jax/models/keras_layers.json: python experiments/keras_layers/run.py (needs Keras, the extra `dev`)."""

import json
import pathlib

TARGET = pathlib.Path(__file__).resolve().parents[2] / "fer_jax" / "models" / "keras_layers.json"
# our name of a network -> Keras's name
MODELS = {
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
    "resnet50v2": "ResNet50V2",
    "resnet101v2": "ResNet101V2",
    "resnet152v2": "ResNet152V2",
    "inception_v3": "InceptionV3",
    "inception_resnet_v2": "InceptionResNetV2",
    "efficientnetb0": "EfficientNetB0",
    "efficientnetb1": "EfficientNetB1",
    "efficientnetb2": "EfficientNetB2",
    "efficientnetb3": "EfficientNetB3",
    "efficientnetv2b2": "EfficientNetV2B2",
    "mobilenet_v2": "MobileNetV2",
}


def layers_of(model):
    """Returns {layer: [class, position in model.layers]} of the layers with weights, in order."""
    return {
        layer.name: [type(layer).__name__, number] for number, layer in enumerate(model.layers) if layer.get_weights()
    }


def build(name):
    """Builds a Keras network by our name of it, with the automatic layer names of a fresh session."""
    import keras

    keras.backend.clear_session()
    return getattr(keras.applications, MODELS[name])(weights=None)


def main():
    """Builds every network and writes the table, one line per model."""
    lines = []
    for name in MODELS:
        print(name, flush=True)
        lines.append(f'"{name}": {json.dumps(layers_of(build(name)))}')
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
