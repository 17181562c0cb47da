import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from fer_jax import config as config_lib
from fer_jax import fields, models, optim, space
from fer_jax.errors import InputError

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.py") if not path.name.startswith("_"))
RESULT_FIELDS = {
    "seed": 1,
    "augment.zoom": 0.2,
    "data.classes": ("happy", "sad"),
    "data.feeder": "resident",
    "model.dtype": "bfloat16",
    "optim.plateau.factor": 0.5,
    "train.early_stopping.patience_epochs": 3,
}
OTHER_FIELDS = {
    "data.path": "/elsewhere",
    "data.votes_path": "/votes.csv",
    "data.cache_dir": "/cache",
    "log.every_steps": 7,
    "log.profile_steps": 5,
    "log.profile_from_step": 20,
    "log.writers": ("tensorboard", "mlflow"),
}


def variants_of(path):
    return list(getattr(config_lib.load_module(path), "VARIANTS", [None]))


def variants():
    return [(path, name) for path in FILES for name in variants_of(path)]


def build(path, name):
    return config_lib.load(f"{path}:{name}" if name else path)


def build_runnable(path, name):
    """Returns the config of a variant, of a search that of its first trial, of an average one with members."""
    config = build(path, name)
    if config.model.name == "average":
        config.model.member_models = ({"layers": "flatten"}, {"name": "efficientnet_lite0", "size_px": 32})
    return space.fill(config, space.parse(config.search)[1]) if config.search.space else config


def changed(**fields):
    config = config_lib.get_default()
    config.update_from_flattened_dict(fields)
    return config


def name_of(value):
    return value.stem if isinstance(value, pathlib.Path) else value


def test_there_are_configs():
    assert FILES


@pytest.mark.parametrize(("path", "name"), variants(), ids=name_of)
def test_a_config_is_a_difference(path, name):
    config, default = build_runnable(path, name), config_lib.get_default()
    assert config.is_locked
    assert config_lib.differences(config_lib.to_dict(default), config_lib.to_dict(config))
    config_lib.from_dict(config_lib.to_dict(config))  # no field and no type of its own
    fields.check(config)
    optim.make(config.optim, steps_per_epoch=200, epochs=config.train.epochs)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param(path, name, marks=() if name == variants_of(path)[0] else pytest.mark.full)
        for path, name in variants()
    ],
    ids=name_of,
)
def test_a_config_builds(path, name):
    config = build_runnable(path, name)
    logits = trace(json.dumps(config_lib.to_dict(config)["model"], sort_keys=True))
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)


@functools.cache
def trace(section):
    """Returns the shape and dtype of the logits of a model section, given as JSON: many variants have the same one."""
    model = models.make(config_lib.from_dict({"model": json.loads(section)}).model, 7)
    faces = jnp.zeros((2, 48, 48, 1), jnp.uint8)
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), faces, train=False))[0]


def test_no_two_variants_are_the_same_run():
    digests = [config_lib.digest(build(path, name)) for path, name in variants()]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_config_file_is_short_and_says_how_to_run_it(path):
    text = path.read_text()
    assert len(text.splitlines()) < 40
    module = "search" if build(path, variants_of(path)[0]).search.space else "main"
    assert f"python -m fer_jax.{module} --config configs/{path.name}" in config_lib.load_module(path).__doc__


@pytest.mark.parametrize("path", [path for path in FILES if variants_of(path) != [None]], ids=name_of)
def test_an_unknown_variant_is_refused_with_the_known_ones(path):
    with pytest.raises(InputError) as caught:
        config_lib.load(f"{path}:model_x")
    assert str(caught.value).endswith("'model_x' of this config; known are " + ", ".join(variants_of(path)))


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "mine.py", r"mine\.py not found: give a config as NAME, FILE\.py"),
        (None, "lean.py", r"lean\.py not found; the package has one of that name: --config lean$"),
        ("", "", r"no config is named '/.*': give a config as NAME"),
        ("config = 1", "mine.py", r"mine\.py has no get_config"),
        ("def get_config(): return {", "mine.py", r"mine\.py cannot be read: SyntaxError"),
        ("import no_such_module", "mine.py", r"mine\.py cannot be read: ModuleNotFoundError: .*no_such_module"),
        ("def get_config(): return 1 / 0", "mine.py", r"mine\.py cannot be read: ZeroDivisionError"),
        ("def get_config(): return None", "mine.py", r"mine\.py cannot be read: AttributeError"),
        ("import sys; sys.exit(0)", "mine.py", r"mine\.py cannot be read: SystemExit"),
        ("def get_config(): return None", "mine.py:wide", r"mine\.py has no variants: leave ':wide' out"),
        ("def get_config(variant): return None", "mine.py", r"mine\.py has only variants: name one"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_named(text, name, message, tmp_path):
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        config_lib.load(tmp_path / name)


def test_a_config_is_found_by_its_name_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_lib.known() == {path.stem: path for path in FILES}
    for name in ("lean", "cnn:model_3"):
        file, _, variant = name.partition(":")
        assert config_lib.digest(config_lib.load(name)) == config_lib.digest(build(CONFIGS / f"{file}.py", variant))


def test_the_configs_of_the_current_folder_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    text = "from fer_jax import config\ndef get_config():\n    return config.get_default()\n"
    for name in ("lean", "mine", "_parts"):
        (tmp_path / "configs" / f"{name}.py").write_text(text)
    assert config_lib.find("lean") == config_lib.find("configs/lean.py") == pathlib.Path("configs/lean.py")
    assert config_lib.find("demo") == CONFIGS / "demo.py"
    assert set(config_lib.known()) == {path.stem for path in FILES} | {"mine"}


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError) as caught:
        config_lib.load("leen:wide")
    assert str(caught.value).startswith("no config is named 'leen': did you mean lean? give a config as NAME")
    assert str(caught.value).endswith("known are " + ", ".join(path.stem for path in FILES))


