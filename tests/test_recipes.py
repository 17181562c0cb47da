"""The ablation of recipes: every one is a config that builds, and the table says what has been run."""

import importlib.util
import pathlib
import types

import pytest

from fer_jax import augment, losses, mixing, optim
from fer_jax import config as config_lib

FILE = pathlib.Path(__file__).parents[1] / "experiments/recipes/run.py"


@pytest.fixture(scope="module")
def recipes():
    spec = importlib.util.spec_from_file_location("recipes_run", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_recipe_builds_and_differs_from_lean(recipes):
    plain = config_lib.to_dict(config_lib.load("lean"))
    for recipe in recipes.RECIPES:
        config = config_lib.load("lean")
        values = {name: ("a", "b") if name == "loss.teacher" else value for name, value in recipes.fields(recipe)}
        config.update_from_flattened_dict(values)
        losses.make_objective(config.loss, [1, 1])
        augment.make(config.augment, 48)
        mixing.make(config.augment, 7)
        optim.make(config.optim, steps_per_epoch=10, epochs=config.train.epochs)
        changed = config_lib.differences(plain, config_lib.to_dict(config))
        assert len(changed) >= len(values) - ("data.votes_path" in values)


def test_commands_name_the_fields_and_one_split(recipes):
    options = types.SimpleNamespace(runs="/runs", votes_path="/votes.csv", data_path="/fer")
    workdir, (train, *scores) = recipes.commands("soft targets of FER+", 1, options)
    assert workdir.name == "soft-targets-of-fer-1"
    assert "--config.data.votes_path=/votes.csv" in train and "--config.seed=1" in train
    assert all(line[line.index("--split") + 1] == "validation" for line in scores)
    _, (train, *_) = recipes.commands("distillation from two lean", 0, options)
    assert "--config.loss.teacher=('/runs/lean-0','/runs/lean-1')" in train


def test_the_table_has_whole_recipes_alone(recipes):
    def run(recipe, seed, accuracy):
        views = recipes.views_of(recipe)
        scores = {view: {"accuracy": accuracy, "macro_f1": 0.5, "loss": 1.0} for view in views}
        return {"recipe": recipe, "seed": seed, "validation": scores, "hours": 1.0, "run": {"device": "a CPU"}}

    runs = [run("lean", 0, 0.60), run("lean", 1, 0.62), run("SAM, 0.05", 0, 0.64), run("SAM, 0.05", 1, 0.66)]
    runs.append(run("mixup, 0.2", 0, 0.9))
    text = recipes.table({(one["recipe"], one["seed"]): one for one in runs})
    assert "| SAM, 0.05 | 0.6400, 0.6600 | 0.6500 | +4.0 |" in text
    assert "| lean | 0.6000, 0.6200 | 0.6100 | - |" in text and "views ten_crop" in text
    assert "0.9000" not in text and "mixup, 0.2" in text.split("Not run whole yet")[1]
