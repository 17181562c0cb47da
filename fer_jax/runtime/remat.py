"""What a training step keeps in memory for its backward pass, what it computes again instead, and the peak reached."""

import math
import sys

import jax
from jax import ad_checkpoint
from jax.extend import core

from fer_jax.errors import InputError

LAYER_OUTPUT = "layer_output"
AUTO = "auto"
# Of what crosses from one segment into the next all is kept; of what a segment computes again a part is fused away.
HELD_SHARE = 0.4
SEARCH_STEPS = 20
# XLA:CPU's usual schedule starts whatever can start, so that all is computed again at once; and it would take the
# barriers away that put a segment's second computation behind the backward pass of the segment after it.
_CPU_COMPILER_OPTIONS = {
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "xla_disable_hlo_passes": "cse_barrier_expander",
}


def layer_output(x):
    """Marks the output of a convolution or a dense layer; outside of `rematerialize` it is x."""
    return ad_checkpoint.checkpoint_name(x, LAYER_OUTPUT)


def choose(config) -> str:
    """Returns the choice of `train.rematerialize`; for 'auto' the one that this backend and network ask for.

    An EfficientNet's wide maps fill a CPU's memory and are cheap to compute again (benchmarks/memory/).
    """
    if config.train.rematerialize != AUTO:
        return config.train.rematerialize
    on_cpu = jax.default_backend() == "cpu"
    return "activations" if on_cpu and config.model.name.startswith("efficientnet") else "none"


def rematerialize(apply, choice: str):
    """Returns a function like `apply` that keeps less for the backward pass and computes the rest a second time.

    Values and gradients are those of `apply`, to rounding; random numbers are drawn again from the same keys.

    Args:
      apply: pure function (trained parameters, *others) -> tree of arrays.
      choice: 'none'; 'activations': outputs of convolutions and dense layers are kept, and what lies between them
        (normalization, activation, pooling, dropout) is computed again; 'segments': the network is cut where few
        values cross, and these alone are kept (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """
    return _CHOICES[choice](apply)


def check(choice: str) -> None:
    """Raises InputError that names the choices of `train.rematerialize` if this is none of them."""
    if choice not in (AUTO, *_CHOICES):
        raise InputError(f"train.rematerialize is '{choice}'; known are {', '.join((AUTO, *_CHOICES))}")


def compiler_options(choice: str) -> dict | None:
    """Returns the options that the program of a training step needs, so that XLA keeps to a choice on this backend."""
    return None if choice == "none" or jax.default_backend() != "cpu" else _CPU_COMPILER_OPTIONS


def _activations(apply):
    return jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(LAYER_OUTPUT))


# Cut in the jaxpr and not by `nn.remat` around blocks, which needs more memory for an EfficientNet: to compute a block
# again takes all of the wide maps inside it at once.
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
            # The backward pass begins with the last segment, whose values are there still.
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
    """Returns the arrays as they are; all of their gradients are computed before any of them is used.

    XLA would else leave the gradients of scales and biases to the end of the step, and keep whole maps for them.
    """
    return values


_together.defvjp(lambda values: (values, None), lambda _, gradients: (jax.lax.optimization_barrier(gradients),))


def _dependent(jaxpr, trained):
    """Returns the variables that depend on the trained ones, and these."""
    found = set(trained)
    for equation in jaxpr.eqns:
        if found.intersection(_variables(equation.invars)):
            found.update(equation.outvars)
    return found


def _part(jaxpr, start, end):
    """Returns equations start to end as a jaxpr from what they need to what is needed after them."""
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

    cuts: (number of equations before the cut, bytes that cross it), the narrowest places only. work [equations + 1]:
    bytes computed up to there. Bytes are of the variables in `depends`; nothing else has a gradient.
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
    """Returns those cuts with which the largest segment needs the least memory.

    While a segment goes backwards there is in memory what was kept up to its end, and what it computes again.
    """
    places = [(0, 0), *cuts, (len(work) - 1, 0)]
    least, most = 0.0, float(work[-1])
    for _ in range(SEARCH_STEPS):
        middle = (least + most) / 2
        least, most = (middle, most) if _path(places, work, middle) is None else (least, middle)
    return _path(places, work, most)


def _path(places, work, limit):
    """Returns the cuts that keep the fewest bytes while no segment needs more than `limit`; None where none do."""
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
    """Returns what a `jax.stages.Compiled` needs on a device, as XLA laid it out, in MiB.

    `arguments_mib`, `donated_mib` of them, whose memory the results take over, and `temporaries_mib`.
    """
    found = program.memory_analysis()
    sizes = {
        "arguments_mib": found.argument_size_in_bytes,
        "donated_mib": found.alias_size_in_bytes,
        "temporaries_mib": found.temp_size_in_bytes,
    }
    return {name: size / 2**20 for name, size in sizes.items()}


def peak_mib() -> float | None:
    """Returns the largest memory in use so far, in MiB; None where the system does not tell.

    On a GPU or a TPU that of this process's fullest device; on a CPU the resident set of the process, where the
    arrays lie beside all else.
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
