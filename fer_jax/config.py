"""Every field of a run with its unit and its reason: the only place of a default.

A file in `configs/` starts from `get_default()` and changes what its system changes; `--config.section.field=value`
on the command line changes it again. A name that is not here is refused.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import json
import pathlib

from ml_collections import config_dict

from fer_jax.errors import InputError

# Fields that earlier versions had and that a saved config may still hold: they no longer choose anything.
RETIRED = ("model.cpu_path",)
# Fields that say where things lie or how they are shown: they cannot change a result, so a run may be resumed
# with other values.
WHERE_NOT_WHAT = (
    "data.path",
    "data.votes_path",
    "data.cache_dir",
    "train.keep_compiled",
    "train.checkpoint_every_steps",
    "log",
)


def get_default() -> config_dict.ConfigDict:
    """Returns the default run: R1's model 2 on the drawn faces, or on `data.path` where it is given."""
    config = config_dict.ConfigDict()
    config.seed = 0  # of the initial weights, the order of the faces, augmentation and dropout
    config.data = _data()
    config.augment = _augment()
    config.model = _model()
    config.loss = _loss()
    config.optim = _optim()
    config.train = _train()
    config.search = _search()
    config.log = _log()
    config.lock()
    return config


def _data():
    data = config_dict.ConfigDict()
    data.name = "auto"  # auto (fer2013 where a path is given, else drawn_faces) | drawn_faces | fer2013 | class_folders
    data.path = ""  # a file or folder that holds the faces; its layout is found by its content
    data.votes_path = ""  # FER+ votes (fer2013new.csv), joined row for row; empty: none
    data.drawn_size = "full"  # full (10,000 faces) | tiny (980, to try things out): of drawn_faces
    data.cache_dir = "~/.cache/fer_jax"  # where prepared data sets, fetched weights and compiled programs are kept
    data.size_px = 48  # side that pictures in class folders are resized to; FER-2013 and the drawn faces have 48
    data.channels = 1  # 1 (grey) | 3 (RGB): of class folders; FER-2013 and the drawn faces are grey
    data.on_bad_row = "stop"  # stop | skip: what to do after listing rows that cannot be read
    data.split = "official"  # official | random (stratified 80/10/10: R3, R5)
    data.split_seed = 0  # of the random split; apart from `seed`, so that seeds compare on the same test faces
    data.classes = ()  # a subset of classes by name (R4: happy, sad, neutral, surprise); empty: all
    data.train_faces = 0  # use only so many training faces, stratified, for a first look; 0: all
    data.feeder = "tfdata"  # tfdata (host, tf.data) | resident (the whole set on the accelerator, no TensorFlow)
    data.min_class_share = 0.0  # oversampling: every class fills at least this share of an epoch; 1/classes at most
    data.max_class_share = 1.0  # undersampling (R2): no class fills more than this share of an epoch
    return data


def _augment():
    augment = config_dict.ConfigDict()
    augment.flip_horizontal = 0.0  # probability
    augment.flip_vertical = 0.0  # probability; R3 uses it, though faces do not stand on their heads
    augment.rotate_degrees = 0.0  # uniform in +-this
    augment.shift = 0.0  # uniform in +-this, as a share of the side, each axis by itself
    augment.zoom = 0.0  # scale uniform in 1 +-this; over 1 enlarges the face
    augment.shear_degrees = 0.0  # uniform in +-this
    augment.crop_px = 0  # a random crop of this side, resized back to the full face; 0: none
    augment.brightness = 0.0  # added, uniform in +-this share of the full range
    augment.contrast = 0.0  # factor about the mean of the face, over all channels, uniform in 1 +-this
    augment.erase = 0.0  # probability of one erased rectangle (Zhong et al. 2020, random erasing)
    augment.erase_max_share = 0.33  # largest erased area as a share of the face
    augment.fill = "edge"  # edge | zero: grey of what the transform uncovers
    augment.fixed_views = 0  # 0: new changes at each step | k: every face is changed k times, once for all (R3)
    return augment


