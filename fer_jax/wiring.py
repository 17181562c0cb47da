"""From a run and one of its phases to what the loop needs: state, inputs, feeder, train steps, evaluation."""

import jax

from fer_jax import feature_cache, feeders, losses, metrics, steps
from fer_jax import params as params_lib
from fer_jax.runtime import dispatch, remat


def init_state(run, phase) -> steps.TrainState:
    """Draws the initial state and puts pretrained weights into it; the optimizer's does not depend on them."""
    state = jax.jit(lambda: steps.init_state(phase, run.keys["init"]), out_shardings=phase.shardings)()
    if run.weights is None:
        return state
    return state.replace(
        params=params_lib.join(state.params, put(run, run.weights.params)),
        batch_stats=params_lib.join(state.batch_stats, put(run, run.weights.batch_stats)),
    )


def put(run, tree):
    """Puts arrays that every process holds whole onto all devices."""
    return jax.tree.map(lambda leaf: feeders.put(leaf, run.shardings[1]), tree)


def make_inputs(run, phase, state):
    """Returns the faces of training and validation, or their features, and the model's method that takes them."""
    faces = {"train": run.data.train, "validation": run.data.validation}
    if not (phase.backbone_frozen and run.config.train.cache_features) or run.policy.active:
        return faces, None
    features = {
        name: feature_cache.cached(
            phase.model,
            state.variables,
            split,
            batch_size=run.config.train.batch_size,
            shardings=run.shardings,
            cache_dir=run.config.data.cache_dir,
        )
        for name, split in faces.items()
    }
    return (faces, None) if None in features.values() else (features, feature_cache.FORWARD)


def make_feeder(run, faces) -> feeders.Feeder:
    """Builds the feeder of a phase."""
    return feeders.make(
        run.config.data.feeder,
        faces=faces,
        sampler=run.sampler,
        policy=run.policy,
        key=run.keys["augment"],
        shardings=run.shardings,
        steps_per_dispatch=run.config.train.steps_per_dispatch,
        log_every_steps=run.config.log.every_steps,
    )


def make_train_steps(run, phase, feeder, forward) -> dispatch.TrainSteps:
    """Returns train_steps(state, arrays, chunk) -> (state, sums)."""
    objective = losses.make_objective(run.config.loss, run.sampler.class_counts)
    train_step = steps.make_train_step(phase, objective, key=run.keys["dropout"], forward=forward)
    options = remat.compiler_options(remat.choose(run.config))
    return dispatch.jit_steps(train_step, feeder, shardings=(phase.shardings, run.shardings[1]), options=options)


def make_evaluate(run, phase, faces, forward):
    """Returns evaluate(variables, check) -> the validation scores, by their names in `history.csv`.

    check() is called before every batch; what it raises ends the evaluation.
    """
    batch_sharding, replicated = run.shardings
    evaluate = steps.make_evaluate(phase.model, classes=len(run.data.classes), replicated=replicated, forward=forward)

    def batches(check):
        for batch in feeders.padded_batches(faces, run.config.train.batch_size, batch_sharding):
            check()
            yield batch

    def scores(variables, check):
        sums, _ = evaluate(variables, batches(check))
        return {f"validation_{name}": value for name, value in metrics.summarize(sums).items()}

    return scores
