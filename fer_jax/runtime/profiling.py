"""A profile of chosen training steps, as jax.profiler traces them."""

import logging
import pathlib

from fer_jax import wording

logger = logging.getLogger("fer_jax")


class Profiler:
    """Traces steps of a training once, and logs where the trace is.

    folder: the trace is written below it, in <folder>/plugins/profile/<time>. steps: how many are traced, fewer where
    their epoch ends first; 0: none. from_step: the first one, counted from the start of this process, 2 at least: the
    first step compiles. A chunk of several steps is traced in full or not at all.
    """

    def __init__(self, folder, *, steps: int, from_step: int, steps_per_epoch: int):
        self._folder, self._steps, self._from_step = pathlib.Path(folder), steps, from_step
        self._steps_per_epoch = steps_per_epoch
        self._done = 0  # steps of this process
        self._first = None  # step that is traced first, while a trace runs

    def after(self, chunk, sums) -> None:
        """Begins or ends the trace if that is due after a chunk; only then does it wait for the chunk's sums."""
        if not self._steps:
            return
        self._done += chunk.steps
        epoch_ends = chunk.step % self._steps_per_epoch == 0  # what comes next is validation
        if self._first is None:
            if self._done + 1 >= self._from_step and not epoch_ends:
                self._start(chunk.step + 1, sums)
        elif epoch_ends or chunk.step + 1 - self._first >= self._steps:
            self._stop(chunk.step, sums)

    def _start(self, first, sums):
        import jax

        jax.block_until_ready(sums)  # else the trace would have the end of earlier steps
        try:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
        except (OSError, RuntimeError, ValueError) as error:
            self._give_up(error)
        else:
            self._first = first

    def _stop(self, last, sums):
        import jax

        jax.block_until_ready(sums)
        first, self._first = self._first, None
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError, ValueError) as error:
            self._give_up(error)
            return
        self._steps = 0
        logger.info(
            "profile of %s from step %d on, in %s: open it with xprof (pip install xprof), or its "
            "perfetto_trace.json.gz at ui.perfetto.dev",
            *(wording.count(last - first + 1, "step"), first, self._folder),
        )

    def _give_up(self, error):
        self._steps = 0
        logger.warning("no profile is written: %s", str(error).split("\n", maxsplit=1)[0])

    def close(self) -> None:
        """Ends a trace that still runs, as after an interrupt; warns where none could begin."""
        if self._first is not None:
            import jax

            self._first, self._steps = None, 0
            try:
                jax.profiler.stop_trace()
            except (OSError, RuntimeError, ValueError) as error:
                self._give_up(error)
        elif self._steps and self._done:
            self._give_up(
                f"no chunk of steps after step {self._from_step} of this process began inside an epoch; lower "
                "log.profile_from_step or train.steps_per_dispatch"
            )
