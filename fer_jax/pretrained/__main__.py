"""Lists and fetches the weight files of the registry: python -m fer_jax.pretrained --list."""

import argparse

from fer_jax import command
from fer_jax.pretrained import fetch, registry


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog=command.program("pretrained"),
        description="Lists the weight files of the registry, or fetches one into a folder and verifies it.",
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--list", action="store_true", help="show names, sizes, sources, licences, and what is here")
    action.add_argument("--fetch", metavar="NAME", help="weights to fetch, by their name in the list")
    parser.add_argument("--to", metavar="DIR", default=fetch.CACHE_DIR, help="folder; default: %(default)s")
    parser.add_argument("--top", action="store_true", help="with the ImageNet classifier")
    return parser.parse_args(argv)


def table() -> str:
    """Returns the registry as text, one line per file."""
    rows = [("NAME", "VARIANT", "MB", "HERE", "SOURCE", "LICENCE")]
    for row in (*registry.ROWS, *registry.DETECTOR_ROWS):
        size = f"{row.size_bytes / 1e6:.1f}" if row.size_bytes else "-"
        rows.append((row.name, row.variant, size, "yes" if fetch.find(row) else "no", row.source, row.licence))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _main():
    flags = _parse()
    command.start_logging()
    if flags.list:
        print(table())
        return
    row = registry.find(flags.fetch, top=flags.top)
    for each in registry.of_wheel(row.wheel) or (row,):
        path, facts = fetch.fetch(each, flags.to)
        print(f"{path}: {facts.note}; licence: {facts.licence}")


if __name__ == "__main__":
    command.run(_main)
