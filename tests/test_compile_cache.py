"""Where compiled programs are kept, and where not."""

import jax

from fer_jax.runtime import compile_cache


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
