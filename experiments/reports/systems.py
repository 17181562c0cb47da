"""The rows of the five reports: the config of each, and the published figures.

R1 to R5 and their figures are those of the project's reference of systems. `published` has accuracies as fractions,
by the split that they were measured on, 'train', 'validation', 'test' or 'kaggle', and 'train_loss',
'validation_loss', 'macro_f1' (test), 'mse'. If a report does not say which of two rows a figure is for, both show it.
`lesson` is one line on a mistake of the report or the meaning of its figure, if our measurement shows it.
"""

import dataclasses
import pathlib
import sys

from fer_jax import config as config_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # for configs that import others
WEIGHTS_FOLDER = "~/.cache/fer_jax/weights"


@dataclasses.dataclass(frozen=True)
class Row:
    """A system of a report.

    config: as for `--config`, empty if the row is not one network; fields: changes to it, or flags of mlp.py; members:
    of an ensemble or an average, names of rows and their numbers of seeds; smoke: special fields of its smoke run;
    kind: 'train', 'mlp', 'ensemble' (of its members' predictions), 'average' (of its members, trained further as one
    network) or 'search', which ends after `trials`.
    """

    report: str
    system: str
    config: str = ""
    published: dict = dataclasses.field(default_factory=dict)
    fields: dict = dataclasses.field(default_factory=dict)
    kind: str = "train"
    members: tuple = ()
    trials: int = 0
    smoke: dict = dataclasses.field(default_factory=dict)
    lesson: str = ""


def _r1(train, train_loss, validation, validation_loss, **test):
    losses = {"train_loss": train_loss, "validation_loss": validation_loss}
    return {"train": train, "validation": validation, **losses, **test}


def _r4(train, validation, test):
    return {"train": train, "validation": validation, "test": test}


# Small batches: batch statistics (momentum 0.99) need some hundred steps before they are usable in evaluation.
TRIED = {"train.epochs": 4, "data.train_faces": 6000, "train.batch_size": 32}
# The widest networks of configs/r3_search.py need 18 times the operations of its start.
NARROW = {
    "search.space": (
        *("filters_1 choice 32 48 64", "filters_2 choice 32 48 64 96"),
        *(f"filters_{i} choice 64 96 128 192" for i in (3, 4)),
        *(f"filters_{i} choice 128 192 256 320" for i in (5, 6)),
        *("units choice 128 256 512", "drop float 0.0 0.5", "drop_dense float 0.2 0.7"),
        *("optim.learning_rate log 3e-4 1e-2", "optim.name choice adam sgd"),
    )
}
# R3's 351,000 images: 12 augmented copies of each of its 28,709 training faces make 344,508.
VIEWS = {
    "augment.flip_horizontal": 0.5,
    "augment.flip_vertical": 0.5,
    "augment.rotate_degrees": 10.0,
    "augment.zoom": 0.1,
    "augment.shear_degrees": 10.0,
    "augment.crop_px": 44,
    "augment.fixed_views": 12,
}

R3_MEMBERS = (("r3_resnet50", 1), ("r3_bayesian", 1), ("r3_vgg16", 1))
R3_MEMBERS_351000 = tuple((f"{name}_351000", seeds) for name, seeds in R3_MEMBERS)
R3_CHOSEN = (
    "our search chose its CNN on PublicTest of the official split; about a tenth of those faces are in this split's "
    "test tenth, so its test accuracy may be too high."
)

R4_VGG16, R4_RESNET101 = _r4(0.637, 0.776, 0.789), _r4(0.924, 0.766, 0.797)
R4_EITHER = "R4 found random weights even better, so its figures may be of this row or of the one with ImageNet's."

