"""The command `fer-jax`: its first word chooses one of the package's commands, which gets the other arguments."""

import contextlib
import runpy
import sys

from fer_jax import files

COMMANDS = {
    "predict": ("fer_jax.predict", "emotions of faces in pictures, folders, videos, tables, or of a camera"),
    "train": ("fer_jax.main", "train a network from a config"),
    "evaluate": ("fer_jax.evaluate", "score trained runs on a split, and write reports"),
    "ensemble": ("fer_jax.ensemble", "score an ensemble of trained runs"),
    "export": ("fer_jax.export", "export a run as a model file, with its figures and model card"),
    "serve": ("fer_jax.serve", "answer requests for predictions over HTTP, as JSON"),
    "search": ("fer_jax.search", "search for hyperparameters"),
    "pretrained": ("fer_jax.pretrained", "list and fetch weight files"),
}


def usage() -> str:
    """Returns the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: fer-jax COMMAND ...", "", *lines, "", "fer-jax COMMAND --help lists the flags of a command."]
    )


def main(argv=None) -> None:
    """Runs the named command; for an unknown name it prints the list and exits with code 2."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] in (["--help"], ["-h"], ["help"]):
        _print(usage())
        return
    if words[:1] == ["--version"]:
        import fer_jax

        _print(fer_jax.__version__)
        return
    if not words or words[0] not in COMMANDS:
        wrong = f"fer-jax: there is no command {words[0]!r}\n\n" if words else ""
        print(f"{wrong}{usage()}", file=sys.stderr)
        sys.exit(2)
    from fer_jax import command

    command.shell_name = "fer-jax"
    # As with `python -m`, so that a command behaves the same either way.
    sys.argv = [f"fer-jax {words[0]}", *words[1:]]
    runpy.run_module(COMMANDS[words[0]][0], run_name="__main__", alter_sys=True)


def _print(text):
    with contextlib.suppress(BrokenPipeError):
        print(text)
    files.flush_stdout()


if __name__ == "__main__":
    main()
