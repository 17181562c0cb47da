"""Compiled programs, kept from one start to the next."""

import hashlib
import logging
import os
import pathlib
import platform
import tempfile

KEPT_MAX_BYTES = 2 * 2**30  # of compiled programs on the disk; those that were used longest ago go first
CPU_FACTS = ("model name", "flags", "Features", "CPU implementer", "CPU part")
logger = logging.getLogger("fer_jax")


def source_digest(*folders: str) -> str:
    """Returns a digest of this package's source, or of those of its folders that are named."""
    package, digest = pathlib.Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for folder in folders or ("",) for path in (package / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(package)}:{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


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
    """Says whether XLA loads what it compiled for this CPU, in silence; tried once, logged and written to the folder.

    On some it takes a preference of its compiler for an instruction that the CPU lacks, and says so on stderr for each
    program (https://github.com/jax-ml/jax/issues/38445).
    """
    import jax

    answer = folder / f"loads-{jax.lib.__version__}"
    if not answer.exists():
        loads = _loads_in_silence()
        answer.write_text("yes" if loads else "no")
        if not loads:
            logger.info("compiled programs are not kept: XLA does not load its own ones on this CPU")
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