REPORTS = {
    "R1": "custom CNNs 1 to 6, official splits",
    "R2": "ResNet50 and VGG16 by transfer learning, imbalanced and rebalanced",
    "R3": "baselines, searched CNN, transfer learning, ensembles; stratified random 80/10/10",
    "R4": "transfer learning in three regimes and a deep CNN, four emotions",
    "R5": "a six-convolution CNN: Adam against SGD, then one change at a time from Adam's row; random 80/10/10",
}
ROWS = {
    "r1_model_1": Row("R1", "CNN 1", "cnn.py:model_1", _r1(0.7877, 0.5726, 0.6353, 1.2657)),
    "r1_model_2": Row(
        "R1",
        "CNN 2: average pooling",
        "cnn.py:model_2",
        _r1(0.8521, 0.3988, 0.6512, 1.3973),
        lesson="without augmentation 50 epochs overfit: the validation loss is lowest in epoch 18 (1.0552) and "
        "1.4685 at the end (experiments/r1_cnns).",
    ),
    "r1_model_2_balanced": Row(
        "R1",
        "CNN 2 with class weights",
        "cnn.py:model_2_balanced",
        lesson="R1 found that class weights do not help, and gives no figure.",
    ),
    "r1_model_2_l2": Row(
        "R1",
        "CNN 2 with L2",
        "cnn.py:model_2_l2",
        lesson="R1 found that L2 does not help, and gives neither figure nor strength: 1e-4 here.",
    ),
    "r1_model_3": Row(
        "R1",
        "CNN 3: filters doubled",
        "cnn.py:model_3",
        _r1(0.9289, 0.2025, 0.6545, 1.9193, test=0.67, macro_f1=0.67),
    ),
    "r1_model_4": Row("R1", "CNN 4: 5x5 kernels", "cnn.py:model_4", _r1(0.8623, 0.3711, 0.6475, 1.5991)),
    "r1_model_5": Row("R1", "CNN 5: one more block", "cnn.py:model_5", _r1(0.9210, 0.2285, 0.6520, 1.8573)),
    "r1_model_6": Row(
        "R1",
        "CNN 6: valid padding",
        "cnn.py:model_6",
        _r1(0.8219, 0.4792, 0.6506, 1.2509, test=0.66, macro_f1=0.65),
    ),
    "r1_efficientnetb0": Row(
        "R1",
        "EfficientNetB0, ImageNet weights",
        "efficientnet.py:r1",
        {"validation": 0.56, "validation_loss": 1.18, "test": 0.51, "macro_f1": 0.42},
    ),
    "r2_resnet50": Row("R2", "ResNet50, 165 layers frozen", "resnet50.py:r2", {"test": 0.532}),
    "r2_resnet50_balanced": Row(
        "R2",
        "ResNet50, 165 layers frozen, rebalanced",
        "resnet50.py:r2_balanced",
        {"test": 0.532},
        lesson="R2 does not say whether 0.532 is of the imbalanced or of the rebalanced set.",
    ),
    "r2_vgg16_no_dropout": Row(
        "R2",
        "VGG16, frozen, batch 32, no dropout",
        "vgg16.py:r2_no_dropout",
        {"train": 0.90},
        lesson="R2 gives 40 to 45% on validation and test.",
    ),
    "r2_vgg16_plain": Row("R2", "VGG16, frozen, batch 32, 30% dropout", "vgg16.py:r2_plain", {"test": 0.42}),
    "r2_vgg16": Row(
        "R2",
        "VGG16, frozen, batch 128, 30% dropout, augmented",
        "vgg16.py:r2",
        {"test": 0.46},
        lesson="augmentation kept R2's GPU waiting for hours an epoch: two cores augment 46,253 faces a second here, "
        "an epoch's 28,709 in 0.6 s (benchmarks/input_speed).",
    ),
    "r2_vgg16_balanced": Row(
        "R2", "VGG16, frozen, batch 128, 30% dropout, augmented, rebalanced", "vgg16.py:r2_balanced"
    ),
    "r2_vggface": Row("R2", "ResNet50 with VGGFace2's weights, 165 layers frozen", "vggface.py"),
    "r2_lite0": Row("R2", "EfficientNet-Lite0, frozen, 96 px", "packaged_weights.py:lite0_r2"),
    "r2_mobilenet_v2": Row("R2", "MobileNetV2, frozen, 96 px", "packaged_weights.py:mobilenet_v2_r2"),
    "r3_mlp_one_hot": Row(
        "R3",
        "MLP 128-64 (scikit-learn), one-hot labels",
        kind="mlp",
        fields={"targets": "one_hot"},
        published={"mse": 0.1439},
        lesson="0.1439 is probably the error of one-hot labels, each decided by itself: ours is 0.1431, and 0.1429 "
        "where the answer is always no. The same network's accuracy is 0.4113, which the measure hides.",
    ),
    "r3_mlp": Row("R3", "the same, labels as classes", kind="mlp"),
    "r3_mlp_flax": Row("R3", "MLP 128-64 (Flax)", "r3_mlp.py"),
    "r3_four_layer": Row("R3", "4-layer CNN", "r3_cnn.py:four_layer", {"validation": 0.5985}, {"train.epochs": 30}),
    "r3_four_layer_augmented": Row(
        "R3", "4-layer CNN, augmented", "r3_cnn.py:four_layer_augmented", {"validation": 0.5985}
    ),
    "r3_seven_layer": Row("R3", "7-layer CNN", "r3_cnn.py:seven_layer", {"validation": 0.6050}, {"train.epochs": 30}),
    "r3_seven_layer_augmented": Row(
        "R3", "7-layer CNN, augmented", "r3_cnn.py:seven_layer_augmented", {"validation": 0.6050}
    ),
    "r3_two": Row(
        "R3",
        "our ensemble: 4-layer and 7-layer CNN",
        kind="ensemble",
        members=(("r3_four_layer", 1), ("r3_seven_layer", 1)),
    ),
    "r3_bayesian": Row("R3", "CNN of R3's search, augmented", "r3_cnn.py:bayesian_augmented", {"validation": 0.635}),
    "r3_searched": Row("R3", "CNN of our search, augmented", "r3_searched.py:augmented", lesson=R3_CHOSEN),
    "r3_search": Row(
        "R3",
        "our search, from the 7-layer CNN on: 20 trials of 4 epochs on 6,000 faces",
        "r3_search.py",
        kind="search",
        trials=20,
        fields=TRIED | NARROW,
        smoke=NARROW,
        lesson="the search gains 6.4 points over its start, 4.9 with two other seeds (0.4753 against 0.4266): a best "
        "trial owes a part of its score to chance, so it is trained again with other seeds",
    ),
    "r3_ten": Row(
        "R3",
        "ensemble of ten 7-layer CNNs",
        kind="ensemble",
        published={"validation": 0.5020},
        members=(("r3_seven_layer", 10),),
    ),
    "r3_inception_v3": Row("R3", "InceptionV3, frozen, augmented", "inception_v3.py", {"validation": 0.3033}),
    "r3_resnet50": Row("R3", "ResNet50, frozen, 224 px", "resnet50.py:r3", {"validation": 0.3250}),
    "r3_vgg16": Row("R3", "VGG16, frozen, 224 px, augmented", "vgg16.py:r3", {"validation": 0.529}),
    "r3_ensemble": Row(
        "R3",
        "ensemble: average of ResNet50, R3's searched CNN and VGG16, trained further",
        "r3_ensemble.py",
        published={"validation": 0.6395},
        kind="average",
        members=R3_MEMBERS,
    ),
    "r3_ensemble_mean": Row(
        "R3", "our ensemble: the same members, mean of probabilities", kind="ensemble", members=R3_MEMBERS
    ),
    "r3_ensemble_trained": Row(
        "R3",
        "average of the 4-layer, 7-layer and searched CNN, trained further",
        "r3_ensemble.py",
        kind="average",
        members=(("r3_four_layer", 1), ("r3_seven_layer", 1), ("r3_searched", 1)),
        lesson=R3_CHOSEN,
    ),
    "r3_bayesian_351000": Row(
        "R3",
        "CNN of R3's search on 12 views a face",
        "r3_cnn.py:bayesian_augmented",
        fields=VIEWS,
    ),
    "r3_resnet50_351000": Row("R3", "ResNet50 on 12 views a face", "resnet50.py:r3", fields=VIEWS),
    "r3_vgg16_351000": Row("R3", "VGG16 on 12 views a face", "vgg16.py:r3", fields=VIEWS),
    "r3_ensemble_351000": Row(
        "R3",
        "the same ensemble on 12 views a face (R3: 351,000 images)",
        "r3_ensemble.py",
        published={"kaggle": 0.69413},
        fields=VIEWS,
        kind="average",
        members=R3_MEMBERS_351000,
        lesson="R3 gives 70 to 71% on its validation data; 0.69413 is Kaggle's score.",
    ),
    "r3_ensemble_351000_mean": Row(
        "R3",
        "our ensemble: the same members on 12 views a face, mean of probabilities",
        kind="ensemble",
        members=R3_MEMBERS_351000,
    ),
    "r4_model_1": Row(
        "R4",
        "CNN 1",
        "r4_cnn.py:model_1",
        _r4(0.654, 0.661, 0.695),
    ),
    "r4_model_2": Row("R4", "CNN 2", "r4_cnn.py:model_2", _r4(0.735, 0.694, 0.688)),
    "r4_vgg16_last_layer": Row("R4", "VGG16, last layer", "vgg16.py:r4_last_layer", _r4(0.538, 0.521, 0.51)),
    "r4_vgg16_frozen": Row("R4", "VGG16, frozen", "vgg16.py:r4_frozen", _r4(0.658, 0.620, 0.625)),
    "r4_vgg16_unfrozen": Row("R4", "VGG16, unfrozen", "vgg16.py:r4_unfrozen", R4_VGG16),
    "r4_vgg16_random": Row("R4", "VGG16, unfrozen, random weights", "vgg16.py:r4_random", R4_VGG16, lesson=R4_EITHER),
    "r4_resnet101_last_layer": Row("R4", "ResNet101, last layer", "resnet101.py:last_layer", _r4(0.306, 0.334, 0.305)),
    "r4_resnet101v2_last_layer": Row(
        "R4", "ResNet101V2, last layer (the report's first version)", "resnet101.py:last_layer_v2"
    ),
    "r4_resnet101_frozen": Row("R4", "ResNet101, frozen", "resnet101.py:frozen", _r4(0.496, 0.335, 0.438)),
    "r4_resnet101_unfrozen": Row("R4", "ResNet101, unfrozen", "resnet101.py:unfrozen", R4_RESNET101),
    "r4_resnet101_random": Row(
        "R4", "ResNet101, unfrozen, random weights", "resnet101.py:random", R4_RESNET101, lesson=R4_EITHER
    ),
    "r4_efficientnetb2_last_layer": Row(
        "R4", "EfficientNetB2, last layer", "efficientnet.py:r4_last_layer", _r4(0.263, 0.244, 0.25)
    ),
    "r4_efficientnetb2_frozen": Row(
        "R4",
        "EfficientNetB2, frozen",
        "efficientnet.py:r4_frozen",
        _r4(0.262, 0.244, 0.25),
        lesson="probably pixels were divided by 255 before a network that does so itself: a frozen Lite0 treated so "
        "gives 0.3759 on validation, in range 0.6665 (experiments/pixel_range).",
    ),
    "r4_efficientnetb2_unfrozen": Row(
        "R4", "EfficientNetB2, unfrozen", "efficientnet.py:r4_unfrozen", _r4(0.774, 0.249, 0.281)
    ),
    "r4_lite0_last_layer": Row(
        "R4", "EfficientNet-Lite0, last layer, 96 px", "packaged_weights.py:lite0_r4_last_layer"
    ),
    "r4_lite0_frozen": Row("R4", "EfficientNet-Lite0, frozen, 96 px", "packaged_weights.py:lite0_r4_frozen"),
    "r4_lite0_unfrozen": Row("R4", "EfficientNet-Lite0, unfrozen, 96 px", "packaged_weights.py:lite0_r4_unfrozen"),
    "r4_mobilenet_v2_last_layer": Row(
        "R4", "MobileNetV2, last layer, 96 px", "packaged_weights.py:mobilenet_v2_r4_last_layer"
    ),
    "r4_mobilenet_v2_frozen": Row("R4", "MobileNetV2, frozen, 96 px", "packaged_weights.py:mobilenet_v2_r4_frozen"),
    "r4_mobilenet_v2_unfrozen": Row(
        "R4", "MobileNetV2, unfrozen, 96 px", "packaged_weights.py:mobilenet_v2_r4_unfrozen"
    ),
    "r4_final": Row("R4", "final CNN, RGB", "r4_cnn.py:final", _r4(0.924, 0.936, 0.933)),
    "r4_final_relu": Row("R4", "final CNN, RGB, a ReLU in its convolutions", "r4_cnn.py:final_relu"),
    "r4_final_grey": Row("R4", "final CNN, grey", "r4_cnn.py:final_grey"),
    "r4_final_plain": Row("R4", "final CNN, RGB, without augmentation", "r4_cnn.py:final_plain"),
    "r4_final_yilmaz_poli": Row(
        "R4", "next step: final CNN with Yilmaz and Poli's initialization", "r4_cnn.py:final_yilmaz_poli"
    ),
    "r4_cfc": Row("R4", "next step: final CNN, a liquid CfC head for its fifth block", "r4_next.py:cfc"),
    "r4_cfc_plain": Row("R4", "its twin within 1% of its parameters: a dense layer", "r4_next.py:cfc_plain"),
    "r4_roi": Row("R4", "next step: dual-channel CNN, face and region found in it", "r4_next.py:roi"),
    "r4_roi_plain": Row("R4", "its twin within 1% of its parameters: the face twice", "r4_next.py:roi_plain"),
    "r5_adam": Row("R5", "Adam 1e-4, batch 64, 30 epochs", "r5_cnn.py:adam", {"test": 0.569}),
    "r5_sgd": Row(
        "R5",
        "SGD, same settings (1e-4, no momentum)",
        "r5_cnn.py:sgd",
        {"test": 0.335},
        lesson="Adam's rate of 1e-4 is too low for SGD without momentum, which gets no further than 0.2672 on "
        "validation in 30 epochs.",
    ),
    "r5_sgd_1e-2": Row("R5", "SGD at 1e-2, Keras's default, no momentum", "r5_cnn.py:sgd_1e-2", {"test": 0.335}),
    "r5_sgd_momentum": Row("R5", "SGD at 1e-4 with momentum 0.9", "r5_cnn.py:sgd_momentum"),
    "r5_sgd_nesterov": Row("R5", "SGD at 1e-2 with Nesterov momentum", "r5_cnn.py:sgd_nesterov"),
    "r5_epochs_50": Row("R5", "50 epochs", "r5_cnn.py:epochs_50"),
    "r5_epochs_75": Row("R5", "75 epochs", "r5_cnn.py:epochs_75", {"test": 0.607}),
    "r5_batch_32": Row("R5", "batch 32", "r5_cnn.py:batch_32"),
    "r5_batch_16": Row("R5", "batch 16", "r5_cnn.py:batch_16", {"test": 0.611}),
    "r5_batch_8": Row("R5", "batch 8", "r5_cnn.py:batch_8"),
    "r5_rate_2e-4": Row("R5", "learning rate 2e-4", "r5_cnn.py:rate_2e-4", {"test": 0.617, "macro_f1": 0.50}),
    "r5_rate_9e-4": Row("R5", "learning rate 9e-4", "r5_cnn.py:rate_9e-4"),
    "r5_rate_1e-3": Row("R5", "learning rate 1e-3", "r5_cnn.py:rate_1e-3"),
    "r5_rate_2e-3": Row("R5", "learning rate 2e-3", "r5_cnn.py:rate_2e-3"),
    "r5_best": Row(
        "R5",
        "its best: batch 16, 60 epochs, learning rate 2e-4",
        "r5_cnn.py:best",
        {"test": 0.617, "macro_f1": 0.50},
    ),
    "r5_best_2e-3": Row(
        "R5",
        "batch 16, 60 epochs, learning rate 2e-3, as R5's summary has it",
        "r5_cnn.py:best_2e-3",
        {"test": 0.617},
    ),
    "r5_dice": Row("R5", "Dice loss", "r5_cnn.py:dice"),
}

