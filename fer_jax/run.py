"""From a config to the parts of its run: checked, built, described and written down, with nothing computed yet."""

import dataclasses
import logging
import pathlib

import jax
import numpy as np

from fer_jax import augment, datasets, feeders, losses, models, ops, patience, phases, pretrained, steps
from fer_jax import config as config_lib
from fer_jax import params as params_lib
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.feeders import sampler

logger = logging.getLogger("fer_jax")


@dataclasses.dataclass
class Parts:
    """What a training is wired from."""

    data: datasets.FaceData
    order: sampler.Order
    policy: augment.Policy
    keys: dict
    shardings: tuple
    phases: tuple[phases.Phase, ...]


def wire(config, lap=lambda part: None) -> Parts:
    """Builds the parts of a run from its config, without computing anything; lap: a `startup.Clock`'s.

    Raises:
      InputError: whatever in the config or the data cannot work.
    """
    train = config.train
    _check(config)
    shardings = steps.make_shardings()
    lap("devices")
    policy = augment.make(config.augment, config.data.size_px)
    data = datasets.load(config.data)
    lap("data")
    keys = dict(
        zip(
            ("init", "order", "augment", "dropout"),
            jax.random.split(jax.random.key(config.seed), 4),
            strict=True,
        )
    )
    if config.augment.fixed_views:
        data, policy = _with_fixed_views(data, policy, keys["augment"], config.augment.fixed_views)
    order = sampler.Order(
        data.train.labels,
        classes=len(data.classes),
        batch_size=train.batch_size,
        key=keys["order"],
        min_class_share=config.data.min_class_share,
        max_class_share=config.data.max_class_share,
    )
    planned = phases.make(
        config, len(data.classes), image_shape=data.image_shape, steps_per_epoch=order.steps_per_epoch
    )
    return Parts(data, order, policy, keys, shardings, planned)


def _with_fixed_views(data, policy, key, views):
    """Returns the data with its training faces changed once for all, and a policy that changes nothing more."""
    train = data.train
    images = augment.fixed_views(policy, train.images, key, views)
    train = datasets.Faces(images, np.tile(train.labels, views))
    return dataclasses.replace(data, train=train), augment.Policy()


def load_weights(config, parts):
    """Returns the pretrained weights that the first phase starts from, None where `model.weights` is empty.

    Raises:
      InputError: a weight file that cannot be had, read or used.
    """
    model = config.model
    if not model.weights:
        return None
    weights = pretrained.load(
        model.weights,
        model.name,
        parts.phases[0].abstract.variables,
        cache_dir=pathlib.Path(config.data.cache_dir).expanduser() / "weights",
        top=model.head == "imagenet",
    )
    logger.info("%s", weights.describe())
    return weights


def settle_scaling(config, parts, scaling: str) -> None:
    """Gives faces the scaling that weights ask for which differ from their network's own, where it is left to us."""
    if scaling and config.model.scaling == "auto":
        config.model.scaling = scaling
        parts.phases = phases.make(
            config,
            len(parts.data.classes),
            image_shape=parts.data.image_shape,
            steps_per_epoch=parts.order.steps_per_epoch,
        )


def _check(config):
    train = config.train
    for name in ("batch_size", "epochs", "checkpoint_every_epochs"):
        if train[name] < 1:
            raise InputError(f"train.{name} is {train[name]}: give 1 or more")
    if config.optim.learning_rate <= 0:
        raise InputError(f"optim.learning_rate is {config.optim.learning_rate}: give more than 0")
    if config.log.every_steps < 1:
        raise InputError(f"log.every_steps is {config.log.every_steps}: give 1 or more")
    if train.batch_size % jax.device_count():
        raise InputError(
            f"train.batch_size is {train.batch_size}, which {jax.device_count()} devices cannot share evenly: "
            "give a multiple"
        )
    if config.search.space:
        raise InputError("this config declares a search: run it with python -m fer_jax.search --workdir <folder>")
    models.check_faces(config.model, config.data.channels)
    losses.make(config.loss)
    losses.class_weights(config.loss, [1, 1])
    if not 0 <= config.loss.label_smoothing < 1:
        raise InputError(f"loss.label_smoothing is {config.loss.label_smoothing}: give 0 to under 1")
    if config.data.feeder not in feeders.FEEDERS:
        raise InputError(f"data.feeder is '{config.data.feeder}'; known are {', '.join(feeders.FEEDERS)}")
    for monitor in (train.monitor, train.early_stopping.monitor or train.monitor, config.optim.plateau.monitor):
        patience.direction(monitor)


def describe(config, parts) -> None:
    """Logs the data, the network and the protocol of a run."""
    data = parts.data
    logger.info("data: %s, fingerprint %s", data.name, data.fingerprint)
    for name in facts.SPLITS:
        labels = data.split(name).labels
        counts = np.bincount(labels, minlength=len(data.classes))
        shown = ", ".join(f"{kind} {n:,}" for kind, n in zip(data.classes, counts, strict=True))
        logger.info("  %-10s %6s faces: %s", name, f"{len(labels):,}", shown)
    for phase in parts.phases:
        abstract = phase.abstract
        logger.info(
            "model: %s in epochs %d to %d\n%s",
            *(config.model.name, phase.first_epoch, phase.last_epoch),
            params_lib.overview(abstract.params, abstract.batch_stats, phase.frozen),
        )
    logger.info(
        "training: %d epochs of %d steps, batch %d, %s feeder, on %d x %s",
        *(config.train.epochs, parts.order.steps_per_epoch, config.train.batch_size, config.data.feeder),
        *(jax.device_count(), jax.devices()[0].device_kind),
    )


def open_workdir(config, workdir, data, weights=None):
    """Writes what the run is into its workdir, or refuses a workdir whose run is another one.

    Raises:
      InputError: the differences to the run that is there, or a workdir that cannot be written.
    """
    workdir = pathlib.Path(workdir)
    mine = config_lib.to_dict(config)
    facts_now = {
        **workdir_lib.facts(),
        "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        "synthetic": data.synthetic,
        "classes": list(data.classes),
        "image_shape": list(data.image_shape),
        "notes": list(data.notes),
        "weights": weights.facts if weights else None,
    }
    if (workdir / "config.json").exists():
        saved = workdir_lib.read_json(workdir / "config.json", what="config", mend="give another --workdir")
        # A field that the saved config does not have yet had its default.
        different = config_lib.differences(config_lib.to_dict(config_lib.from_dict(saved)), mine)
        before = workdir_lib.read_json(workdir / "run.json", what="record of the run", mend="give another --workdir")
        if before["data_fingerprint"] != data.fingerprint:
            different.append(f"the data: {before['data_fingerprint']}, now {data.fingerprint}")
        if before.get("cpu_path", saved["model"].get("cpu_path", True)) != facts_now["cpu_path"] and ops.on_cpu():
            logger.warning("%s began with another %s: results will differ by rounding", workdir, ops.SWITCH)
        if different:
            lines = "\n  ".join(different)
            raise InputError(
                f"{workdir} holds a run with another config:\n  {lines}\n"
                "give these fields their old values to go on with it, or another --workdir for a new run"
            )
        return
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            workdir_lib.write_json(workdir / "run.json", facts_now)
            workdir_lib.write_json(workdir / "config.json", mine)
        except OSError as error:
            raise InputError(f"{workdir} cannot be written ({error}): give another --workdir") from error
