"""The best of our search for R3's CNN, fully trained by R3's recipe: `:augmented`, or `:plain` without augmentation.

python -m fer_jax.main --config configs/r3_searched.py --config.data.path=<folder with fer2013.csv>

`BEST` was found by configs/r3_search.py in 20 trials of 4 epochs on 6,000 training faces, scored on PublicTest
(experiments/reports/r3), to four digits: 2,247,687 parameters, hardly any dropout. The split is configs/r3_cnn.py's, so
some of its test faces influenced the choice of these eleven values. Batch 128, as there; the trials used 32.
"""

from fer_jax import config as config_lib
from fer_jax import space

r3_cnn = config_lib.load_neighbour(__file__, "r3_cnn")
r3_search = config_lib.load_neighbour(__file__, "r3_search")

BEST = dict(zip(r3_search.FILTERS, (48, 32, 192, 128, 320, 320), strict=True))
BEST |= {"units": 512, "drop": 0.0438, "drop_dense": 0.2153, "optim.learning_rate": 1.05e-3, "optim.name": "adam"}
VARIANTS = {"augmented": "seven_layer_augmented", "plain": "seven_layer"}


def get_config(variant="augmented"):
    """Returns the config of a variant."""
    config = r3_cnn.get_config(config_lib.variant(variant, VARIANTS))
    config.model.layers = space.fill(r3_search.get_config(), BEST).model.layers
    config.optim.update({name: BEST[f"optim.{name}"] for name in ("learning_rate", "name")})
    return config
