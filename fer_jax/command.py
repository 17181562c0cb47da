"""What every command does alike: how it begins, its messages, and how it ends."""

import logging
import os
import sys

from fer_jax.errors import InputError
from fer_jax.runtime import compile_cache, interrupts, timing

HUGE_PAGES = "glibc.malloc.hugetlb"


def parse_flags(argv, config_flag) -> list[str]:
    """Parses absl's flags and locks the config; returns what is no flag.

    Raises:
      InputError: whatever is wrong with the flags or the config.
    """
    from absl import flags

    try:
        rest = flags.FLAGS(argv)
        if config_flag.value is not None:
            config_flag.value.lock()  # a config file that could not be read raises here
        return rest
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        text = str(error.args[0] if error.args else error)
        # ml_collections puts a whole traceback into the message of a config file that raises; its last line says why.
        lines = [line.strip() for line in text.replace("Attempted [", "not found [").split("\n") if line.strip()]
        reason = " ".join(lines if "Traceback" not in text else lines[-1:]).removeprefix("fer_jax.errors.InputError: ")
        raise InputError(f"{reason}\nevery field, with its unit and default, stands in fer_jax/config.py") from error


def begin() -> None:
    """Begins a command whose flags are read: its messages, and rare garbage collection while it imports and traces."""
    start_logging()
    timing.collect_rarely()


def keep_compiled(config) -> None:
    """Has JAX keep compiled programs as the config says."""
    if config.train.keep_compiled:
        compile_cache.keep_compiled(config.data.cache_dir)


def start_logging() -> None:
    """Shows the project's messages as they are, on stderr, and of its libraries only warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("fer_jax").setLevel(logging.INFO)
    logging.getLogger("jax").setLevel(logging.ERROR)
    # Orbax logs the traceback of every error that it also raises, and absl is its logger; asyncio's shows those of the
    # other arrays that it was reading at the time.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def ask_for_huge_pages(environ, argv) -> None:
    """Starts the command anew with huge pages for large arrays, on Linux, unless GLIBC_TUNABLES already says.

    XLA:CPU takes its temporary memory from the system at each step and gives it back; in pages of 4 KiB that is a
    quarter of the step of a small CNN (benchmarks/cpu_ops/). glibc reads the setting only when a process begins.
    """
    tunables = environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or HUGE_PAGES in tunables:
        return
    environ = {**environ, "GLIBC_TUNABLES": ":".join(filter(None, [tunables, f"{HUGE_PAGES}=1"]))}
    os.execve(sys.executable, [sys.executable, *argv[1:]], environ)


def run(main) -> None:
    """Runs an entry: exit code 0 when it is done, 2 after bad input, 130 after Ctrl-C, 143 after SIGTERM.

    Each but the first comes with one message.
    """
    if main.__module__ == "__main__":  # and not a function of a program that must not be started anew
        ask_for_huge_pages(os.environ, sys.orig_argv)
    try:
        with interrupts.ended_by_signals():
            main()
    except InputError as error:
        # Threads and coroutines that the error cut off would print tracebacks of their own on the way out.
        sys.unraisablehook = lambda _: None
        sys.exit(_say(f"error: {error}", 2))
    except KeyboardInterrupt as interrupt:
        sys.unraisablehook = lambda _: None
        sys.exit(_say(str(interrupt) or "stopped", getattr(interrupt, "exit_code", 130)))


def _say(text, code):
    print(text, file=sys.stderr)
    return code
