"""R1's model 2, trained briefly on the drawn faces, as `make demo` runs it.

python -m fer_jax.main --config configs/demo.py

It reached 0.9770 on the drawn test faces with seed 0: experiments/demo/.
Adam at 1e-3, cosine over 6 epochs of 8,000 synthetic faces, batch 128.
"""

from fer_jax import config as config_lib

cnn = config_lib.load_neighbour(__file__, "cnn")


def get_config():
    """Returns the config."""
    config = cnn.get_config("model_2")
    config.data.name = "drawn_faces"
    config.optim.schedule = "cosine"
    config.train.epochs = 6
    return config