def test_a_config_builds_on_the_one_beside_it_and_on_no_other(tmp_path):
    (tmp_path / "base.py").write_text("WIDTH = 3\n")
    (tmp_path / "cnn.py").write_text(
        "from fer_jax import config\nWIDTH = config.load_neighbour(__file__, 'base').WIDTH\n"
    )
    (tmp_path / "alone.py").write_text("from fer_jax import config\nconfig.load_neighbour(__file__, 'lean')\n")
    assert config_lib.load_module(tmp_path / "cnn.py").WIDTH == 3
    with pytest.raises(InputError, match=r"lean\.py not found"):
        config_lib.load_module(tmp_path / "alone.py")


def test_a_config_file_anywhere_is_loaded_and_locked(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from ml_collections import config_dict\n"
        "WIDTHS = {'narrow': 1, 'wide': 2}\n"
        "def get_config(variant='narrow'): return config_dict.ConfigDict({'width': WIDTHS[variant]})\n"
    )
    assert config_lib.load(tmp_path / "mine.py").width == 1
    wide = config_lib.load(f"{tmp_path}/mine.py:wide")
    assert wide.width == 2 and wide.is_locked


def test_the_default_refuses_unknown_fields_and_wrong_types():
    config = config_lib.get_default()
    with pytest.raises(AttributeError):
        config.optim.learning_rat = 0.1
    with pytest.raises(AttributeError):
        config.extra = 1
    with pytest.raises(TypeError):
        config.train.epochs = "many"


def test_two_defaults_share_nothing():
    config_lib.get_default().optim.plateau.factor = 0.7
    assert config_lib.get_default().optim.plateau.factor == 0.1


@pytest.mark.parametrize("field", RESULT_FIELDS)
def test_digest_and_differences_see_what_can_change_a_result(field):
    before, after = config_lib.get_default(), changed(**{field: RESULT_FIELDS[field]})
    assert config_lib.digest(before) != config_lib.digest(after)
    (line,) = config_lib.differences(config_lib.to_dict(before), config_lib.to_dict(after))
    assert line.startswith(f"{field}: ")


@pytest.mark.parametrize("field", OTHER_FIELDS)
def test_digest_and_differences_pass_over_where_things_lie(field):
    before, after = config_lib.get_default(), changed(**{field: OTHER_FIELDS[field]})
    assert config_lib.to_dict(before) != config_lib.to_dict(after)
    assert config_lib.digest(before) == config_lib.digest(after)
    assert config_lib.differences(config_lib.to_dict(before), config_lib.to_dict(after)) == []


def test_differences_list_old_and_new_in_order():
    old, new = config_lib.to_dict(config_lib.get_default()), config_lib.to_dict(changed(**{"seed": 3}))
    del old["augment"]["zoom"]
    new["optim"]["name"] = "sgd"
    assert config_lib.differences(old, new) == [
        "augment.zoom: 'absent', now 0.0",
        "optim.name: 'adam', now 'sgd'",
        "seed: 0, now 3",
    ]


def test_a_config_comes_back_whole_from_json():
    config = changed(**RESULT_FIELDS, **OTHER_FIELDS)
    back = config_lib.from_dict(json.loads(json.dumps(config_lib.to_dict(config))))
    assert back.to_dict() == config.to_dict()
    assert back.is_locked
    assert back.data.classes == ("happy", "sad")
    assert config_lib.digest(back) == config_lib.digest(config)


def test_a_saved_field_that_has_been_retired_is_dropped():
    saved = config_lib.to_dict(config_lib.get_default())
    saved["log"] = {"every_steps": 7, "tensorboard": True}
    saved["model"]["cpu_path"] = False
    assert config_lib.from_dict(saved).to_dict() == changed(**{"log.every_steps": 7}).to_dict()


def test_a_saved_field_that_is_not_known_is_named():
    saved = config_lib.to_dict(config_lib.get_default())
    saved["optim"]["lookahead"] = 5
    saved["ema"] = {"decay": 0.9}
    with pytest.raises(InputError, match=r"does not know: ema\.decay, optim\.lookahead"):
        config_lib.from_dict(saved)
