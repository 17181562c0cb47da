"""Rematerialization: what a train step stores for its backward pass, what it recomputes, and the memory it needs."""

import math
import sys

import jax
from jax import ad_checkpoint
from jax.extend import core

from fer_jax.errors import InputError

LAYER_OUTPUT = "layer_output"
AUTO = "auto"
# Values that cross segments are all stored; of those that a segment recomputes, some are fused away.
HELD_SHARE = 0.4
SEARCH_STEPS = 20
# XLA:CPU's default schedule starts whatever is ready, so everything would be recomputed at once; and it would remove
# the barriers that delay recomputing a segment until after the backward pass of the next segment.
_CPU_COMPILER_OPTIONS = {
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "xla_disable_hlo_passes": "cse_barrier_expander",
}


def layer_output(x):
    """Marks the output of a convolution or dense layer; the identity outside of `rematerialize`."""
    return ad_checkpoint.checkpoint_name(x, LAYER_OUTPUT)


def choose(config) -> str:
    """Returns the choice of `train.rematerialize`, with 'auto' resolved for this backend and network.

    An EfficientNet's wide maps fill a CPU's memory and are cheap to recompute (benchmarks/memory/).
    """
    if config.train.rematerialize != AUTO:
        return config.train.rematerialize
    on_cpu = jax.default_backend() == "cpu"
    return "activations" if on_cpu and config.model.name.startswith("efficientnet") else "none"


def rematerialize(apply, choice: str):
    """Returns a function like `apply` that stores less for the backward pass and recomputes the rest.

    Values and gradients are those of `apply` up to rounding; random numbers are redrawn from the same keys.

    Args:
      apply: pure function (trained parameters, *others) -> tree of arrays.
      choice: 'none'; 'activations': outputs of convolutions and dense layers are stored, everything between them
        (normalization, activation, pooling, dropout) is recomputed; 'segments': the network is cut where few values
        cross, and only these are stored (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """
    return _CHOICES[choice](apply)


def check(choice: str) -> None:
    """Raises InputError, naming the choices of `train.rematerialize`, if this is not one of them."""
    if choice not in (AUTO, *_CHOICES):
        raise InputError(f"train.rematerialize is '{choice}'; known are {', '.join((AUTO, *_CHOICES))}")


def compiler_options(choice: str) -> dict | None:
    """Returns the compiler options for a train step that make XLA respect the choice on this backend."""
    return None if choice == "none" or jax.default_backend() != "cpu" else _CPU_COMPILER_OPTIONS


def _activations(apply):
    return jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(LAYER_OUTPUT))


# Cut in the jaxpr, not by `nn.remat` around blocks, which needs more memory for an EfficientNet: recomputing a block
# takes all of the wide maps inside it at once.
def _segments(apply):
    def in_segments(params, *others):
        closed, shapes = jax.make_jaxpr(apply, return_shape=True)(params, *others)
        jaxpr = closed.jaxpr
        given = [*closed.consts, *jax.tree.leaves((params, *others))]
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))
        depends = _dependent(jaxpr, jaxpr.invars[: len(jax.tree.leaves(params))])
        ends = [*_choose(*_candidates(jaxpr, depends)), len(jaxpr.eqns)]
        for start, end in zip([0, *ends], ends, strict=False):
            part = _part(jaxpr, start, end)
            run = core.jaxpr_as_fun(core.ClosedJaxpr(part, ()))
            # The backward pass begins with the last segment, whose values are still in memory.
            run = run if end == ends[-1] else jax.checkpoint(run)
            mine = {var: values[var] for var in part.invars}
            names = [var for var in mine if var in depends]
            mine |= zip(names, _together([mine[var] for var in names]), strict=True)
            values |= zip(part.outvars, run(*mine.values()), strict=True)
        outputs = [var.val if isinstance(var, core.Literal) else values[var] for var in jaxpr.outvars]
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return in_segments


_CHOICES = {"none": lambda apply: apply, "activations": _activations, "segments": _segments}


@jax.custom_vjp
def _together(values):
    """The identity, but all gradients of the arrays are computed before any is used.

    Otherwise XLA would defer the gradients of scales and biases to the end of the step, and keep whole maps for them.
    """
    return values