# The queue: rows and seeds by value per hour.
_FIRST_SEEDS = (
    *("r4_model_1", "r4_model_2", "r1_model_6", "r1_model_1", "r1_model_3", "r1_model_5"),
    *(
        "r4_final",
        "r4_final_relu",
        "r4_final_grey",
        "r4_final_plain",
        "r3_four_layer_augmented",
        "r3_seven_layer_augmented",
    ),
    *("r4_vgg16_random", "r2_lite0", "r2_mobilenet_v2"),
    *(
        f"r4_{network}_{regime}"
        for network in ("lite0", "mobilenet_v2")
        for regime in ("last_layer", "frozen", "unfrozen")
    ),
    *("r5_best", "r3_searched", "r4_resnet101_random", "r1_model_4"),
    *("r4_cfc", "r4_cfc_plain", "r4_roi", "r4_roi_plain", "r4_final_yilmaz_poli", "r5_epochs_75"),
)
_MORE_SEEDS = tuple((name, seed) for seed in (1, 2) for name in ("r1_model_3", "r1_model_6"))
ORDER = (*((name, 0) for name in _FIRST_SEEDS), *_MORE_SEEDS)
# Seconds of an epoch on two idle cores, of rows that have not begun: rounded from a few measured ones (R1 model 2, R5's
# CNN) by the multiplications of the networks; less is done a second by small batches and by depthwise convolutions.
EPOCH_SECONDS = {
    **dict.fromkeys(("r1_model_1", "r1_model_2", "r1_model_2_balanced", "r1_model_2_l2"), 80.0),
    **{"r1_model_3": 360.0, "r1_model_4": 340.0, "r1_model_5": 130.0, "r1_model_6": 75.0},
    **dict.fromkeys(("r2_lite0", "r2_mobilenet_v2", "r4_lite0_frozen", "r4_mobilenet_v2_frozen"), 5.0),
    **dict.fromkeys(("r4_lite0_last_layer", "r4_mobilenet_v2_last_layer"), 10.0),
    **{"r4_lite0_unfrozen": 320.0, "r4_mobilenet_v2_unfrozen": 250.0},
    **{"r3_mlp_flax": 3.0, "r3_four_layer_augmented": 100.0, "r3_seven_layer_augmented": 190.0},
    **{"r3_searched": 190.0, "r3_bayesian": 310.0, "r3_bayesian_351000": 3700.0, "r3_ensemble_trained": 500.0},
    **{"r4_model_1": 17.0, "r4_model_2": 180.0, "r4_vgg16_random": 570.0, "r4_resnet101_random": 760.0},
    **dict.fromkeys(("r4_final", "r4_final_relu", "r4_final_grey", "r4_final_plain", "r4_final_yilmaz_poli"), 120.0),
    **{"r4_cfc": 130.0, "r4_cfc_plain": 120.0, "r4_roi": 145.0, "r4_roi_plain": 140.0},
    **dict.fromkeys(("r5_sgd_1e-2", "r5_sgd_momentum", "r5_sgd_nesterov", "r5_epochs_50", "r5_epochs_75"), 230.0),
    **dict.fromkeys(("r5_rate_2e-4", "r5_rate_9e-4", "r5_rate_1e-3", "r5_rate_2e-3", "r5_dice"), 230.0),
    **{"r5_batch_32": 250.0, "r5_batch_16": 300.0, "r5_batch_8": 400.0, "r5_best": 300.0, "r5_best_2e-3": 300.0},
}

