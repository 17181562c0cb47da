"""Searches for hyperparameters: python -m fer_jax.search --config configs/r3_search.py --workdir runs/search/r3.

Bayesian optimization by Optuna over the space that the config declares (`fer_jax/space.py`), or a whole grid, on the
validation split; trials that lag behind are cut off. The study is a journal file that several processes and machines
may share, and the same command goes on with it: finished trials stay, one that was cut off resumes from its checkpoint.
"""

import importlib.util
import logging
import os
import pathlib
import socket

from absl import app, flags
from ml_collections import config_flags

from fer_jax import command, extensions
from fer_jax import config as config_lib
from fer_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config, as FILE or FILE:VARIANT; its section `search` has the space.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the study; each trial's workdir lies in it.")
flags.DEFINE_bool("fields", False, "Print every field of the config, with its default, unit and range.")
_TRIALS = flags.DEFINE_integer("trials", 20, "The search ends when so many trials are finished, by all processes.")
JOURNAL = "journal.log"
FAILURES_IN_A_ROW = 10
logger = logging.getLogger("fer_jax")


class _CutOff(BaseException):
    """An interrupt of a trial, by a name at which Optuna leaves the trial running, to be taken up again."""


def search(config, study_dir, *, trials: int):
    """Runs trials until `trials` of them are finished; returns the optuna.Study.

    Writes search.json (all trials, the best one's fields) and plots into `study_dir`, beside the trials' workdirs.

    Raises:
      InputError: a space that cannot be read, an unknown sampler or pruner, no trials, a study of another config, data
        that cannot be loaded; 10 trials in a row that cannot be trained, or none that can.
    """
    import optuna

    from fer_jax import datasets, report
    from fer_jax import space as space_lib
    from fer_jax import workdir as workdir_lib

    if trials < 1:
        raise InputError(f"--trials is {trials}: give 1 or more")
    parameters, start = space_lib.parse(config.search)
    if not parameters:
        raise InputError("search.space is empty: declare what to search, as configs/r3_search.py does")
    space_lib.check(config, parameters)
    _check_grid(config, parameters)
    workdir_lib.check_folder(study_dir, option="--workdir")
    datasets.load(config.data)  # what no trial could mend is said before there is a study of it
    study_dir = pathlib.Path(study_dir)
    study_dir.mkdir(parents=True, exist_ok=True)
    study = _open(config, parameters, study_dir, optuna)
    if start and not study.get_trials(deepcopy=False):
        study.enqueue_trial(start)
    _revive(study, optuna)
    _optimize(study, trials, config, parameters, study_dir)
    _write(study, config, study_dir, optuna)
    for name, why in report.draw_search(study, study_dir).items():
        logger.info("%s is left out: %s", name, why)
    return study


def _check_grid(config, parameters):
    ranges = [name for name, parameter in parameters.items() if parameter.kind != "choice"]
    if config.search.sampler == "grid" and ranges:
        raise InputError(f"search.sampler 'grid' needs choices, and {', '.join(ranges)} of search.space is a range")


def _open(config, parameters, study_dir, optuna):
    samplers = {
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
        "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
        "grid": lambda seed: optuna.samplers.GridSampler(
            {name: parameter.values for name, parameter in parameters.items()}, seed=seed
        ),
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    }
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_warmup_steps=config.search.warmup_epochs),
        "none": optuna.pruners.NopPruner,
    }
    for name, known in (("sampler", samplers), ("pruner", pruners)):
        if config.search[name] not in known:
            raise InputError(f"search.{name} is '{config.search[name]}'; known are {', '.join(known)}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings of trials are tracebacks of what we say in a line
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(study_dir / JOURNAL)))
    # A process that joins later must not draw what the first one drew.
    earlier = sum(len(storage.get_all_trials(study._study_id, deepcopy=False)) for study in storage.get_all_studies())
    study = optuna.create_study(
        study_name="fer_jax",
        storage=storage,
        direction="minimize" if config.train.monitor.endswith("loss") else "maximize",
        sampler=samplers[config.search.sampler](config.seed + earlier),
        pruner=pruners[config.search.pruner](),
        load_if_exists=True,
    )
    mine = config_lib.to_dict(config)
    sources = extensions.record(mine)
    saved = study.user_attrs.get("config")
    different = config_lib.differences(saved, mine) if saved else []
    different += extensions.differences(study.user_attrs.get("sources", {}), sources)
    if different:
        lines = "\n  ".join(different)
        raise InputError(f"{study_dir} holds a search with another config:\n  {lines}\ngive another --workdir")
    if not saved:
        study.set_user_attr("config", mine)
        study.set_user_attr("sources", sources)
    return study


