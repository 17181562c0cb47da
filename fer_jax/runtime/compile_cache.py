"""The cache of compiled programs on disk."""

import hashlib
import logging
import os
import pathlib
import platform
import tempfile

KEPT_MAX_BYTES = 2 * 2**30  # of compiled programs on disk; the least recently used are deleted first
CPU_FACTS = ("model name", "flags", "Features", "CPU implementer", "CPU part")
logger = logging.getLogger("fer_jax")


def source_digest(*folders: str) -> str:
    """Returns a digest of this package's source, or of the given folders only."""
    package, digest = pathlib.Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for folder in folders or ("",) for path in (package / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(package)}:{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def keep_compiled(cache_dir) -> pathlib.Path | None:
    """Caches the programs that JAX compiles in `<cache_dir>/compiled/<kind of CPU>`, for the next start.

    JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE take precedence if set. If programs cannot be cached,
    this logs it, and they are compiled at each start.

    Returns:
      the folder, or None if nothing is cached there.
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
    """Returns a name for this kind of CPU: a program may contain instructions that another CPU lacks."""
    try:
        first = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        facts = [line for line in first.splitlines() if line.startswith(CPU_FACTS)]
    except OSError:
        facts = [platform.processor()]
    return f"{platform.machine()}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"


def _loads_on_cpu(folder) -> bool:
    """Whether XLA loads its own programs on this CPU without a warning; tried once, and recorded in the folder.

    On some CPUs it mistakes a preference of its compiler for a missing instruction, and warns on stderr about each
    program (https://github.com/jax-ml/jax/issues/38445).
    """
    import jax

    answer = folder / f"loads-{jax.lib.__version__}"
    if not answer.exists():
        loads = _loads_in_silence()
        answer.write_text("yes" if loads else "no")
        if not loads:
            logger.info("compiled programs are not kept: XLA does not load its own programs on this CPU")
    return answer.read_text() != "no"


def _loads_in_silence():
    import jax
    from jax.experimental import serialize_executable

    kept = serialize_executable.serialize(jax.jit(lambda x: x + 1).lower(0.0).compile())
    with tempfile.TemporaryFile() as output:
        stderr = os.dup(2)
        os.dup2(output.fileno(), 2)
        try:
            serialize_executable.deserialize_and_load(*kept)
        except Exception:
            return False
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        return os.fstat(output.fileno()).st_size == 0


def _drop_unfinished(folder):
    """Deletes partial files of killed processes: a program gets its `-atime` file once it is complete.

    JAX would warn about a partial program at each start, and would never overwrite a program without that file.
    """
    for program in folder.glob("*-cache"):
        if not program.with_name(program.name.removesuffix("cache") + "atime").exists():
            program.unlink(missing_ok=True)
