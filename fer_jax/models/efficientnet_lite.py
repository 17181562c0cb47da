"""EfficientNet-Lite0 (Google 2020): B0 without squeeze-and-excitation and with ReLU6, under Keras's names of B0."""

import dataclasses
import functools

import flax.linen as nn

from fer_jax.models.backbone import Row
from fer_jax.models.efficientnet import B0, EfficientNet

STAGES = tuple(dataclasses.replace(stage, squeeze=0) for stage in B0)

MODELS = {
    "efficientnet_lite0": Row(
        functools.partial(EfficientNet, stages=STAGES, activation=nn.relu6),
        scaling="lite",
        top="global_avg_pool, dropout 0.2",
    )
}
