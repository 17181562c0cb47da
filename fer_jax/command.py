"""What every command does alike: how it begins, its messages, and how it ends."""

import difflib
import logging
import os
import re
import sys
import threading
import warnings

from fer_jax import config as config_lib
from fer_jax import fields
from fer_jax.errors import InputError, tells_full_disk
from fer_jax.runtime import compile_cache, interrupts, timing

HUGE_PAGES = "glibc.malloc.hugetlb"
EXAMPLE = "configs/cnn.py:model_2"
shell_name = None  # `fer-jax`, where that has started the command
FIELDS_HINT = "--fields prints every field, with its default, unit and range"


def parse_flags(argv, config_flag) -> list[str]:
    """Parses absl's flags and loads the config, locked; returns what is no flag.

    `--help` and `--fields` print what they are for and end the command.

    Raises:
      InputError: whatever is wrong with the flags or the config.
    """
    from absl import flags

    _check_fields(argv, config_flag.name)
    # ml_collections' own parser hides why a file cannot be loaded.
    flags.FLAGS[config_flag.name].parser.parse = config_lib.load
    try:
        rest = flags.FLAGS(argv)
    except SystemExit:  # absl's --help, which ends with 1
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
    """Adds --explain, of the commands that write a report."""
    parser.add_argument(
        "--explain",
        choices=("auto", "grad_cam", "occlusion", "none"),
        default="auto",
        help="heat maps below the report's mistakes; auto: grad_cam, or occlusion where a network has no fine map; "
        "default: %(default)s",
    )


def _check_fields(argv, flag):
    """Refuses fields on the command line that do not exist, or come without a config."""
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
    # Pillow's are of pictures that the project either reads all the same or refuses with a message of its own.
    warnings.filterwarnings("ignore", module=r"PIL\.")
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
    _hide_lost_exceptions()
    try:
        with interrupts.ended_by_signals():
            main()
    except InputError as error:
        # Threads and coroutines that the error cut off would print tracebacks of their own on the way out.
        sys.unraisablehook = lambda _: None
        sys.exit(_say(f"error: {error}", 2))
    except OSError as error:
        if not tells_full_disk(error):
            raise
        place = f" for {error.filename}" if error.filename else ""
        sys.exit(_say(f"error: no space left on the disk{place}: make room and run the same command again", 2))
    except KeyboardInterrupt as interrupt:
        sys.unraisablehook = lambda _: None
        sys.exit(_say(str(interrupt) or "stopped", getattr(interrupt, "exit_code", 130)))


def _say(text, code):
    print(text, file=sys.stderr)
    return code


def _hide_lost_exceptions():
    """Hides tracebacks of what nobody can catch: Orbax's reads after a failed one, and signals, which are heeded."""
    usual = {sys: sys.unraisablehook, threading: threading.excepthook}

    def is_hidden(args):
        closed_loop = args.exc_type is RuntimeError and "Event loop is closed" in str(args.exc_value)
        return closed_loop or issubclass(args.exc_type, interrupts.Stopped)

    sys.unraisablehook = lambda args: None if is_hidden(args) else usual[sys](args)
    threading.excepthook = lambda args: None if is_hidden(args) else usual[threading](args)
