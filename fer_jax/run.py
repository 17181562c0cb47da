"""From a config to a run: everything checked and built, nothing computed yet."""

import dataclasses
import logging
import pathlib

import jax
import numpy as np

from fer_jax import (
    augment,
    command,
    datasets,
    extensions,
    feeders,
    fields,
    freezing,
    losses,
    metric_writers,
    models,
    optim,
    patience,
    pretrained,
    steps,
    wording,
)
from fer_jax import params as params_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.feeders import sampler as sampler_lib

logger = logging.getLogger("fer_jax")


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that a training needs.

    keys: of `init`, `order`, `augment`, `dropout` and `mixing`. shardings: (batch, replicated). weights: the pretrained
    weights that it starts from, None if it resumes or starts from random ones. teacher: a `distillation.Teacher` or
    None.
    """

    config: object
    data: datasets.FaceData
    sampler: sampler_lib.Sampler
    policy: augment.Policy
    keys: dict
    shardings: tuple
    phases: tuple[freezing.Phase, ...]
    weights: pretrained.Merge | None
    teacher: object = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.sampler.steps_per_epoch

    def steps_of(self, epoch: int, from_step: int = 0) -> tuple[int, int]:
        """Returns (start, stop) of an epoch's steps, epochs counted from 1; start is from_step if that is later."""
        first = (epoch - 1) * self.steps_per_epoch
        return max(first, from_step), first + self.steps_per_epoch

    def saves_after(self, step: int, saved: int) -> bool:
        """Whether a checkpoint is due after a step inside an epoch; saved: the step of the last checkpoint."""
        every, done = self.config.train.checkpoint_every_steps, step % self.steps_per_epoch
        return bool(every and step - saved >= every and done and done % self.config.log.every_steps == 0)

    def may_stop_after(self, chunk) -> bool:
        """Whether a run may stop after a chunk, because the remaining steps then form the same chunks."""
        return chunk.steps == 1 or chunk.step % self.steps_per_epoch % self.config.log.every_steps == 0

    def state_bytes(self) -> int:
        """Returns the size of the largest training state."""
        sizes = [[leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(p.abstract)] for p in self.phases]
        return max(map(sum, sizes))


def build(config, *, resumed: dict | None = None, mark=lambda part: None) -> Run:
    """Builds a run from its config, without computing anything.

    resumed: the content of run.json if the run resumes. mark: of a `timing.Clock`.

    Raises:
      InputError: anything in the config, the data or the pretrained weights that cannot work.
    """
    _check(config)
    shardings = steps.make_shardings()
    mark("devices")
    policy = augment.make(config.augment, config.data.size_px)
    file, provenance = None, (resumed or {}).get("weights") or {}
    if resumed is None and config.model.weights:
        file = _read_weights(config.model, config.data.cache_dir)
        provenance = {"scaling": file.facts.scaling}
    mark("weights")
    data = datasets.load(config.data)
    if config.loss.targets == "votes":
        data = datasets.with_vote_targets(data)
    mark("data")
    keys = make_keys(config.seed)
    if config.augment.fixed_views:
        data, policy = _with_fixed_views(data, policy, keys["augment"], config.augment.fixed_views)
    sampler = sampler_lib.Sampler(
        data.train.labels,
        classes=len(data.classes),
        batch_size=config.train.batch_size,
        key=keys["order"],
        min_class_share=config.data.min_class_share,
        max_class_share=config.data.max_class_share,
    )
    _check_faces(config, data, sampler)
    config = _with_scaling(config, provenance.get("scaling"))
    phases = freezing.make_phases(
        config, len(data.classes), image_shape=data.image_shape, steps_per_epoch=sampler.steps_per_epoch
    )
    mark("model")
    weights = file.merge(phases[0].abstract.variables) if file else None
    mark("weights")
    return Run(config, data, sampler, policy, keys, shardings, phases, weights)


def make_keys(seed: int) -> dict:
    """Returns the random keys of a run, by their names in `Run`."""
    key = jax.random.key(seed)
    keys = dict(zip(("init", "order", "augment", "dropout"), jax.random.split(key, 4), strict=True))
    return {**keys, "mixing": jax.random.fold_in(key, 4)}


