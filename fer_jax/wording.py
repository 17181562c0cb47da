"""Numbers in sentences."""


def count(number: int, noun: str) -> str:
    """Returns a number with its noun, in the plural unless it is 1: '1 epoch', '12 epochs', '1,024 classes'."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"