def _revive(study, optuna):
    """Takes up trials that a process of this machine, or this one before, left off, with the values that they had."""
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if trial.user_attrs.get("host") == socket.gethostname() and not _alive(trial.user_attrs.get("pid", -1)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"goes_on_with": trial.number})
            logger.info("trial %d was cut off: it is taken up again", trial.number)


def _alive(pid):
    """Whether another process may be within its trial; a number as ours is of one that ended, as in a container."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _optimize(study, trials, config, parameters, study_dir):
    """Tries until `trials` are finished. Raises InputError where that leads nowhere."""
    import optuna

    failures = []  # those since a trial was last trained

    def finished():
        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        return len(study.get_trials(deepcopy=False, states=states))

    def objective(trial):
        try:
            return _try(trial, config, parameters, study_dir, optuna)
        except InputError as error:
            logger.warning("trial %d cannot be trained: %s", trial.number, error)
            failures.append(error)
            raise
        except KeyboardInterrupt as interrupt:
            raise _CutOff from interrupt

    def record(_, trial):
        if trial.state != optuna.trial.TrialState.FAIL:
            failures.clear()
        _write(study, config, study_dir, optuna)
        if finished() >= trials or len(failures) >= FAILURES_IN_A_ROW:
            study.stop()

    if finished() >= trials:
        return
    try:
        # A trial that cannot work, as one pool too many, is recorded as failed, and the search goes on.
        study.optimize(objective, callbacks=[record], catch=(InputError,))
    except _CutOff:
        raise KeyboardInterrupt from None
    if len(failures) >= FAILURES_IN_A_ROW or not finished():
        raise InputError(
            f"{study_dir}: {len(failures)} trials in a row cannot be trained; the last: {failures[-1]}\n"
            "mend the config or its search.space, and give another --workdir"
        )


def _try(trial, config, parameters, study_dir, optuna):
    """Trains a trial; returns the best value of the monitor."""
    import jax

    from fer_jax import space as space_lib
    from fer_jax import train

    trial.set_user_attr("host", socket.gethostname())
    trial.set_user_attr("pid", os.getpid())
    values = {name: parameter.suggest(trial) for name, parameter in parameters.items()}
    filled, monitor = space_lib.fill(config, values), config.train.monitor
    workdir = study_dir / f"trial-{config_lib.digest(filled)}"
    trial.set_user_attr("workdir", workdir.name)
    logger.info("trial %d: %s", trial.number, ", ".join(f"{name} {_short(value)}" for name, value in values.items()))

    def on_epoch(epoch, scores):
        trial.report(scores[monitor], epoch)
        if epoch < filled.train.epochs and trial.should_prune():
            raise optuna.TrialPruned

    best = train.train(filled, workdir, on_epoch=on_epoch)
    jax.clear_caches()  # the next trial's programs are others
    trial.set_user_attr("epoch", best["epoch"])
    return best[monitor]


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write(study, config, study_dir, optuna):
    """Writes search.json: the best trial as fields of the config, and all of them."""
    from fer_jax import space as space_lib
    from fer_jax import workdir as workdir_lib

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    best = None
    if complete:
        chosen = study.best_trial
        fields = config_lib.flat(config_lib.to_dict(space_lib.fill(config, chosen.params)))
        given = config_lib.flat(config_lib.to_dict(config))
        best = {
            "number": chosen.number,
            "value": chosen.value,
            "params": chosen.params,
            "workdir": chosen.user_attrs.get("workdir"),
            "fields": {
                name: value for name, value in fields.items() if value != given[name] and not name.startswith("search")
            },
        }
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "params": trial.params,
            "epochs": len(trial.intermediate_values),
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            "workdir": trial.user_attrs.get("workdir"),
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    told = {"monitor": config.train.monitor, "best": best, "trials": trials}
    workdir_lib.write_json(
        study_dir / "search.json", {**told, **workdir_lib.facts(), "config": config_lib.to_dict(config)}
    )


def _main(argv):
    del argv
    command.begin()
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise InputError("give a config and a folder: --config configs/r3_search.py --workdir runs/search/r3")
    if not importlib.util.find_spec("optuna"):
        raise InputError("a search needs Optuna: pip install 'fer-jax[search]'")
    config = _CONFIG.value
    command.keep_compiled(config)
    study = search(config, _WORKDIR.value, trials=_TRIALS.value)
    best = study.best_trial
    print(f"{len(study.trials)} trials; the best one, {best.number}: {config.train.monitor} {best.value:.4f}")
    for name, value in best.params.items():
        print(f"  {name} {value}")
    print(f"all trials: {pathlib.Path(_WORKDIR.value) / 'search.json'}")
    print(f"its run: {pathlib.Path(_WORKDIR.value) / best.user_attrs['workdir']}")


if __name__ == "__main__":
    command.run(lambda: app.run(_main, flags_parser=lambda argv: command.parse_flags(argv, _CONFIG)))
