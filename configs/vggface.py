"""R2's ResNet50 with weights from faces (VGGFace2, Cao et al. 2018) instead of ImageNet, a next step named by R2.

python -m fer_jax.pretrained --fetch vggface_resnet50
python -m fer_jax.main --config configs/vggface.py --config.data.path=<folder with fer2013.csv>

The regime and the frozen layers are the same. Keras has no layer numbers for this network, so layers are frozen by
name: the first 165 layers end before the last block.
"""

from fer_jax import config as config_lib

resnet50 = config_lib.load_neighbour(__file__, "resnet50")


def get_config():
    """Returns the config."""
    config = resnet50.get_config("r2")
    config.model.update({"name": "vggface_resnet50", "weights": "vggface_resnet50"})
    config.optim.update({"freeze": ("backbone/(?!conv5_block3_).*",), "freeze_first_layers": 0})
    return config