# Accuracies on PrivateTest, 7 classes, without other faces with emotion labels: (system, accuracy, pretrained weights,
# source).
PUBLISHED_BEST = (
    ("human raters (65 +- 5%) ‡", 0.65, "-", "Goodfellow et al. 2013"),
    ("VGG", 0.727, "none", "Pramerdorfer and Kampel 2016"),
    ("ResNet", 0.724, "none", "Pramerdorfer and Kampel 2016"),
    ("Inception", 0.716, "none", "Pramerdorfer and Kampel 2016"),
    ("ensemble of eight CNNs", 0.752, "none", "Pramerdorfer and Kampel 2016"),
    ("VGG-like, 40x40 crops, ten-crop", 0.7328, "none", "Khaireddin and Chen 2021"),
    ("ImageNet weights, 224x224", 0.7414, "ImageNet", "Pham et al. 2020"),
    ("ensemble", 0.7682, "ImageNet", "Pham et al. 2020"),
)


def get_config(row: Row):
    """Returns the config of a row at full length."""
    config = config_lib.load(ROOT / "configs" / row.config)
    config.update_from_flattened_dict(row.fields)
    return config


def members(row: Row) -> list[tuple[str, int]]:
    """Returns the members of an ensemble: (name of a row, seed)."""
    return [(member, seed) for member, seeds in row.members for seed in range(seeds)]


def weights_of(row: Row):
    """Returns the entry of the pretrained weights that a row starts from, None if it needs none."""
    from fer_jax.pretrained import registry  # needs h5py, which a machine that only trains may lack

    config = get_config(row) if row.config else None
    if config is None or not config.model.weights:
        return None
    return registry.find(config.model.name if config.model.weights == "imagenet" else config.model.weights)


def describe_weights(weights) -> str:
    """Returns, as text, how to get missing weights."""
    if not weights.url:
        return f"needs weights of a Python package ({weights.source})"
    return (
        f"needs weights: one command, with a network: python -m fer_jax.pretrained --fetch {weights.name} "
        f"--to {WEIGHTS_FOLDER}"
    )
