"""A progress bar for reading many faces: tqdm's, if it is installed and stderr is a terminal."""

import sys


class _Silent:
    """A replacement for tqdm that iterates and shows nothing."""

    def __init__(self, iterable):
        self._iterable = iterable

    def __iter__(self):
        return iter(self._iterable)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, amount):
        """Shows nothing."""


def make_bar(iterable=None, **options):
    """Returns a bar on stderr, with the arguments of `tqdm.tqdm`; a silent one if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return _Silent(iterable)
    try:
        from tqdm import tqdm
    except ImportError:
        return _Silent(iterable)
    return tqdm(iterable, file=sys.stderr, leave=False, **options)
