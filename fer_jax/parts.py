"""From a config to the parts of its run: checked, built, described and written down, with nothing computed yet."""

import dataclasses
import logging
import pathlib

import jax
import numpy as np

from fer_jax import augment, datasets, models, optim, patience, records, steps
from fer_jax import config as config_lib
from fer_jax import input as input_lib
from fer_jax import params as params_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.input import order as order_lib

CLASS_WEIGHTS = ("none", "balanced")
logger = logging.getLogger("fer_jax")


@dataclasses.dataclass
class Parts:
    """What a training is wired from."""

    data: datasets.FaceData
    model: object
    order: order_lib.Order
    policy: augment.Policy
    keys: dict
    shardings: tuple
    tx: object
    lr_fn: object
    abstract: steps.TrainState


def wire(config) -> Parts:
    """Builds the parts of a run from its config, without computing anything.

    Raises:
      InputError: whatever in the config or the data cannot work.
    """
    train = config.train
    _check(config)
    shardings = steps.make_shardings()
    policy = augment.make(config.augment, facts.IMAGE_SIZE_PX)
    data = datasets.load(config.data)
    model = models.make(config.model, len(data.classes))
    keys = dict(
        zip(
            ("init", "order", "augment", "dropout"),
            jax.random.split(jax.random.key(config.seed), 4),
            strict=True,
        )
    )
    order = order_lib.Order(
        data.train.labels,
        classes=len(data.classes),
        batch_size=train.batch_size,
        key=keys["order"],
        min_class_share=config.data.min_class_share,
        max_class_share=config.data.max_class_share,
    )
    tx, lr_fn = optim.make(config.optim, steps_per_epoch=order.steps_per_epoch, epochs=train.epochs)
    abstract = steps.abstract_state(model, tx, facts.IMAGE_SHAPE, shardings[1])
    return Parts(data, model, order, policy, keys, shardings, tx, lr_fn, abstract)


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
    if config.loss.class_weights not in CLASS_WEIGHTS:
        raise InputError(f"loss.class_weights is '{config.loss.class_weights}'; known are {', '.join(CLASS_WEIGHTS)}")
    if not 0 <= config.loss.label_smoothing < 1:
        raise InputError(f"loss.label_smoothing is {config.loss.label_smoothing}: give 0 to under 1")
    if config.data.feeder not in input_lib.FEEDERS:
        raise InputError(f"data.feeder is '{config.data.feeder}'; known are {', '.join(input_lib.FEEDERS)}")
    for monitor in (train.monitor, config.optim.plateau.monitor):
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
    logger.info(
        "model: %s\n%s",
        config.model.name,
        params_lib.overview(parts.abstract.params, parts.abstract.batch_stats),
    )
    logger.info(
        "training: %d epochs of %d steps, batch %d, %s feeder, on %d x %s",
        *(config.train.epochs, parts.order.steps_per_epoch, config.train.batch_size, config.data.feeder),
        *(jax.device_count(), jax.devices()[0].device_kind),
    )


def open_workdir(config, workdir, data):
    """Writes what the run is into its workdir, or refuses a workdir whose run is another one.

    Raises:
      InputError: the differences to the run that is there, or a workdir that cannot be written.
    """
    workdir = pathlib.Path(workdir)
    mine = config_lib.to_dict(config)
    facts_now = {
        **records.facts(),
        "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        "synthetic": data.synthetic,
        "classes": list(data.classes),
        "notes": list(data.notes),
    }
    if (workdir / "config.json").exists():
        saved = records.read_json(workdir / "config.json", what="config", mend="give another --workdir")
        different = config_lib.differences(saved, mine)
        before = records.read_json(workdir / "run.json", what="record of the run", mend="give another --workdir")
        if before["data_fingerprint"] != data.fingerprint:
            different.append(f"the data: {before['data_fingerprint']}, now {data.fingerprint}")
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
            records.write_json(workdir / "run.json", facts_now)
            records.write_json(workdir / "config.json", mine)
        except OSError as error:
            raise InputError(f"{workdir} cannot be written ({error}): give another --workdir") from error
