"""Searches for hyperparameters: python -m fer_jax.search --config configs/r3_search.py --workdir runs/search/r3.

Bayesian optimization by Optuna over the space that the config declares (`fer_jax/space.py`), or a full grid, on the
validation split; weak trials are pruned. The study is a journal file that several processes and machines may share.
Rerun the same command to resume: finished trials are kept, and an interrupted one resumes from its checkpoint.
"""

import gc
import logging
import pathlib
import traceback

from absl import app, flags
from ml_collections import config_flags

from fer_jax import command, wording
from fer_jax import config as config_lib
from fer_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The config: NAME or FILE.py, and perhaps :VARIANT; its section `search` has the space.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the study, which contains the trials' workdirs.")
flags.DEFINE_bool("fields", False, "Print every field of the config, with its default, unit and range.")
_TRIALS = flags.DEFINE_integer("trials", 20, "The search ends when all processes together finished so many trials.")
FAILURES_IN_A_ROW = 10
TRACEBACKS = "tracebacks.log"
logger = logging.getLogger("fer_jax")


def search(config, study_dir, *, trials: int):
    """Runs trials until `trials` of them are finished; returns the optuna.Study.

    Writes search.json (all trials, and the fields of the best one) and plots into `study_dir`, next to the workdirs.

    Raises:
      InputError: an invalid space, an unknown sampler or pruner, no trials, a study of another config or other data,
        data that cannot be loaded; 10 failed trials in a row, or only failed trials.
    """
    from fer_jax import datasets, report
    from fer_jax import study as study_lib
    from fer_jax import workdir as workdir_lib

    if trials < 1:
        raise InputError(f"--trials is {trials}: give 1 or more")
    study = study_lib.Study(config, study_dir)
    workdir_lib.check_folder(study_dir, option="--workdir")
    fingerprint = datasets.load(config.data).fingerprint  # data errors are reported before a study exists
    with study.joined(fingerprint):
        _run_trials(study, trials)
        for name, why in report.draw_search(study.study, study.folder).items():
            logger.info("%s was not drawn: %s", name, why)
        return study.study


def _run_trials(study, trials):
    """Trains until `trials` are finished. Raises InputError if trials keep failing."""
    errors = []  # of the trials since the last success
    while trial := study.next_trial(trials):
        error = _try(study, trial)
        errors = [*errors, error] if error else []
        _write(study)
        if len(errors) == FAILURES_IN_A_ROW:
            break
    _write(study)
    if len(errors) == FAILURES_IN_A_ROW or not study.trials("COMPLETE"):
        failed = [trial.user_attrs["error"] for trial in study.trials("FAIL") if "error" in trial.user_attrs]
        errors = errors or failed
        raise InputError(
            f"{study.folder}: {wording.count(len(errors), 'trial')} in a row failed; the last: {errors[-1]}\n"
            "fix the config or its search.space, and give another --workdir"
        )


def _try(study, trial):
    """Trains a trial and records how it ended; returns why it failed, or ''.

    After an interrupt the trial stays marked as running, to be resumed.
    """
    import jax
    import optuna

    error = ""
    try:
        study.study.tell(trial, _train(study, trial))
    except optuna.TrialPruned:
        logger.info("trial %d is worse than the others: it is pruned", trial.number)
        study.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except InputError as bad_input:
        error = str(bad_input)
    except Exception as fault:  # other trials may still succeed, for instance with less memory
        error = f"{type(fault).__name__}: {fault}".split("\n")[0] + f" (traceback in {study.folder / TRACEBACKS})"
        with (study.folder / TRACEBACKS).open("a") as file:
            file.write(f"trial {trial.number}\n{traceback.format_exc()}\n")
    if error:
        logger.warning("trial %d failed: %s", trial.number, error)
        trial.set_user_attr("error", error)
        study.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    jax.clear_caches()  # the next trial has other programs
    gc.collect()  # and its arrays need the memory
    return error


def _train(study, trial):
    """Trains a trial; returns the best value of the monitor."""
    import optuna

    from fer_jax import space as space_lib
    from fer_jax import train
    from fer_jax import workdir as workdir_lib

    config, monitor = space_lib.fill(study.config, trial.params), study.config.train.monitor
    workdir, reported = study.folder / trial.user_attrs["workdir"], set()
    drawn = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
    logger.info("trial %d: %s; in %s", trial.number, drawn, workdir)

    def report():
        """Reports every epoch, since a resumed run has epochs that another trial reported."""
        for scores in workdir_lib.read_history(workdir):
            if scores["epoch"] not in reported:
                trial.report(scores[monitor], scores["epoch"])
                reported.add(scores["epoch"])

    def on_epoch(epoch, _):
        report()
        if epoch < config.train.epochs and trial.should_prune():
            raise optuna.TrialPruned

    best = train.train(config, workdir, on_epoch=on_epoch)
    report()
    trial.set_user_attr("epoch", best["epoch"])
    return best[monitor]


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write(study):
    """Writes search.json: all trials, and the best one as fields of the config."""
    from fer_jax import workdir as workdir_lib

    with study.lock:  # so that no process overwrites the file with older trials
        trials = [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value,
                "params": trial.params,
                "epochs": len(trial.intermediate_values),
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                "workdir": trial.user_attrs.get("workdir"),
                **({"error": trial.user_attrs["error"]} if "error" in trial.user_attrs else {}),
            }
            for trial in study.trials()
        ]
        summary = {"monitor": study.config.train.monitor, "best": _best(study), "trials": trials}
        workdir_lib.write_json(
            study.folder / "search.json", {**summary, **workdir_lib.facts(), "config": config_lib.to_dict(study.config)}
        )


def _best(study):
    from fer_jax import space as space_lib

    if not study.trials("COMPLETE"):
        return None
    best = study.study.best_trial
    fields = config_lib.flat(config_lib.to_dict(space_lib.fill(study.config, best.params)))
    given = config_lib.flat(config_lib.to_dict(study.config))
    return {
        "number": best.number,
        "value": best.value,
        "params": best.params,
        "workdir": best.user_attrs.get("workdir"),
        "fields": {
            name: value for name, value in fields.items() if value != given[name] and not name.startswith("search")
        },
    }


def _main(argv):
    if len(argv) > 1:
        raise InputError(f"cannot read {' '.join(argv[1:])!r}: flags look like --config.train.epochs=12")
    command.begin()
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise InputError("give a config and a folder: --config r3_search --workdir runs/search/r3")
    config = _CONFIG.value
    command.keep_compiled(config)
    study = search(config, _WORKDIR.value, trials=_TRIALS.value)
    best = study.best_trial
    trials = wording.count(len(study.trials), "trial")
    print(f"{trials}; the best one, {best.number}: {config.train.monitor} {best.value:.4f}")
    for name, value in best.params.items():
        print(f"  {name} {value}")
    print(f"all trials: {pathlib.Path(_WORKDIR.value) / 'search.json'}")
    print(f"its run: {pathlib.Path(_WORKDIR.value) / best.user_attrs['workdir']}")


if __name__ == "__main__":
    command.run(lambda: app.run(_main, flags_parser=lambda argv: command.parse_flags(argv, _CONFIG)))
