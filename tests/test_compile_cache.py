"""Programs are kept, found again by what they are made from, and made anew where what was kept is of no use."""

import jax
import jax.numpy as jnp
import pytest

from fer_jax import steps
from fer_jax.runtime import compile_cache

SHARDING = steps.make_shardings()[1]  # over all devices, as all programs of steps
ARGS = (jax.ShapeDtypeStruct((3,), jnp.float32, sharding=SHARDING),) * 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that `keep_compiled` gives, and JAX's settings as they were after the test."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = {name: value for name, value in jax.config.values.items() if "cache" in name}
    folder = compile_cache.keep_compiled(tmp_path)
    for name, value in before.items():
        jax.config.update(name, value)
    if folder is None:
        pytest.skip("XLA does not load what it compiles for this CPU")
    return folder


@pytest.fixture
def compiled():
    """The names of the programs that XLA compiles."""
    names = []

    def listen(event, _, fun_name="", **__):
        if "backend_compile" in event:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def make(folder, facts, factor=2.0):
    """Returns (the program of a step, how often it was traced)."""
    traced = []

    def step(x, y):
        traced.append(1)
        return x * factor + y, y

    jitted = jax.jit(step, donate_argnums=0)
    program = compile_cache.Kept(folder, facts).compile_beside(jitted, ARGS, ARGS).result()
    return program, len(traced)


def results(program):
    return [result.tolist() for result in program(*jax.device_put((jnp.arange(3.0), jnp.ones(3)), SHARDING))]


def files(folder, kind=""):
    return sorted(folder.glob(f"steps/{kind}*"))


def test_a_second_start_neither_traces_nor_compiles(folder, compiled):
    first, traced = make(folder, {"seed": 0})
    assert traced == 1
    assert compiled == ["jit(step)"]
    second, traced = make(folder, {"seed": 0})
    assert traced == 0
    assert compiled == ["jit(step)"]
    assert results(first) == results(second) == [[1, 3, 5], [1, 1, 1]]
    assert second.memory_analysis().alias_size_in_bytes == first.memory_analysis().alias_size_in_bytes == 12


@pytest.mark.parametrize("changed", ["facts", "source", "library", "settings"])
def test_what_is_made_from_something_else_is_traced_anew(folder, monkeypatch, changed):
    make(folder, {"seed": 0})
    if changed == "source":
        monkeypatch.setattr(compile_cache, "source_digest", lambda: "another")
    if changed == "library":
        monkeypatch.setattr(compile_cache.importlib.metadata, "version", lambda name: f"{name} 99")
    if changed == "settings":
        monkeypatch.setenv("XLA_FLAGS", "--xla_another")
    program, traced = make(folder, {"seed": 1 if changed == "facts" else 0}, factor=3.0)
    assert traced == 1
    assert results(program) == [[1, 4, 7], [1, 1, 1]]


def test_the_same_lowered_program_is_compiled_once(folder, compiled, monkeypatch):
    make(folder, {"epochs": 1})
    program, traced = make(folder, {"epochs": 2})
    assert traced == 1
    assert compiled == ["jit(step)"]
    assert results(program) == [[1, 3, 5], [1, 1, 1]]
    monkeypatch.setenv("FER_JAX_CPU_PATH", "off")  # with other compiler options
    make(folder, {"epochs": 2})
    assert compiled == ["jit(step)"] * 2


@pytest.mark.parametrize("kept", [b"", b"no pickle", None])
def test_a_damaged_file_is_replaced(folder, compiled, kept):
    make(folder, {})
    (path,) = files(folder, "start")  # and the program, which is the same file
    path.write_bytes(path.read_bytes()[:-1000] if kept is None else kept)
    program, traced = make(folder, {})
    assert traced == 1
    assert compiled == ["jit(step)"] * 2
    assert results(program) == [[1, 3, 5], [1, 1, 1]]
    assert make(folder, {})[1] == 0


def test_a_folder_that_cannot_be_written_stops_nothing(folder):
    (folder / "steps").write_text("a file in the folder's place")
    for _ in range(2):
        program, traced = make(folder, {})
        assert traced == 1
        assert results(program) == [[1, 3, 5], [1, 1, 1]]


def test_no_more_than_so_many_files_are_kept(folder, monkeypatch):
    monkeypatch.setattr(compile_cache, "KEPT_FILES", 4)
    for seed in range(4):
        make(folder, {"seed": seed}, factor=float(seed + 2))
    assert len(files(folder)) <= 5
    assert make(folder, {"seed": 3}, factor=5.0)[1] == 0
    assert make(folder, {"seed": 0}, factor=2.0)[1] == 1


def test_a_folder_that_cannot_be_written_is_said_once_and_does_not_stop(tmp_path, caplog):
    (tmp_path / "compiled").write_text("a file in the folder's place")
    before = jax.config.jax_compilation_cache_dir
    compile_cache.keep_compiled(tmp_path)
    assert jax.config.jax_compilation_cache_dir == before
    (record,) = caplog.records
    assert str(tmp_path) in record.message
    assert "data.cache_dir" in record.message


def test_what_the_user_set_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    compile_cache.keep_compiled(tmp_path)
    assert not list(tmp_path.iterdir())
