"""What every command does alike: its messages, and how it ends."""

import logging
import sys

from fer_jax.errors import InputError


def start_logging() -> None:
    """Shows the project's messages as they are, on stderr, and of its libraries only warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("fer_jax").setLevel(logging.INFO)
    logging.getLogger("jax").setLevel(logging.ERROR)
    # Orbax logs the traceback of every error that it also raises, and absl is its logger.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def run(main) -> None:
    """Runs an entry; bad input ends it with one message and exit code 2, an interrupt with 130."""
    try:
        main()
    except InputError as error:
        # Threads and coroutines that the error cut off would print tracebacks of their own on the way out.
        sys.unraisablehook = lambda _: None
        sys.exit(_say(f"error: {error}", 2))
    except KeyboardInterrupt:
        sys.exit(_say("stopped; the same command goes on from the last checkpoint", 130))


def _say(text, code):
    print(text, file=sys.stderr)
    return code