def _model():
    model = config_dict.ConfigDict()
    model.name = "cnn"  # cnn | average | dual_channel_roi (the face, and a region that the network finds, enlarged) |
    # dual_channel_whole (the whole face twice) | a pretrained network: resnet50, ... (fer_jax/models/__init__.py) |
    # FILE.py:NAME, a network of your own (docs/extending.md), as are loss.name and optim.name
    model.layers = ""  # of `cnn`, or of each channel up to its maps: layers in text, see fer_jax/models/stack.py
    model.head = "global_avg_pool, dropout 0.5"  # of all but `cnn`: layers in text | imagenet (a network's own top)
    model.members = ()  # of `average`: workdirs of trained runs, whose probabilities it averages and trains further
    model.member_models = ()  # of `average`: its members' sections `model`, which training saves with the run
    model.weights = ""  # imagenet | a name of `fer_jax.pretrained --list` | path or URL | empty: drawn at random
    model.size_px = 0  # side to which the model resizes the faces; 0: as they are
    model.channels = 1  # 1 (grey) | 3 (RGB, or grey replicated); pretrained networks always have 3
    model.scaling = "auto"  # auto (unit, or what the weights expect) | raw (0..255, R1) | unit | symmetric | ...
    model.init = "keras"  # keras (each family's own) | glorot_uniform | he_uniform | he_normal | yilmaz_poli: kernels
    model.dtype = "float32"  # float32 | bfloat16: of the computation; parameters stay float32
    return model


def _loss():
    loss = config_dict.ConfigDict()
    loss.name = "cross_entropy"  # cross_entropy | focal | dice | FILE.py:NAME: what training minimises
    loss.focal_gamma = 2.0  # of focal (Lin et al. 2017); 0 is cross_entropy
    loss.label_smoothing = 0.0  # 0..1, share of the target given to all classes evenly
    loss.class_weights = "none"  # none | balanced (scikit-learn's meaning, R1) | class_balanced (Cui et al. 2019)
    loss.class_balanced_beta = 0.999  # of class_balanced, 0 to under 1; 0: all classes weigh alike
    loss.l2 = 0.0  # Keras's kernel_regularizer=L2(this) on every kernel
    return loss


def _optim():
    optim = config_dict.ConfigDict()
    optim.name = "adam"  # adam | sgd (with Nesterov momentum) | FILE.py:NAME
    optim.learning_rate = 1e-3  # peak, per step
    optim.momentum = 0.9  # of sgd
    optim.nesterov = True  # of sgd
    optim.weight_decay = 0.0  # decoupled, on kernels only
    optim.clip_norm = 0.0  # largest global gradient norm; 0: none
    optim.schedule = "constant"  # constant | exponential (staircase) | cosine
    optim.decay_rate = 0.98  # of exponential: factor every decay_steps
    optim.decay_steps = 1000  # of exponential
    optim.warmup_epochs = 0.0  # of cosine: linear from 0 to the peak
    optim.freeze = ()  # regular expressions of layer paths: ("backbone",), ("backbone/block[12]_.*",), ("conv2d",)
    optim.freeze_first_layers = 0  # the layers before this number of Keras's `model.layers` (R2: 165 of ResNet50)
    optim.frozen_statistics = "stored"  # stored | updated: what frozen batch normalizations do in training
    optim.fine_tune = config_dict.ConfigDict()  # a second phase, in which more layers are trained
    optim.fine_tune.after_epochs = 0  # length of the first phase; 0: there is no second
    optim.fine_tune.unfreeze_from = ""  # Keras name of the first layer that is trained then; empty: all are
    optim.fine_tune.freeze = ()  # what is held then too: ("backbone/.*_bn",) keeps the batch normalizations
    optim.fine_tune.learning_rate = 1e-5  # peak, per step, of the second phase
    optim.plateau = config_dict.ConfigDict()  # Keras's ReduceLROnPlateau
    optim.plateau.patience_epochs = 0  # 0: off
    optim.plateau.monitor = "validation_loss"
    optim.plateau.factor = 0.1
    optim.plateau.min_delta = 1e-4
    optim.plateau.cooldown_epochs = 0
    optim.plateau.min_learning_rate = 0.0
    return optim


def _train():
    train = config_dict.ConfigDict()
    train.batch_size = 128  # faces, over all devices
    train.epochs = 50
    train.steps_per_dispatch = 0  # of the resident feeder: steps that run as one program; 0: 25, or 1 on a CPU
    train.monitor = "validation_accuracy"  # chooses the best checkpoint: validation_{accuracy,macro_f1,loss}
    train.early_stopping = config_dict.ConfigDict()  # Keras's EarlyStopping, in each phase by itself
    train.early_stopping.monitor = ""  # validation_{accuracy,macro_f1,loss}; empty: that of train.monitor
    train.early_stopping.patience_epochs = 0  # 0: off
    train.early_stopping.min_delta = 0.0
    train.early_stopping.restore_best = True  # a phase ends with the variables of the best checkpoint, which is that of
    # the whole run by train.monitor; Keras restores the best of the phase by early stopping's own metric
    train.checkpoint_every_epochs = 1
    train.checkpoint_every_steps = 0  # also inside an epoch, at the next line of metrics.jsonl; 0: not
    train.cache_features = True  # with a frozen backbone and no changing faces, compute its features once
    train.rematerialize = "auto"  # none | activations | segments: what is computed twice, to need less memory; auto:
    # activations for an EfficientNet on a CPU, else none
    train.keep_compiled = True  # keep compiled programs in data.cache_dir, so that the next start loads them
    return train


