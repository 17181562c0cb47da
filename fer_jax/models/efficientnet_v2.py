"""EfficientNet V2 B2 (Tan and Le 2021), as in Keras."""

import functools

from fer_jax.models.backbone import Row
from fer_jax.models.efficientnet import EfficientNet, Stage, scaled

# Before scaling; B1 and B3 scale the same stages.
STAGES = (
    Stage(repeats=1, kernel=3, strides=1, expand=1, filters=16, squeeze=0, fused=True),
    Stage(repeats=2, kernel=3, strides=2, expand=4, filters=32, squeeze=0, fused=True),
    Stage(repeats=2, kernel=3, strides=2, expand=4, filters=48, squeeze=0, fused=True),
    Stage(repeats=3, kernel=3, strides=2, expand=4, filters=96),
    Stage(repeats=5, kernel=3, strides=1, expand=6, filters=112),
    Stage(repeats=8, kernel=3, strides=2, expand=6, filters=192),
)

MODELS = {
    "efficientnetv2b2": Row(
        functools.partial(
            EfficientNet,
            **scaled(STAGES, width=1.1, depth=1.2),
            momentum=0.9,
            depthwise_suffix="dwconv2",
            # Keras counts the blocks before scaling, so the last rates exceed `drop_connect`.
            drop_blocks=sum(stage.repeats for stage in STAGES),
        ),
        scaling="imagenet",
        native_px=260,
        top="global_avg_pool, dropout 0.2",
    )
}
