"""R2's ResNet50 with weights of faces (VGGFace2, Cao et al. 2018) in place of ImageNet's: R2's named next step.

python -m fer_jax.pretrained --fetch vggface_resnet50
python -m fer_jax.main --config configs/vggface.py --config.data.path=<folder with fer2013.csv>

The same regime and the same layers frozen. Keras does not number them for this network, so they are named: its first
165 layers end before the last block.
"""

from configs import resnet50


def get_config():
    """Returns the config."""
    config = resnet50.get_config("r2")
    config.model.update({"name": "vggface_resnet50", "weights": "vggface_resnet50"})
    config.optim.update({"freeze": ("backbone/(?!conv5_block3_).*",), "freeze_first_layers": 0})
    return config
