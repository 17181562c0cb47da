"""Train state and pure train and eval steps."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fer_jax import averaging, gradients, losses, metrics, ops
from fer_jax import params as params_lib
from fer_jax import views as views_lib
from fer_jax.runtime import remat


def make_shardings():
    """Returns (batch, replicated) shardings over all devices of all processes."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return tuple(jax.sharding.NamedSharding(mesh, spec) for spec in (jax.P("data"), jax.P()))


@flax.struct.dataclass
class TrainState:
    """Everything that training changes: arrays only, so that it can be donated, sharded and saved directly."""

    step: jax.Array  # [] int32, steps taken
    params: dict
    batch_stats: dict
    opt_state: optax.OptState  # of the parameters that are trained, and of no others
    lr_scale: jax.Array  # [] float32, factor of the plateau rule on the schedule's learning rate
    average: dict = flax.struct.field(default_factory=dict)  # {params, batch_stats} averaged over steps, or nothing

    @property
    def variables(self) -> dict:
        """The variables that training applies the model with."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def kept(self) -> dict:
        """The variables that the best checkpoint keeps: those of training, and their average if there is one."""
        return {**self.variables, "average": self.average} if self.average else self.variables


@functools.partial(jax.jit, static_argnums=(0, 2))
def init_variables(model, key, image_shape) -> dict:
    """Draws a model's variables; jitted, so that it is traced once and not wherever their shapes are needed."""
    return model.init(key, jnp.zeros((1, *image_shape), jnp.uint8), train=False)


def init_state(phase, key) -> TrainState:
    """Draws the initial state of a phase, a `freezing.Phase`."""
    variables = init_variables(phase.model, key, phase.image_shape)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=init_optimizer(phase, params),
        lr_scale=jnp.ones([], jnp.float32),
        average={"params": params, "batch_stats": batch_stats} if averaging.make(phase) else {},
    )


def init_optimizer(phase, params):
    """Returns the optimizer's initial state for the parameters that are not frozen."""
    return phase.tx.init(params_lib.split(params, phase.frozen)[0])


