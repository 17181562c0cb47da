"""A JSON service that predicts the emotions of faces in pictures: fer-jax serve."""
