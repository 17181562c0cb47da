"""Scores faces with `fer_jax.load()`: python in_fer_jax.py <model>:<views> <faces.u8> <jobs as JSON>."""

import sys

import worker

import fer_jax


def main():
    """Loads the model and runs the jobs."""
    name, file, jobs = sys.argv[1:]
    name, _, views = name.partition(":")
    model = fer_jax.load(name, views=views or None)

    def predict(faces):
        return [model.classes[number] for number in model.probs(faces[..., None]).argmax(axis=1)]

    worker.work(file, jobs, predict)


if __name__ == "__main__":
    main()
