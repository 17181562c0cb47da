"""From a run and one of its phases to what the loop needs: state, inputs, feeder, train steps, evaluation."""

import jax

from fer_jax import feature_cache, feeders, losses, metrics, mixing, steps
from fer_jax import params as params_lib
from fer_jax.runtime import dispatch, remat


def init_state(run, phase) -> steps.TrainState:
    """Draws the initial state and puts pretrained weights into it; the optimizer's does not depend on them."""
    state = jax.jit(lambda: steps.init_state(phase, run.keys["init"]), out_shardings=phase.shardings)()
    if run.weights is None:
        return state
    given = {"params": run.weights.params, "batch_stats": run.weights.batch_stats}
    fill = lambda tree: {name: params_lib.join(tree[name], put(run, given[name])) for name in given}  # noqa: E731
    return state.replace(**fill(state.variables), average=fill(state.average) if state.average else {})


def put(run, tree):
    """Puts arrays that every process has in full onto all devices."""
    return jax.tree.map(lambda leaf: feeders.put(leaf, run.shardings[1]), tree)


def make_inputs(run, phase, state):
    """Returns the faces of training and validation, or their features, and the model's method that takes them."""
    faces = {"train": run.data.train, "validation": run.data.validation}
    needs_faces = run.policy.active or make_change_batch(run)
    if needs_faces or not (phase.backbone_frozen and run.config.train.cache_features):
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


def make_constants(run, feeder) -> dict:
    """Returns the arrays that every step reads: the feeder's, and a teacher's variables."""
    return {"feeder": feeder.arrays} | ({"teacher": run.teacher.variables} if run.teacher else {})


def make_train_steps(run, phase, feeder, forward) -> dispatch.TrainSteps:
    """Returns train_steps(state, constants, chunk) -> (state, sums)."""
    objective = losses.make_objective(run.config.loss, run.sampler.class_counts)
    train_step = steps.make_train_step(
        phase, objective, key=run.keys["dropout"], forward=forward, change_batch=make_change_batch(run)
    )
    options = remat.compiler_options(remat.choose(run.config))
    return dispatch.jit_steps(train_step, feeder, shardings=(phase.shardings, run.shardings[1]), options=options)


def make_change_batch(run):
    """Returns (batch, step, constants) -> batch: the faces are mixed, then a teacher answers; None without either."""
    mix, teacher, key = mixing.make(run.config.augment, len(run.data.classes)), run.teacher, run.keys["mixing"]
    if not (mix or teacher):
        return None

    def change_batch(batch, step, constants):
        if mix:
            batch = mix(batch, jax.random.fold_in(key, step))
        return {**batch, "teacher": teacher.logits_fn(constants["teacher"], batch["image"])} if teacher else batch

    return change_batch


def make_evaluate(run, phase, faces, forward):
    """Returns evaluate(state, check) -> the validation scores, by their names in `history.csv`.

    They are those of the averaged variables where training averages any; `validation_raw_` then begins the names of the
    scores of the variables themselves. check() is called before every batch; what it raises ends the evaluation.
    """
    batch_sharding, replicated = run.shardings
    evaluate = steps.make_evaluate(phase.model, classes=len(run.data.classes), replicated=replicated, forward=forward)

    def batches(check):
        for batch in feeders.padded_batches(faces, run.config.train.batch_size, batch_sharding):
            check()
            yield batch

    def score(variables, check, prefix):
        sums, _ = evaluate(variables, batches(check))
        return {f"{prefix}_{name}": value for name, value in metrics.summarize(sums).items()}

    def scores(state, check):
        if not state.average:
            return score(state.variables, check, "validation")
        return score(state.average, check, "validation") | score(state.variables, check, "validation_raw")

    return scores