def _with_fixed_views(data, policy, key, views):
    """Returns the data with training faces augmented in advance, and a policy without augmentation."""
    train = data.train
    images = augment.fixed_views(policy, train.images, key, views)
    targets = None if train.targets is None else np.tile(train.targets, (views, 1))
    train = datasets.Faces(images, np.tile(train.labels, views), targets=targets)
    return dataclasses.replace(data, train=train), augment.Policy()


def _read_weights(model, cache_dir):
    cache_dir = pathlib.Path(cache_dir).expanduser() / "weights"
    return pretrained.open_file(model.weights, model.name, cache_dir=cache_dir, top=model.head == "imagenet")


def _with_scaling(config, scaling):
    """Returns the config with the scaling that the weights need, if they need one and the config leaves it open."""
    if not scaling or config.model.scaling != "auto":
        return config
    config = config.copy_and_resolve_references()
    config.model.scaling = scaling
    return config


def _check(config):
    fields.check(config)
    train = config.train
    if train.batch_size % jax.device_count():
        raise InputError(
            f"train.batch_size is {train.batch_size}, which {jax.device_count()} devices cannot share evenly: "
            "give a multiple"
        )
    if train.batch_size % (jax.device_count() * train.accumulate_steps):
        raise InputError(
            f"train.batch_size is {train.batch_size}, which {train.accumulate_steps} parts (train.accumulate_steps) on "
            f"{wording.count(jax.device_count(), 'device')} cannot share evenly: give a multiple"
        )
    metric_writers.check(config.log.writers)
    if config.search.space:
        raise InputError(f"this config declares a search: run {command.program('search')} --workdir <folder>")
    models.check_faces(config.model, config.data.channels)
    if not extensions.names_file(config.model.name):
        models.make(config.model, len(facts.CLASSES))
    losses.make_objective(config.loss, [1, 1])
    if config.loss.targets == "votes" and not config.data.votes_path:
        raise InputError("loss.targets is votes: give data.votes_path, FER+'s fer2013new.csv")
    optim.check(config.optim)
    if optim.averages(config.optim) and train.ema_decay:
        raise InputError(f"optim.name {config.optim.name} already averages the parameters: set train.ema_decay to 0")
    if config.data.feeder not in feeders.FEEDERS:
        raise InputError(f"data.feeder is '{config.data.feeder}'; known are {', '.join(feeders.FEEDERS)}")
    for monitor in (train.monitor, train.early_stopping.monitor or train.monitor, config.optim.plateau.monitor):
        patience.direction(monitor)


def _check_faces(config, data, sampler):
    """Rejects training faces of fewer than two classes, or too few to fill a batch."""
    there = np.unique(data.train.labels)
    if len(there) < 2:
        raise InputError(
            f"all {len(data.train):,} training faces are of the class {data.classes[there[0]]}: training needs two "
            "classes at least"
        )
    size, devices = config.train.batch_size, jax.device_count() * config.train.accumulate_steps
    if size > sampler.epoch_faces >= devices:
        raise InputError(
            f"train.batch_size is {size:,}, more than the {sampler.epoch_faces:,} training faces of an epoch: give "
            f"{sampler.epoch_faces // devices * devices:,} or less"
        )


def describe(run: Run) -> None:
    """Logs the data, the network, the protocol and the pretrained weights of a run."""
    config, data = run.config, run.data
    logger.info("data: %s, fingerprint %s", data.name, data.fingerprint)
    for name in facts.SPLITS:
        labels = data.split(name).labels
        counts = np.bincount(labels, minlength=len(data.classes))
        shown = ", ".join(f"{kind} {n:,}" for kind, n in zip(data.classes, counts, strict=True))
        logger.info("  %-10s %12s: %s", name, wording.count(len(labels), "face"), shown)
    for phase in run.phases:
        abstract = phase.abstract
        logger.info(
            "model: %s in epochs %d to %d\n%s",
            *(config.model.name, phase.first_epoch, phase.last_epoch),
            params_lib.overview(abstract.params, abstract.batch_stats, phase.frozen),
        )
    logger.info(
        "training: %s of %s, batch %d, %s feeder, on %d x %s",
        *(wording.count(config.train.epochs, "epoch"), wording.count(run.steps_per_epoch, "step")),
        *(config.train.batch_size, config.data.feeder),
        *(jax.device_count(), jax.devices()[0].device_kind),
    )
    if run.weights:
        logger.info("%s", run.weights.describe())