_together.defvjp(lambda values: (values, None), lambda _, gradients: (jax.lax.optimization_barrier(gradients),))


def _dependent(jaxpr, trained):
    """Returns the trained variables and those that depend on them."""
    found = set(trained)
    for equation in jaxpr.eqns:
        if found.intersection(_variables(equation.invars)):
            found.update(equation.outvars)
    return found


def _part(jaxpr, start, end):
    """Returns equations start to end as a jaxpr, from their inputs to the values used after them."""
    equations = jaxpr.eqns[start:end]
    made = [var for equation in equations for var in equation.outvars]
    needed = dict.fromkeys(var for equation in equations for var in _variables(equation.invars))
    later = {var for equation in jaxpr.eqns[end:] for var in _variables(equation.invars)}
    later |= set(_variables(jaxpr.outvars))
    return jaxpr.replace(
        constvars=[],
        invars=[var for var in needed if var not in set(made)],
        outvars=[var for var in made if var in later],
        eqns=equations,
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )


def _variables(atoms):
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _candidates(jaxpr, depends):
    """Returns (cuts, work): where a network may be cut, and how much it computes.

    cuts: (number of equations before the cut, bytes that cross it), only the narrowest places. work [equations + 1]:
    bytes computed up to there. Only the variables in `depends` count; no others have gradients.
    """
    last_use = {var: i for i, equation in enumerate(jaxpr.eqns) for var in _variables(equation.invars)}
    crossing, widths, work = {}, [0], [0]
    for i, equation in enumerate(jaxpr.eqns):
        sizes = {var: math.prod(var.aval.shape) * var.aval.dtype.itemsize for var in equation.outvars if var in depends}
        crossing = {var: size for var, size in (crossing | sizes).items() if last_use.get(var, -1) > i}
        widths.append(sum(crossing.values()))
        work.append(work[-1] + sum(sizes.values()))
    inner = range(1, len(jaxpr.eqns))
    cuts = [(i, widths[i]) for i in inner if widths[i - 1] >= widths[i] < widths[i + 1]]
    return cuts, work


def _choose(cuts, work):
    """Returns the cuts that minimize the memory of the largest segment.

    During a segment's backward pass, memory contains what was stored up to its end and what it recomputes.
    """
    places = [(0, 0), *cuts, (len(work) - 1, 0)]
    least, most = 0.0, float(work[-1])
    for _ in range(SEARCH_STEPS):
        middle = (least + most) / 2
        least, most = (middle, most) if _path(places, work, middle) is None else (least, middle)
    return _path(places, work, most)


def _path(places, work, limit):
    """Returns the cuts that store the fewest bytes such that no segment needs more than `limit`; None if impossible."""
    kept, before = [0.0] + [math.inf] * (len(places) - 1), [0] * len(places)
    for j, (end, width) in enumerate(places):
        for i in reversed(range(j)):
            again = HELD_SHARE * (work[end] - work[places[i][0]])
            if again > limit:
                break
            if kept[i] + width + again <= limit and kept[i] + width < kept[j]:
                kept[j], before[j] = kept[i] + width, i
    if math.isinf(kept[-1]):
        return None
    chosen, j = [], before[-1]
    while j:
        chosen.append(places[j][0])
        j = before[j]
    return chosen[::-1]


def needs(program) -> dict:
    """Returns the memory in MiB that XLA planned on a device for a `jax.stages.Compiled`.

    `arguments_mib`; `donated_mib`, the part of it that is reused for results; and `temporaries_mib`.
    """
    found = program.memory_analysis()
    sizes = {
        "arguments_mib": found.argument_size_in_bytes,
        "donated_mib": found.alias_size_in_bytes,
        "temporaries_mib": found.temp_size_in_bytes,
    }
    return {name: size / 2**20 for name, size in sizes.items()}


def peak_mib() -> float | None:
    """Returns the peak memory so far, in MiB; None if the system does not report it.

    On a GPU or TPU: of this process's fullest device; on a CPU: the resident set of the process, arrays and all else.
    """
    if jax.default_backend() == "cpu":
        try:
            import resource
        except ImportError:  # Windows
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [of_device["peak_bytes_in_use"] for of_device in stats if "peak_bytes_in_use" in of_device]
    return max(peaks) / 2**20 if peaks else None
