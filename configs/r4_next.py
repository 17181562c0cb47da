"""R4's next steps, with the protocol of configs/r4_cnn.py:final: `:cfc` (a liquid head) and `:roi` (dual-channel).

python -m fer_jax.main --config configs/r4_next.py:roi --config.data.path=<folder with fer2013.csv>

`:cfc`: a CfC network (Hasani et al. 2022) reads the 3x3 map of the fourth block and replaces the fifth; its baseline
`:cfc_plain` has a dense layer there. `:roi`: one channel sees the whole face, the other a region of it at twice the
resolution; in its baseline `:roi_plain` both see the whole face. R4 gives no widths: they are chosen so that each pair
has the same number of parameters within 1%, and the same as `:final`.
"""

from fer_jax import config as config_lib

r4_cnn = config_lib.load_neighbour(__file__, "r4_cnn")

FOUR = r4_cnn.VARIANTS["final"][:4]
CHANNEL = [f"conv {n} 2x2 same, {r4_cnn.LEAKY}" for n in (64, 128, 256, 400, 128)]
VARIANTS = {
    "cfc": {"layers": [*FOUR, "cfc 176", *r4_cnn.DENSE]},
    "cfc_plain": {"layers": [*FOUR, "flatten, dense 60 relu", *r4_cnn.DENSE]},
    "roi": {"name": "dual_channel_roi", "layers": CHANNEL, "head": ["flatten", *r4_cnn.DENSE]},
    "roi_plain": {"name": "dual_channel_whole", "layers": CHANNEL, "head": ["flatten", *r4_cnn.DENSE]},
}


def get_config(variant="cfc"):
    """Returns the config of a variant."""
    config = r4_cnn.get_config("final")
    for field, value in config_lib.variant(variant, VARIANTS).items():
        config.model[field] = value if isinstance(value, str) else ", ".join(value)
    return config
