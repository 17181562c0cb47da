"""Every field of a run: its default, its unit and reason, and its range. The only place of any of them."""

import dataclasses
import shlex
import textwrap

from fer_jax.errors import InputError

SEED = "[0, 4294967295]"  # what scikit-learn and Optuna take too


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of the config.

    default: its type is the field's. about: unit and reason. within: a number's interval, as "[0, 1)" or "(0, inf)";
    NaN is in none.
    """

    default: object
    about: str
    within: str = ""

    def allows(self, value) -> bool:
        """Whether a value is in the interval; any value is if there is no interval."""
        if not self.within:
            return True
        low, high = map(float, self.within[1:-1].split(","))
        above = value > low if self.within.startswith("(") else value >= low
        below = value < high if self.within.endswith(")") else value <= high
        return above and below

    @property
    def range(self) -> str:
        """The interval in words, as '0 to under 1'; '' without one."""
        if not self.within:
            return ""
        low, high = self.within[1:-1].split(", ")
        more = self.within.startswith("(")
        if high == "inf":
            return f"more than {low}" if more else f"{low} or more"
        return f"{'more than ' if more else ''}{low} to {'under ' if self.within.endswith(')') else ''}{high}"


FIELDS = {
    "seed": Field(0, "of the initial weights, the order of the faces, augmentation and dropout", SEED),
    "data.name": Field(
        "auto",
        "auto (fer2013 where a path is given, else drawn_faces) | drawn_faces | fer2013 | class_folders",
    ),
    "data.path": Field("", "a file or folder that holds the faces; its layout is found by its content"),
    "data.votes_path": Field("", "FER+ votes (fer2013new.csv), joined row for row; empty: none"),
    "data.labels": Field(
        "fer2013",
        "fer2013 | fer+ (Barsoum et al. 2016: eight classes, by majorities of votes; faces without one are dropped)",
    ),
    "data.drawn_size": Field("full", "full (10,000 faces) | tiny (980, to try things out): of drawn_faces"),
    "data.cache_dir": Field(
        "~/.cache/fer_jax", "where prepared data sets, fetched weights and compiled programs are kept"
    ),
    "data.size_px": Field(
        48, "side that pictures in class folders are resized to; FER-2013 and the drawn faces have 48", "[1, inf)"
    ),
    "data.channels": Field(1, "1 (grey) | 3 (RGB): of class folders; FER-2013 and the drawn faces are grey", "[1, 3]"),
    "data.detector": Field(
        "",
        "auto | blazeface | lbp | ...: crops the best face of each photograph in class folders; empty: they are faces",
    ),
    "data.on_bad_row": Field("stop", "stop | skip: what to do after listing rows that cannot be read"),
    "data.split": Field("official", "official | random (stratified 80/10/10: R3, R5)"),
    "data.split_seed": Field(
        0, "of the random split; apart from `seed`, so that seeds compare on the same test faces", SEED
    ),
    "data.classes": Field((), "a subset of classes by name (R4: happy, sad, neutral, surprise); empty: all"),
    "data.train_faces": Field(0, "use only so many training faces, stratified, for a first look; 0: all", "[0, inf)"),
    "data.drop_shared": Field(False, "leave out training faces whose pictures are in validation or test too"),
    "data.feeder": Field("tfdata", "tfdata (host, tf.data) | resident (all faces on the accelerator, no TensorFlow)"),
    "data.min_class_share": Field(
        0.0, "oversampling: every class fills at least this share of an epoch; 1/classes at most", "[0, 1]"
    ),
    "data.max_class_share": Field(1.0, "undersampling (R2): no class fills more than this share of an epoch", "[0, 1]"),
    "augment.flip_horizontal": Field(0.0, "probability", "[0, 1]"),
    "augment.flip_vertical": Field(0.0, "probability; R3 uses it, though faces are rarely upside down", "[0, 1]"),
    "augment.rotate_degrees": Field(0.0, "uniform in +-this", "[0, inf)"),
    "augment.shift": Field(0.0, "uniform in +-this, as a share of the side, separately for each axis", "[0, 1)"),
    "augment.zoom": Field(0.0, "scale uniform in 1 +-this; over 1 enlarges the face", "[0, 1)"),
    "augment.shear_degrees": Field(0.0, "uniform in +-this", "[0, 90)"),
    "augment.crop_px": Field(0, "a random crop of this side, resized back to the full face; 0: none", "[0, inf)"),
    "augment.brightness": Field(0.0, "added, uniform in +-this share of the full range", "[0, 1)"),
    "augment.contrast": Field(
        0.0, "factor about the mean of the face, over all channels, uniform in 1 +-this", "[0, 1)"
    ),
    "augment.erase": Field(0.0, "probability of one erased rectangle (Zhong et al. 2020, random erasing)", "[0, 1]"),
    "augment.erase_max_share": Field(0.33, "largest erased area as a share of the face", "[0.02, 1]"),
    "augment.fill": Field("edge", "edge | zero: grey of what the transform uncovers"),
    "augment.flip_alternating": Field(
        False,
        "with flip_horizontal 0.5: half of the faces are flipped in the first epoch, the others in the second, and so "
        "on in turn (Jordan 2024)",
    ),
    "augment.mixup_alpha": Field(0.0, "two faces blended by Beta(this, this) (Zhang et al. 2018); 0: none", "[0, inf)"),
    "augment.cutmix_alpha": Field(
        0.0,
        "a rectangle of another face pasted in, of a share by Beta(this, this) (Yun et al. 2019); 0: none; with mixup "
        "each face gets one of the two",
        "[0, inf)",
    ),
    "augment.fixed_views": Field(
        0, "0: new changes at each step | k: every face is changed k times, once for all (R3)", "[0, inf)"
    ),
    "model.name": Field(
        "cnn",
        "cnn | average | dual_channel_roi (the face, and a region that the network finds, enlarged) | "
        "dual_channel_whole (the whole face twice) | a pretrained network: resnet50, ... (fer_jax/models/__init__.py) "
        "| FILE.py:NAME, a network of your own (docs/extending.md), as are loss.name and optim.name",
    ),
    "model.layers": Field(
        "", "of `cnn`, or of each channel up to its maps: layers in text, see fer_jax/models/stack.py"
    ),
    "model.head": Field(
        "global_avg_pool, dropout 0.5", "of all but `cnn`: layers in text | imagenet (a network's own top)"
    ),
    "model.members": Field(
        (), "of `average`: workdirs of trained runs, whose probabilities it averages and trains further"
    ),
    "model.member_models": Field((), "of `average`: its members' sections `model`, which training saves with the run"),
    "model.weights": Field(
        "", "imagenet | a name of `fer_jax.pretrained --list` | path or URL | empty: drawn at random"
    ),
    "model.size_px": Field(0, "side to which the model resizes the faces; 0: unchanged", "[0, inf)"),
    "model.channels": Field(1, "1 (grey) | 3 (RGB, or grey replicated); pretrained networks always have 3", "[1, 3]"),
    "model.scaling": Field(
        "auto", "auto (unit, or what the weights expect) | raw (0..255, R1) | unit | symmetric | ..."
    ),
    "model.init": Field(
        "keras", "keras (each family's own) | glorot_uniform | he_uniform | he_normal | yilmaz_poli: kernels"
    ),
    "model.dtype": Field("float32", "float32 | bfloat16: of the computation; parameters stay float32"),
    "loss.name": Field("cross_entropy", "cross_entropy | focal | dice | FILE.py:NAME: what training minimises"),
    "loss.targets": Field(
        "labels",
        "labels | votes (distributions of the FER+ votes, Barsoum et al. 2016): in training; evaluation takes labels",
    ),
    "loss.focal_gamma": Field(2.0, "of focal (Lin et al. 2017); 0 is cross_entropy", "[0, inf)"),
    "loss.label_smoothing": Field(0.0, "share of the target given to all classes evenly", "[0, 1)"),
    "loss.class_weights": Field(
        "none", "none | balanced (scikit-learn's meaning, R1) | class_balanced (Cui et al. 2019)"
    ),
    "loss.class_balanced_beta": Field(0.999, "of class_balanced; 0: all classes weigh alike", "[0, 1)"),
    "loss.teacher": Field(
        (), "distillation: workdirs of trained runs, or of an ensemble, whose mean answer is learned too; empty: none"
    ),
    "loss.teacher_weight": Field(0.5, "share of the teacher's loss; the rest is that of the targets", "[0, 1]"),
    "loss.teacher_temperature": Field(
        2.0, "divides both logits of the teacher's loss, which is multiplied by its square", "(0, inf)"
    ),
    "loss.l2": Field(0.0, "Keras's kernel_regularizer=L2(this) on every kernel", "[0, inf)"),
    "optim.name": Field("adam", "adam | adamw | lion | muon | schedule_free | sgd | FILE.py:NAME"),
    "optim.args": Field("", 'further numbers of the optimizer, as "b2=0.95, eps=1e-6"'),
    "optim.learning_rate": Field(1e-3, "peak, per step", "(0, inf)"),
    "optim.momentum": Field(0.9, "of sgd, muon and lion (its beta 1)", "[0, 1)"),
    "optim.nesterov": Field(True, "of sgd and muon"),
    "optim.weight_decay": Field(0.0, "decoupled, on kernels only", "[0, inf)"),
    "optim.clip_norm": Field(0.0, "largest global gradient norm; 0: none", "[0, inf)"),
    "optim.sam_radius": Field(
        0.0,
        "sharpness-aware minimisation: gradients are those at the worst point so far away (Foret et al. 2021: 0.05), "
        "at twice the cost; 0: off",
        "[0, inf)",
    ),
    "optim.schedule": Field("constant", "constant | exponential (staircase) | cosine"),
    "optim.decay_rate": Field(0.98, "of exponential: factor every decay_steps", "(0, inf)"),
    "optim.decay_steps": Field(1000, "of exponential", "[1, inf)"),
    "optim.warmup_epochs": Field(0.0, "of cosine: linear from 0 to the peak", "[0, inf)"),
    "optim.freeze": Field(
        (), 'regular expressions of layer paths: ("backbone",), ("backbone/block[12]_.*",), ("conv2d",)'
    ),
    "optim.freeze_first_layers": Field(
        0, "the layers before this number of Keras's `model.layers` (R2: 165 of ResNet50)", "[0, inf)"
    ),
    "optim.frozen_statistics": Field("stored", "stored | updated: what frozen batch normalizations do in training"),
    "optim.fine_tune.after_epochs": Field(
        0, "a second phase, in which more layers are trained: length of the first; 0: there is no second", "[0, inf)"
    ),
    "optim.fine_tune.unfreeze_from": Field("", "Keras name of the first layer that is trained then; empty: all are"),
    "optim.fine_tune.freeze": Field((), 'what stays frozen then: ("backbone/.*_bn",) keeps the batch normalizations'),
    "optim.fine_tune.learning_rate": Field(1e-5, "peak, per step, of the second phase", "(0, inf)"),
    "optim.plateau.patience_epochs": Field(0, "Keras's ReduceLROnPlateau; 0: off", "[0, inf)"),
    "optim.plateau.monitor": Field("validation_loss", "validation_{accuracy,macro_f1,loss}"),
    "optim.plateau.factor": Field(0.1, "by which the rate is multiplied", "[0, 1)"),
    "optim.plateau.min_delta": Field(1e-4, "what counts as better", "[0, inf)"),
    "optim.plateau.cooldown_epochs": Field(0, "after a cut, before epochs are counted again", "[0, inf)"),
    "optim.plateau.min_learning_rate": Field(0.0, "no cut goes below it", "[0, inf)"),
    "train.batch_size": Field(128, "faces, over all devices", "[1, inf)"),
    "train.epochs": Field(50, "over all phases", "[1, inf)"),
    "train.steps_per_dispatch": Field(
        0, "of the resident feeder: steps that run as one program; 0: 25, or 1 on a CPU", "[0, inf)"
    ),
    "train.monitor": Field("validation_accuracy", "chooses the best checkpoint: validation_{accuracy,macro_f1,loss}"),
    "train.early_stopping.monitor": Field(
        "",
        "Keras's EarlyStopping, separately in each phase: validation_{accuracy,macro_f1,loss}; empty: that of "
        "train.monitor",
    ),
    "train.early_stopping.patience_epochs": Field(0, "0: off", "[0, inf)"),
    "train.early_stopping.min_delta": Field(0.0, "what counts as better", "[0, inf)"),
    "train.early_stopping.restore_best": Field(
        True,
        "a phase ends with the variables of the best checkpoint, the best of the run by train.monitor; "
        "Keras restores the best of the phase by early stopping's own metric",
    ),
    "train.checkpoint_every_epochs": Field(1, "the best epoch and the last are always saved", "[1, inf)"),
    "train.checkpoint_every_steps": Field(
        0, "also inside an epoch, at the next line of metrics.jsonl; 0: not", "[0, inf)"
    ),
    "train.cache_features": Field(True, "with a frozen backbone and no changing faces, compute its features once"),
    "train.rematerialize": Field(
        "auto",
        "none | activations | segments: what is computed twice, to need less memory; auto: activations for an "
        "EfficientNet on a CPU, else none",
    ),
    "train.shard_optimizer": Field(
        False, "each device has only a share of the optimizer's arrays (ZeRO-1: less memory)"
    ),
    "train.accumulate_steps": Field(
        1,
        "parts of a batch that are computed one after another and whose gradients are added (less memory); batch "
        "normalization sees a part at a time",
        "[1, inf)",
    ),
    "train.ema_decay": Field(
        0.0,
        "exponential moving average of parameters and statistics, per step, as 0.999; it is validated, chosen and "
        "evaluated in place of the last step's, which are kept and scored too; 0: none",
        "[0, 1)",
    ),
    "train.keep_compiled": Field(True, "keep compiled programs in data.cache_dir, so that the next start loads them"),
    "search.space": Field(
        (), 'of fer_jax.search: "optim.learning_rate log 1e-4 1e-2", "width choice 32 64"; see fer_jax/space.py'
    ),
    "search.start": Field((), 'values of the first trial: "optim.learning_rate 1e-3", "width 32"'),
    "search.sampler": Field(
        "tpe",
        "tpe (tree of Parzen estimators) | gp (Gaussian process) | grid (all combinations of choices) | random",
    ),
    "search.pruner": Field("median", "median | none: whether trials that lag behind the others are stopped early"),
    "search.warmup_epochs": Field(3, "of median: no trial is stopped before", "[0, inf)"),
    "log.every_steps": Field(25, "a line in metrics.jsonl and a step of the progress bar", "[1, inf)"),
    "log.norms": Field(False, "also log the global norms of gradients, parameters and updates"),
    "log.writers": Field(
        (), "tensorboard | wandb | mlflow | trackio, each an extra of the package: what else the metrics are written to"
    ),
    "log.profile_steps": Field(
        0,
        "steps of which a profile is written to <workdir>/profile, fewer where their epoch ends first; 0: none",
        "[0, inf)",
    ),
    "log.profile_from_step": Field(
        10, "the first of them, counted from the start or the resumption; step 1 compiles", "[2, inf)"
    ),
}


def defaults() -> dict:
    """Returns the defaults of all fields, as nested dicts."""
    tree = {}
    for name, field in FIELDS.items():
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = field.default
    return tree


def check(config, section: str = "") -> None:
    """Checks that the numbers of a config, or of one section, are in their ranges.

    Raises:
      InputError: one that does not; the message names the field and its range.
    """
    prefix = f"{section}." if section else ""
    for name, field in FIELDS.items():
        if field.within and name.startswith(prefix):
            value = config
            for part in name.removeprefix(prefix).split("."):
                value = value[part]
            if not field.allows(value):
                raise InputError(f"{name} is {value}: give {field.range} ({field.about})")


def listing() -> str:
    """Returns all fields as text: name and default as on the command line, then unit, reason and range."""
    lines = []
    for name, field in FIELDS.items():
        lines.append(f"--config.{name}={shlex.quote(str(field.default))}")
        about = "; ".join(filter(None, (field.about, field.range)))
        lines.append(textwrap.fill(about, 116, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)
