"""The study of a search: a journal of its trials, in a folder that several processes and machines may share.

One lock guards the folder: a process acquires it to draw a trial, so that no two draw the same, and to append to the
journal. Each process also holds its own lock while it searches. A running trial whose process has released its lock was
interrupted, and the next process to draw resumes it. The system releases the locks of a process that ends.
"""

import contextlib
import importlib.util
import itertools
import logging
import pathlib
import random
import time
import uuid

import filelock

from fer_jax import config as config_lib
from fer_jax import extensions, patience, wording
from fer_jax import space as space_lib
from fer_jax.errors import InputError

JOURNAL = "journal.log"
LOCK = ".search.lock"
POLL_SECONDS = 2.0
DRAWS = 10  # attempts of a sampler to find a choice that no process is training
logger = logging.getLogger("fer_jax")


class Study:
    """A study as seen by one process. The constructor checks the config and touches no files.

    Attributes:
      study: the optuna.Study.
      lock: the folder's lock; re-entrant.
      process: the name of this process's lock in the folder.
      first: the number of the first trial since this process joined.

    Raises:
      InputError: an invalid space, an unknown sampler or pruner; Optuna is not installed.
    """

    def __init__(self, config, folder):
        self.config, self.folder = config, pathlib.Path(folder)
        self.parameters, self._start = space_lib.parse(config.search)
        if not self.parameters:
            raise InputError("search.space is empty: declare what to search, as configs/r3_search.py does")
        space_lib.check(config, self.parameters)
        self._sampler, self._pruner = _make_sampler(config, self.parameters), _make_pruner(config.search)
        self.lock = filelock.FileLock(self.folder / LOCK)
        self.process = f".process-{uuid.uuid4().hex[:12]}.lock"

    @contextlib.contextmanager
    def joined(self, fingerprint: str):
        """Opens or creates the study; this process participates within the `with` block.

        fingerprint: of the training data.

        Raises:
          InputError: a study of another config or other data; a folder that cannot be read or written.
        """
        mine = self.folder / self.process
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.lock:
                self._open()
                self._check_same(fingerprint)
                self.first = len(self.trials())
            with filelock.FileLock(mine):
                yield
        except OSError as error:
            raise InputError(f"{self.folder}: the study cannot be read or written ({error})") from error
        finally:
            mine.unlink(missing_ok=True)

    def _open(self):
        optuna = import_optuna()
        path = self.folder / JOURNAL
        _drop_cut_off_line(path)
        try:
            self.study = optuna.create_study(
                study_name="fer_jax",
                storage=optuna.storages.JournalStorage(
                    optuna.storages.journal.JournalFileBackend(str(path), lock_obj=self.lock)
                ),
                direction="maximize" if patience.direction(self.config.train.monitor) > 0 else "minimize",
                sampler=self._sampler,
                pruner=self._pruner,
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is not the journal of a search, or is corrupt: give another --workdir") from error

    def _check_same(self, fingerprint):
        """Compares config, code and data with those that the study was started with, or records them."""
        mine = config_lib.to_dict(self.config)
        sources, saved = extensions.record(mine), self.study.user_attrs
        different = []
        if "config" in saved:
            different += config_lib.differences(saved["config"], mine)
            different += extensions.differences(saved.get("sources", {}), sources)
        if different:
            lines = "\n  ".join(different)
            raise InputError(f"{self.folder} holds a search with another config:\n  {lines}\ngive another --workdir")
        if saved.get("data", fingerprint) != fingerprint:
            raise InputError(
                f"{self.folder} holds a search on other data: fingerprint {saved['data']}, now {fingerprint}\n"
                "restore the data that it started with, or give another --workdir"
            )
        # The config is written last: a study with a config is complete.
        for name, value in (("data", fingerprint), ("sources", sources), ("config", mine)):
            if name not in saved:
                self.study.set_user_attr(name, value)

    def trials(self, *states: str) -> list:
        """Returns the optuna.FrozenTrials, all or those in the given states, such as 'COMPLETE'."""
        return [t for t in self.study.get_trials(deepcopy=False) if not states or t.state.name in states]

    def finished(self) -> int:
        """Returns the number of complete or pruned trials of all processes."""
        return len(self.trials("COMPLETE", "PRUNED"))

    def next_trial(self, wanted: int):
        """Starts a trial: an interrupted one, else `search.start`, else a draw of the sampler.

        wanted: the number of trials to finish, by all processes. While other processes train all that remain, it waits
        for them, since one of their trials may fail or be interrupted.

        Returns:
          an optuna.Trial with its values, whose user attribute `workdir` is its folder's name; None once `wanted` are
          finished or the grid is exhausted.
        """
        waits = False
        while True:
            with self.lock:
                self._end_cut_off()
                running, finished = self.trials("RUNNING"), self.finished()
                if finished >= wanted:
                    return None
                if finished + len(running) < wanted and self._choose():
                    return self._begin()
                if not running:
                    return None
            if not waits:
                logger.info("waiting for other processes, which still train %s", wording.count(len(running), "trial"))
            waits = True
            time.sleep(POLL_SECONDS)

    def _end_cut_off(self):
        for trial in self.trials("RUNNING"):
            if not self._alive(trial.user_attrs.get("process")):
                self.study.tell(trial.number, state=import_optuna().trial.TrialState.FAIL)

    def _alive(self, process):
        if process is None:  # it ended during its draw
            return False
        try:
            with filelock.FileLock(self.folder / process, timeout=0):
                pass
        except filelock.Timeout:
            return True
        (self.folder / process).unlink(missing_ok=True)
        return False

    def _choose(self):
        """Enqueues the values of the next trial if none are enqueued yet; returns whether there are any."""
        if self.trials("WAITING"):
            return True
        complete = [trial for trial in self.trials() if trial.params.keys() == self.parameters.keys()]
        for trial in complete:
            later = (other.params for other in complete if other.number > trial.number)
            if trial.state.name == "FAIL" and "error" not in trial.user_attrs and trial.params not in later:
                logger.info("trial %d was interrupted: it is resumed", trial.number)
                self.study.enqueue_trial(trial.params, user_attrs={"resumes": trial.number})
                return True
        busy = {trial.user_attrs.get("workdir") for trial in self.trials("RUNNING")}
        for values in self._candidates(complete):
            if self._workdir(values) not in busy:
                self.study.enqueue_trial(values)
                return True
        return False

    def _candidates(self, complete):
        start = {} if any(self._start.items() <= trial.params.items() for trial in complete) else self._start
        if self.config.search.sampler != "grid":
            return (self._sample(start) for _ in range(DRAWS))
        # Trials that failed before this process started are retried: a full disk may have space now.
        tried = [t.params for t in complete if t.state.name != "FAIL" or t.number >= self.first]
        points = itertools.product(*(parameter.values for parameter in self.parameters.values()))
        grid = [dict(zip(self.parameters, point, strict=True)) for point in points]
        random.Random(self.config.seed).shuffle(grid)
        grid.sort(key=lambda values: not start.items() <= values.items())
        return (values for values in grid if values not in tried)

    def _sample(self, given):
        """Returns the sampler's choice of the values that are not given; it asks a copy, so no trial is started."""
        copy = import_optuna().create_study(direction=self.study.direction, sampler=self._sampler)
        copy.add_trials(self.trials())
        copy.enqueue_trial(given)
        trial = copy.ask()
        return {name: parameter.suggest(trial) for name, parameter in self.parameters.items()}

    def _begin(self):
        trial = self.study.ask()
        trial.set_user_attr("process", self.process)
        values = {name: parameter.suggest(trial) for name, parameter in self.parameters.items()}
        trial.set_user_attr("workdir", self._workdir(values))
        return trial

    def _workdir(self, values):
        return f"trial-{config_lib.digest(space_lib.fill(self.config, values))}"


def import_optuna():
    """Imports optuna with its logging off. Raises InputError if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise InputError("a search needs Optuna: pip install 'fer-jax[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings are tracebacks of errors that we log in one line
    return optuna


def _make_sampler(config, parameters):
    """Returns the sampler. Its seed is random: processes with the same seed would draw the same trials."""
    samplers, name = import_optuna().samplers, config.search.sampler
    known = {
        "tpe": lambda: samplers.TPESampler(multivariate=True, constant_liar=True),
        "gp": samplers.GPSampler,
        "grid": samplers.RandomSampler,  # it is never asked
        "random": samplers.RandomSampler,
    }
    if name not in known:
        raise InputError(f"search.sampler is '{name}'; known are {', '.join(known)}")
    ranges = [name for name, parameter in parameters.items() if parameter.kind != "choice"]
    if name == "grid" and ranges:
        raise InputError(f"search.sampler 'grid' needs choices, but {', '.join(ranges)} in search.space is a range")
    if name == "gp" and importlib.util.find_spec("torch") is None:
        raise InputError("search.sampler 'gp' needs PyTorch: pip install torch, or use 'tpe'")
    return known[name]()


def _make_pruner(search):
    pruners, warmup = import_optuna().pruners, search.warmup_epochs
    known = {"median": lambda: pruners.MedianPruner(n_warmup_steps=warmup), "none": pruners.NopPruner}
    if search.pruner not in known:
        raise InputError(f"search.pruner is '{search.pruner}'; known are {', '.join(known)}")
    if warmup < 0:
        raise InputError(f"search.warmup_epochs is {warmup}: give 0 or more")
    return known[search.pruner]()


def _drop_cut_off_line(path):
    """Truncates a partial last line, left by a full disk or a crash, so that processes can append again."""
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)