def _search():
    search = config_dict.ConfigDict()
    search.space = ()  # of fer_jax.search: "optim.learning_rate log 1e-4 1e-2", "width choice 32 64"; see there
    search.start = ()  # values of the first trial: "optim.learning_rate 1e-3", "width 32"
    search.sampler = (
        "tpe"  # tpe (tree of Parzen estimators) | gp (Gaussian process) | grid (all combinations of choices) | random
    )
    search.pruner = "median"  # median | none: whether trials that lag behind the others are cut off
    search.warmup_epochs = 3  # of median: no trial is cut off before
    return search


def _log():
    log = config_dict.ConfigDict()
    log.every_steps = 25  # a line in metrics.jsonl and a step of the progress bar
    log.tensorboard = False  # needs the extra `tensorboard`
    return log


def load(name) -> config_dict.ConfigDict:
    """Returns the config of a file, or of one of its variants: "configs/lean.py", "configs/cnn.py:model_2".

    Raises:
      InputError: a file that is not there, that raises or has no `get_config`; a variant that it does not know.
    """
    path, _, variant_name = str(name).partition(":")
    args, get_config = [variant_name] if variant_name else [], getattr(load_module(path), "get_config", None)
    if get_config is None:
        raise InputError(f"{path} has no get_config(): see configs/lean.py for one")
    try:
        inspect.signature(get_config).bind(*args)
    except TypeError:
        mend = f"leave ':{variant_name}' out" if args else "name one, as FILE:VARIANT"
        raise InputError(f"{path} has {'no' if args else 'only'} variants: {mend}") from None
    with _naming(path):
        config = get_config(*args)
        config.lock()
        return config


def load_module(path):
    """Returns the module of a config file. Raises InputError if it is not there, or raises."""
    path = pathlib.Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"{path} not found: give a config as FILE.py or FILE.py:VARIANT")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with _naming(path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _naming(path):
    """Turns what the code of a config file raises into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def to_dict(config) -> dict:
    """Returns the config as nested dicts of JSON values (tuples become lists)."""
    return json.loads(config.to_json())


def from_dict(saved: dict) -> config_dict.ConfigDict:
    """Returns the config that `to_dict` came from.

    Raises:
      InputError: a field that this version does not know, or one of another type.
    """
    config = get_default()
    known = flat(to_dict(config))
    given = {name: value for name, value in flat(saved).items() if name not in RETIRED}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(
            f"the saved config has fields that this version of fer_jax does not know: {', '.join(unknown)}"
        )
    with config.unlocked():
        try:
            config.update_from_flattened_dict(
                {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"the saved config has a field of another type: {error}") from error
    return config


def result_fields(saved: dict, prefix: str = "") -> dict:
    """Returns a saved config without the fields that cannot change a result."""
    kept = {}
    for name, value in saved.items():
        if not (prefix + name).startswith(WHERE_NOT_WHAT):
            kept[name] = result_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else value
    return kept


def differences(old: dict, new: dict) -> list[str]:
    """Returns a line for each field that can change a result and differs: 'optim.learning_rate: 0.001, now 0.01'."""
    old, new = flat(result_fields(old)), flat(result_fields(new))
    return [
        f"{name}: {old.get(name, 'absent')!r}, now {new.get(name, 'absent')!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def digest(config) -> str:
    """Returns 8 hex digits that change with every field that can change a result."""
    fields = result_fields(to_dict(config))
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]


def flat(tree: dict, prefix: str = "") -> dict:
    """Returns the leaves of a nested dict as {'section.field': value}."""
    leaves = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def variant(name: str, known: dict):
    """Returns known[name]. Raises InputError that lists the variants of a config file if the name is not one."""
    if name not in known:
        raise InputError(f"unknown variant '{name}' of this config; known are {', '.join(known)}")
    return known[name]
