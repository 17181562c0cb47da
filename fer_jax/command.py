"""The parts that all commands share: flags, logging, error messages and exit codes."""

import difflib
import logging
import os
import pathlib
import re
import sys
import threading
import warnings

from fer_jax import config as config_lib
from fer_jax import fields, files
from fer_jax.errors import InputError, tells_full_disk
from fer_jax.runtime import compile_cache, interrupts, timing

HUGE_PAGES = "glibc.malloc.hugetlb"
EXAMPLE = "cnn:model_2"
CLOSED_STDOUT_CODE = 141  # as a shell reports it: 128 + SIGPIPE
shell_name = None  # `fer-jax` if the command was started by it
FIELDS_HINT = "--fields prints every field, with its default, unit and range"


def parse_flags(argv, config_flag) -> list[str]:
    """Parses absl's flags and loads the config, locked; returns the other arguments.

    `--help` and `--fields` print their text and end the command.

    Raises:
      InputError: anything wrong with the flags or the config.
    """
    from absl import flags

    _check_fields(argv, config_flag.name)
    # ml_collections' own parser hides why a file failed to load.
    flags.FLAGS[config_flag.name].parser.parse = config_lib.load
    try:
        rest = flags.FLAGS(argv)
    except SystemExit:  # absl's --help exits with 1
        sys.exit(0)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error.__context__, InputError):
            raise error.__context__ from None
        text = " ".join(str(error.args[0] if error.args else error).split())
        raise InputError(f"{text}\n{FIELDS_HINT}") from error
    if flags.FLAGS.fields:
        print(fields.listing())
        sys.exit(0)
    return rest


def add_explain_option(parser) -> None:
    """Adds --explain, for the commands that write a report."""
    parser.add_argument(
        "--explain",
        choices=("auto", "grad_cam", "occlusion", "none"),
        default="auto",
        help="heat maps below the report's mistakes; auto: grad_cam, or occlusion if a network has no fine map; "
        "default: %(default)s",
    )


def _check_fields(argv, flag):
    """Rejects fields on the command line that do not exist, or are given without a config."""
    given = [match[1] for word in argv if (match := re.match(rf"--?(?:no)?{flag}\.([^=]*)", word))]
    for name in given:
        if name not in fields.FIELDS:
            near = difflib.get_close_matches(name, fields.FIELDS, 1)
            hint = f"did you mean {near[0]}?" if near else FIELDS_HINT
            raise InputError(f"the config has no field '{name}': {hint}")
    if given and not any(re.match(rf"--?{flag}(=|$)", word) for word in argv):
        raise InputError(f"--{flag}.{given[0]} changes a config: give one first, for instance --{flag} {EXAMPLE}")


def program(name: str) -> str:
    """Returns how the user called a command, for its usage and messages."""
    return f"{shell_name} {name}" if shell_name else f"python -m fer_jax.{name}"


def begin() -> None:
    """Starts a command after its flags: sets up logging, and rare garbage collection while it imports and traces."""
    start_logging()
    timing.collect_rarely()


def keep_compiled(config) -> None:
    """Makes JAX cache compiled programs, as set in the config."""
    if config.train.keep_compiled:
        compile_cache.keep_compiled(config.data.cache_dir)


def start_logging() -> None:
    """Logs the project's messages to stderr, and only warnings of its libraries."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("fer_jax").setLevel(logging.INFO)
    logging.getLogger("jax").setLevel(logging.ERROR)
    # Pillow warns about pictures that the project either reads anyway or rejects with its own message.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Orbax logs, through absl, the traceback of every error that it also raises; asyncio logs those of the other arrays
    # that were being read at the time.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def ask_for_huge_pages(environ, argv) -> None:
    """Restarts the command with huge pages for large arrays, on Linux, unless GLIBC_TUNABLES already sets them.

    XLA:CPU allocates its temporary memory from the system at each step and frees it; in pages of 4 KiB that takes a
    quarter of the step of a small CNN (benchmarks/cpu_ops/). glibc reads the setting only when a process starts.
    """
    tunables = environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or HUGE_PAGES in tunables:
        return
    environ = {**environ, "GLIBC_TUNABLES": ":".join(filter(None, [tunables, f"{HUGE_PAGES}=1"]))}
    os.execve(sys.executable, [sys.executable, *argv[1:]], environ)


def run(main) -> None:
    """Runs an entry point: exit code 0 when it is done, 2 after bad input, 130 after Ctrl-C, 143 after SIGTERM.

    These print one message, except for 0. If the reader of stdout ends first, as `head` does, the code is 141.
    """
    if main.__module__ == "__main__":  # not a function of another program, which must not be restarted
        ask_for_huge_pages(os.environ, sys.orig_argv)
    _hide_lost_exceptions()
    try:
        with interrupts.ended_by_signals():
            main()
    except InputError as error:
        # Threads and coroutines interrupted by the error would print their own tracebacks at exit.
        sys.unraisablehook = lambda _: None
        sys.exit(_say(f"error: {error}", 2))
    except BrokenPipeError:
        sys.exit(CLOSED_STDOUT_CODE)
    except OSError as error:
        if not tells_full_disk(error):
            raise
        place = f" for {error.filename}" if error.filename else ""
        sys.exit(_say(f"error: no space left on the disk{place}: make room and rerun the same command", 2))
    except KeyboardInterrupt as interrupt:
        sys.unraisablehook = lambda _: None
        sys.exit(_say(str(interrupt) or "stopped", getattr(interrupt, "exit_code", 130)))
    finally:
        files.flush_stdout()


def _say(text, code):
    print(text, file=sys.stderr)
    return code


def _hide_lost_exceptions():
    """Hides tracebacks that cannot be caught: of Orbax's reads after a failed one, and of signals already handled."""
    usual = {sys: sys.unraisablehook, threading: threading.excepthook}

    def is_hidden(args):
        closed_loop = args.exc_type is RuntimeError and "Event loop is closed" in str(args.exc_value)
        code = getattr(getattr(args, "object", None), "cr_code", None)  # of a coroutine
        abandoned_read = code is not None and "orbax" in pathlib.Path(code.co_filename).parts
        return closed_loop or abandoned_read or issubclass(args.exc_type, interrupts.Stopped)

    sys.unraisablehook = lambda args: None if is_hidden(args) else usual[sys](args)
    threading.excepthook = lambda args: None if is_hidden(args) else usual[threading](args)
