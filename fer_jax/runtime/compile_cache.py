"""Compiled programs: made beside other work, and kept from one start to the next."""

import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
import pickle
import platform
import sys
import tempfile
import uuid
from concurrent import futures

KEPT_MAX_BYTES = 2 * 2**30  # of compiled programs on the disk; those that were used longest ago go first
KEPT_FILES = 64  # of programs of steps beside them, each of which has two names
CPU_FACTS = ("model name", "flags", "Features", "CPU implementer", "CPU part")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "ml_collections")
ENVIRONMENT = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "FER_JAX_CPU_PATH")
logger = logging.getLogger("fer_jax")


def shapes(tree, sharding):
    """Returns a tree of arrays, or of their shapes, as `jax.ShapeDtypeStruct`s with a sharding."""
    import jax

    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def compile_beside(jitted, args, out) -> futures.Future:
    """Traces a jitted function for its arguments and compiles it on a thread; returns the program's future.

    Tracing is Python's work and compiling is not, so that other Python goes on meanwhile. args: arrays, or their
    shapes; out: what the function returns, as any tree of its structure, for `Kept`.
    """
    del out
    return _beside(jitted.lower(*args).compile)


def _beside(work):
    pool = futures.ThreadPoolExecutor(1)
    result = pool.submit(work)
    pool.shutdown(wait=False)
    return result


class Kept:
    """Programs of steps, kept by all that they are made from, so that the same command need not trace them again.

    JAX's own cache finds a program only after it was traced and lowered, which for a step takes as long as all else.
    What a program is made from: the facts of the run, this package's source, its libraries' versions, JAX's settings
    and the devices. A library that is changed in place keeps its version: set `train.keep_compiled` to False then.
    Where these differ and the lowered program does not, the program is found by that.

    folder: that of `keep_compiled`. facts: all of the run that its steps depend on, as JSON knows it.
    """

    def __init__(self, folder: pathlib.Path, facts: dict):
        self._folder = folder / "steps"
        self._outside = _surroundings()
        self._inside = {"source": source_digest(), "run": facts}

    def compile_beside(self, jitted, args, out) -> futures.Future:
        """Like the function of that name, but loads the program where it was made before."""
        import jax

        structure = jax.tree.structure((args, {})), jax.tree.structure(out)
        leaves = [(leaf.shape, str(leaf.dtype), str(leaf.sharding)) for leaf in jax.tree.leaves(args)]
        start = self._path("start", {**self._outside, **self._inside, "args": repr((leaves, *structure))})
        lowered = None if start.exists() else jitted.lower(*args)

        def make():
            if lowered is None and (program := self._load(start, *structure)):
                return program
            low = lowered or jitted.lower(*args)
            path = self._path("program", {**self._outside, "lowered": low.as_text()})
            program = self._load(path, *structure)
            if not program:
                program = self._keep(path, low)
            self._link(path, start)
            return program

        return _beside(make)

    def _path(self, kind, facts):
        return self._folder / f"{kind}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}"

    def _load(self, path, in_tree, out_tree):
        """Returns a kept program, None where there is none that loads."""
        from jax.experimental import serialize_executable

        try:
            kept = pickle.loads(path.read_bytes())
            program = serialize_executable.deserialize_and_load(kept, in_tree, out_tree)
            path.touch()
        except Exception as error:  # whatever a damaged file leads to
            logger.debug("%s does not load (%s)", path, error)
            return None
        return program

    def _keep(self, path, lowered):
        """Compiles and keeps a program."""
        from jax.experimental import serialize_executable

        # Under a name that JAX's cache cannot know: XLA:CPU does not write a program whole that it has itself read.
        module = lowered.compiler_ir()
        with module.context:
            module.operation.attributes["sym_name"] = type(module.operation.attributes["sym_name"]).get(
                f"jit_step_{uuid.uuid4().hex}"
            )
        program = lowered.compile()
        try:
            kept = serialize_executable.serialize(program)[0]
            self._folder.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix="unfinished-", delete=False) as file:
                pickle.dump(kept, file)
            os.replace(file.name, path)
            for old in sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime)[:-KEPT_FILES]:
                old.unlink(missing_ok=True)
        except Exception as error:  # a full disk, or a backend whose programs cannot be written
            logger.debug("the program of a step is not kept: %s", error)
        return program

    def _link(self, path, start):
        """Has the next start find a program by what it is made from."""
        try:
            start.unlink(missing_ok=True)
            os.link(path, start)
        except OSError as error:
            logger.debug("the program of a step is not kept for this command: %s", error)


