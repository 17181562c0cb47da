"""Numbers agree with their nouns."""

import pytest

from fer_jax import wording


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "face", "0 faces"),
        (1, "epoch", "1 epoch"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1234, "more layer", "1,234 more layers"),
    ],
)
def test_a_number_agrees_with_its_noun(number, noun, said):
    assert wording.count(number, noun) == said