def abstract_variables(model, image_shape, sharding) -> dict:
    """Returns {params, batch_stats} as `jax.ShapeDtypeStruct`s with a sharding."""
    variables = init_variables.eval_shape(model, jax.random.key(0), image_shape)
    return with_sharding({"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}, sharding)


def abstract_state(phase, replicated) -> TrainState:
    """Returns the state of `init_state` as `jax.ShapeDtypeStruct`s with shardings: what a checkpoint restores.

    Everything is replicated, except the optimizer's arrays with `train.shard_optimizer`: these are split along the
    longest axis that the devices divide evenly (Rajbhandari et al. 2020, "ZeRO", stage 1).
    """
    state = jax.eval_shape(lambda: init_state(phase, jax.random.key(0)))
    abstract = with_sharding(state, replicated)
    if not phase.config.train.shard_optimizer:
        return abstract
    return abstract.replace(
        opt_state=jax.tree.map(lambda leaf: with_sharding(leaf, _share(leaf, replicated.mesh)), state.opt_state)
    )


def _share(leaf, mesh):
    axes = [axis for axis, length in enumerate(leaf.shape) if length % mesh.size == 0]
    longest = max(axes, key=lambda axis: leaf.shape[axis], default=None)
    spec = ("data" if axis == longest else None for axis in range(leaf.ndim))
    return jax.sharding.NamedSharding(mesh, jax.P(*spec))


def with_sharding(tree, sharding):
    """Returns the arrays of a tree as `jax.ShapeDtypeStruct`s with a sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def make_train_step(phase, objective, *, key, forward=None, change_batch=None):
    """Returns train_step(state, batch, constants=None) -> (state, sums over the batch's real faces).

    batch: `image` uint8 [B, H, W, C], `label` int [B], `mask` [B], and `target` [B, K] where targets are soft.

    Args:
      phase: a `freezing.Phase`; layers in `phase.frozen` get no gradient, and `phase.config.train.rematerialize` says
        what the backward pass recomputes.
      objective: of `losses.make_objective`; the sums are its own.
      key: draws dropout, together with the step.
      forward: the method of the model that takes what the batch holds as `image`; None: faces.
      change_batch: (batch, step, constants) -> batch, before the forward pass; constants: arrays that no step changes.
    """
    model, tx = phase.model, optax.with_extra_args_support(phase.tx)

    def apply(trained, frozen_params, batch_stats, image, dropout_key):
        return model.apply(
            {"params": params_lib.join(frozen_params, trained), "batch_stats": batch_stats},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
            method=forward,
        )

    apply = remat.rematerialize(apply, remat.choose(phase.config))

    def loss_fn(trained, frozen_params, state, batch, part=None):
        dropout_key = jax.random.fold_in(key, state.step)
        if part is not None:
            dropout_key = jax.random.fold_in(dropout_key, part)
        logits, updated = apply(trained, frozen_params, state.batch_stats, batch["image"], dropout_key)
        loss, sums = objective(logits, batch, trained)
        return loss, (updated.get("batch_stats", {}), sums)

    grad_fn = jax.grad(loss_fn, has_aux=True)
    if phase.config.train.accumulate_steps > 1:
        grad_fn = gradients.in_parts(grad_fn, phase.config.train.accumulate_steps)
    if phase.config.optim.sam_radius:
        grad_fn = gradients.sharpness_aware(grad_fn, phase.config.optim.sam_radius)
    average_fn = averaging.make(phase)

    def train_step(state, batch, constants=None):
        if change_batch:
            batch = change_batch(batch, state.step, constants)
        trained, frozen_params = params_lib.split(state.params, phase.frozen)
        grads, (batch_stats, sums) = grad_fn(trained, frozen_params, state, batch)
        updates, opt_state = tx.update(grads, state.opt_state, trained, lr_scale=state.lr_scale)
        if phase.config.log.norms:
            sums |= _norms(sums["count"], grad=grads, param=trained, update=updates)
        trained = optax.apply_updates(trained, updates)
        state = state.replace(
            step=state.step + 1,
            params=params_lib.join(frozen_params, trained),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state.replace(average=average_fn(state)) if average_fn else state, sums

    return train_step


def _norms(count, **trees):
    """Returns the global norm of each tree as a sum over `count` faces, of which the log takes the mean."""
    return {f"{name}_norm": optax.tree.norm(tree) * count for name, tree in trees.items()}


def make_eval_step(model, *, classes, forward=None, views="none"):
    """Returns eval_step(variables, batch) -> (sums, probs [B, K] float32); see metrics.batch_sums for the sums.

    The loss is the plain cross-entropy, whatever training minimises, so that runs can be compared.
    forward: as in `make_train_step`; views: of fer_jax.views, over which the probabilities are averaged.
    """

    def eval_step(variables, batch):
        apply_fn = functools.partial(model.apply, variables, train=False, method=forward)
        logits = views_lib.make_logits(apply_fn, views)(batch["image"])
        total, _ = losses.cross_entropy(logits, losses.smooth(batch["label"], classes), batch["mask"])
        return metrics.batch_sums(logits, batch["label"], batch["mask"], total), jax.nn.softmax(logits)

    return eval_step


def make_evaluate(model, *, classes, replicated, forward=None, views="none"):
    """Returns evaluate(variables, batches) -> (sums, probs [N, K] float32) over all real faces, on the host.

    batches: an iterable of batches on the devices; every face whose mask is not 0 counts once. replicated: the
    sharding that gives every process the whole array. forward, views: as in `make_eval_step`.
    """
    eval_step = ops.jit(make_eval_step(model, classes=classes, forward=forward, views=views))
    gather = jax.jit(lambda probs, mask: (probs, mask), out_shardings=replicated)

    def evaluate(variables, batches):
        total, probs = None, []
        for batch in batches:
            sums, some = eval_step(variables, batch)
            total = sums if total is None else metrics.add(total, sums)
            some, mask = gather(some, batch["mask"])
            probs.append(np.asarray(some)[np.asarray(mask) != 0])
        return jax.device_get(total), np.concatenate(probs)

    return evaluate