def source_digest(*folders: str) -> str:
    """Returns a digest of this package's source, or of those of its folders that are named."""
    package, digest = pathlib.Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for folder in folders or ("",) for path in (package / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(package)}:{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def _surroundings() -> dict:
    """Returns what a program depends on besides what is lowered."""
    import jax

    devices = jax.devices()
    return {
        "python": sys.version,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "environment": {name: os.environ.get(name, "") for name in ENVIRONMENT},
        "settings": {name: repr(value) for name, value in jax.config.values.items() if "cache" not in name},
        "devices": [devices[0].client.platform_version, *(device.device_kind for device in devices)],
    }


def keep_compiled(cache_dir) -> pathlib.Path | None:
    """Keeps the programs that JAX compiles in `<cache_dir>/compiled/<kind of CPU>`, where the next start finds them.

    What the user has set by JAX_COMPILATION_CACHE_DIR or JAX_ENABLE_COMPILATION_CACHE stands. Where programs cannot be
    kept, this says so and they are compiled at each start.

    Returns:
      the folder, None where nothing is kept there.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not jax.config.jax_enable_compilation_cache:
        return None
    folder = pathlib.Path(cache_dir).expanduser().absolute() / "compiled" / _cpu()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        _drop_unfinished(folder)
        refused = jax.default_backend() == "cpu" and not _loads_on_cpu(folder)
    except OSError as error:
        logger.warning("compiled programs are not kept: %s cannot be written (%s); see data.cache_dir", folder, error)
        return None
    if refused:
        logger.info("compiled programs are not kept: XLA does not load its own ones on this CPU")
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    if jax.config.jax_compilation_cache_max_size == -1:
        jax.config.update("jax_compilation_cache_max_size", KEPT_MAX_BYTES)
    return folder


def _cpu() -> str:
    """Returns a name for this kind of CPU: a program may hold instructions that another one lacks."""
    try:
        first = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        facts = [line for line in first.splitlines() if line.startswith(CPU_FACTS)]
    except OSError:
        facts = [platform.processor()]
    return f"{platform.machine()}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"


def _loads_on_cpu(folder) -> bool:
    """Says whether XLA loads what it compiled for this CPU, in silence; tried once and written down in the folder.

    On some it takes a preference of its compiler for an instruction that the CPU lacks, and says so on stderr for each
    program (https://github.com/jax-ml/jax/issues/38445).
    """
    import jax

    answer = folder / f"loads-{jax.lib.__version__}"
    if not answer.exists():
        answer.write_text("yes" if _loads_in_silence() else "no")
    return answer.read_text() != "no"


def _loads_in_silence():
    import jax
    from jax.experimental import serialize_executable

    kept = serialize_executable.serialize(jax.jit(lambda x: x + 1).lower(0.0).compile())
    with tempfile.TemporaryFile() as told:
        stderr = os.dup(2)
        os.dup2(told.fileno(), 2)
        try:
            serialize_executable.deserialize_and_load(*kept)
        except Exception:
            return False
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        return os.fstat(told.fileno()).st_size == 0


def _drop_unfinished(folder):
    """Deletes what a killed process was writing: a program gets its `-atime` file when it is whole.

    JAX itself would warn of a half program at each start, and would not write beside a program without that file.
    """
    for program in folder.glob("*-cache"):
        if not program.with_name(program.name.removesuffix("cache") + "atime").exists():
            program.unlink(missing_ok=True)
