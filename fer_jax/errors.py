"""The exceptions that mean: the user's input is wrong, and here is the mend."""


class InputError(ValueError):
    """Bad input from outside: a file, a row, a config value, a checkpoint.

    The message names the thing and the mend. The commands print it alone, without a traceback, and exit with 2.
    """


class Busy(InputError):
    """Another process is at work on the same thing."""
