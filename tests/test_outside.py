"""A model, a loss and an optimizer from a user's files: trained, resumed, evaluated, averaged, and what is refused.

The files are those of docs/extending.md, whose commands are run as they stand there.
"""

import json
import pathlib
import re
import shlex
import shutil

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import config as config_lib
from fer_jax import freezing, inference, losses, models, optim, scoring, search, submission, train
from fer_jax import params as params_lib
from fer_jax.errors import InputError

DOCS = (commands.ROOT / "docs" / "extending.md").read_text()
# The package's own cross-entropy and Adam, as a user would write them.
REWRITTEN = """\
import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits, targets, mask):
    nats = -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)
    return jnp.sum(nats * mask), jnp.sum(mask)


def adam(section, b1=0.9, b2=0.999, eps=1e-7):
    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(grads, state, params=None):
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        count = state.count + 1
        factor = jnp.sqrt(1 - b2**count) / (1 - b1**count)  # Keras adds epsilon before it corrects
        steps = jax.tree.map(lambda m, v: factor * m / (jnp.sqrt(v) + eps), mu, nu)
        return steps, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)
"""


def write_docs(folder):
    """Writes the files of the page into a folder, and `mine.py`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", DOCS, flags=re.DOTALL)
    for name, text in [*blocks, ("mine.py", REWRITTEN)]:
        (folder / name).write_text(text)
    return folder


def make_config(**fields):
    config = config_lib.get_default()
    config.data.update({"drawn_size": "tiny", "name": "drawn_faces", "feeder": "resident"})
    config.train.update({"batch_size": 64, "epochs": 2})
    config.update_from_flattened_dict({"model.name": "my_net.py:TinyNet", **fields})
    return config


MINE = {"loss.name": "mine.py:cross_entropy", "optim.name": "mine.py:adam", "optim.weight_decay": 0.01}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the files, in which `runs/mine` is trained and evaluated by the commands of the page."""
    folder = write_docs(tmp_path_factory.mktemp("project"))
    (folder / "configs").symlink_to(commands.ROOT / "configs")
    (script,) = re.findall(r"```sh\n(.*?)```", DOCS, flags=re.DOTALL)
    for line in script.replace("\\\n", "").splitlines():
        python, _, module, *flags = shlex.split(line)
        assert python == "python"
        if module == "fer_jax.main":
            flags += ["--config.data.drawn_size=tiny", "--config.data.feeder=resident", "--config.train.epochs=1"]
        result = commands.run(module.removeprefix("fer_jax."), *flags, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs with relative names: by our own loss and optimizer, by the user's, and of another `my_net.py`."""
    folder = write_docs(tmp_path_factory.mktemp("runs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.train(make_config(**{"optim.weight_decay": 0.01}), folder / "ours")
        train.train(make_config(**MINE), folder / "mine")
        other = write_docs(folder / "other")
        text = (other / "my_net.py").read_text()
        (other / "my_net.py").write_text(text.replace("(8, 16)", "(4,)"))
        patch.chdir(other)
        train.train(make_config(**{"train.epochs": 1}), folder / "small")
    return folder


@pytest.fixture
def copied(runs, tmp_path, monkeypatch):
    """The files and the run `mine` as if they had just been made, in the current directory."""
    folder = write_docs(tmp_path / "work")
    shutil.copytree(runs / "mine", folder / "run")
    record = json.loads((folder / "run" / "run.json").read_text())
    for source in record["sources"].values():
        source["file"] = str(folder / pathlib.Path(source["file"]).name)
    (folder / "run" / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(folder)
    return folder


def assert_same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def restored(workdir):
    """Returns all arrays of the latest training state."""
    import orbax.checkpoint as ocp

    (step,) = sorted(path.name for path in (workdir / "checkpoints" / "latest").iterdir() if path.name == "22")
    return ocp.StandardCheckpointer().restore((workdir / "checkpoints" / "latest" / step / "tree").absolute())


@pytest.mark.full
def test_the_commands_of_the_page_work_as_they_stand(folder):
    record = json.loads((folder / "runs" / "mine" / "run.json").read_text())
    assert {field: pathlib.Path(source["file"]).name for field, source in record["sources"].items()} == {
        "model.name": "my_net.py",
        "loss.name": "my_loss.py",
        "optim.name": "my_optim.py",
    }
    scores = json.loads((folder / "runs" / "mine" / "evaluation-validation.json").read_text())
    assert scores["n"] == 140
    assert scores["parameters"] == (9 * 8 + 4 * 8) + (9 * 8 * 16 + 4 * 16) + (16 + 1) * 7


@pytest.mark.full
def test_a_command_uses_the_copy_of_a_file_that_is_gone_and_refuses_to_train_on_with_another(folder, tmp_path):
    run = folder / "runs" / "mine"
    before = (run / "evaluation-validation.npz").read_bytes()
    flags = shlex.split(json.loads((run / "run.json").read_text())["command"])[3:]
    net, loss = folder / "my_net.py", folder / "my_loss.py"
    texts = {path: path.read_text() for path in (net, loss)}
    try:
        loss.write_text(loss.read_text().replace("+ 1 -", "+ 2 -"))
        resumed = commands.run("main", *flags, cwd=folder)
        assert resumed.returncode == 2
        for words in (f"loss.name: {loss} has the digest", "another --workdir", "sources has the original files"):
            assert words in resumed.stderr
        net.unlink()
        evaluated = commands.run("evaluate", f"--workdir={run}", "--split=validation", cwd=tmp_path)
        assert evaluated.returncode == 0, evaluated.stderr
        assert evaluated.stderr.count(f"{net} is gone since") == 1
    finally:
        for path, text in texts.items():
            path.write_text(text)
    with np.load(run / "evaluation-validation.npz") as after:
        probs = after["probs"]
    (run / "evaluation-validation.npz").write_bytes(before)
    with np.load(run / "evaluation-validation.npz") as first:
        np.testing.assert_array_equal(probs, first["probs"])


@pytest.mark.full
def test_a_rewritten_loss_and_optimizer_end_with_the_bits_of_the_built_in_ones(runs):
    assert_same(restored(runs / "ours"), restored(runs / "mine"))


@pytest.mark.full
def test_a_run_that_was_cut_off_ends_with_the_same_bits(copied, runs):
    class Cut(Exception):
        pass

    def cut_off(epoch, scores):
        raise Cut

    with pytest.raises(Cut):
        train.train(make_config(**MINE), copied / "cut", on_epoch=cut_off)
    # The same files by other names of the same text are the same run.
    train.train(make_config(**MINE | {"model.name": f"{copied}/my_net.py:TinyNet"}), copied / "cut")
    assert_same(restored(copied / "cut"), restored(runs / "mine"))


@pytest.mark.full
def test_a_changed_optimizer_is_not_resumed_with(copied):
    (copied / "mine.py").write_text(REWRITTEN.replace("1e-7", "1e-8"))
    with pytest.raises(InputError) as caught:
        train.train(make_config(**MINE), copied / "run")
    lines = str(caught.value).splitlines()
    digests = {json.loads((copied / "run" / "run.json").read_text())["sources"]["optim.name"]["digest"]}
    assert [line.split(": ")[0].strip() for line in lines[1:-1]] == ["loss.name", "optim.name"]
    assert all(digest in lines[2] for digest in digests)


@pytest.mark.full
def test_another_name_of_a_file_is_another_config(copied):
    with pytest.raises(InputError, match=r"optim.name: 'mine.py:adam', now 'mine.py:adamw'"):
        (copied / "mine.py").write_text(REWRITTEN + "\n\nadamw = adam\n")
        train.train(make_config(**MINE | {"optim.name": "mine.py:adamw"}), copied / "run")


@pytest.mark.full
def test_prediction_finds_the_code_or_refuses(copied, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48 * 48))
    table = tmp_path / "test.csv"
    table.write_text("pixels\n" + "\n".join(" ".join(map(str, row)) for row in pixels))
    submission.predict_table(copied / "run", table, tmp_path / "before.csv", format="csv")
    (copied / "my_net.py").write_text("raise ValueError('another file')\n")
    submission.predict_table(copied / "run", table, tmp_path / "after.csv", format="csv")
    assert (tmp_path / "before.csv").read_text() == (tmp_path / "after.csv").read_text()
    assert f"{copied / 'my_net.py'} has changed since" in caplog.text
    for copy in (copied / "run" / "sources").glob("*/my_net.py"):
        copy.write_text("")
    with pytest.raises(
        InputError, match=r"my_net.py has changed since .* its copy .* has changed: restore the file with"
    ):
        submission.predict_table(copied / "run", table, tmp_path / "refused.csv", format="csv")


@pytest.mark.full
def test_an_average_finds_the_code_of_its_members_and_then_needs_neither(copied, runs, tmp_path, monkeypatch):
    paths = [shutil.copytree(copied / "run", tmp_path / "a"), shutil.copytree(runs / "small", tmp_path / "b")]
    (copied / "my_net.py").write_text("")
    config = make_config(**{"model.name": "average", "model.members": tuple(map(str, paths)), "train.epochs": 2})

    def cut_off(epoch, scores):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(config, tmp_path / "average", on_epoch=cut_off)
    mine, other = (inference.load(path) for path in paths)
    average = inference.load(tmp_path / "average")
    assert params_lib.count(average.variables) == params_lib.count(mine.variables) + params_lib.count(other.variables)
    for path in paths:
        shutil.rmtree(path)
    train.train(config, tmp_path / "average")
    assert scoring.evaluate(tmp_path / "average", split="validation")["epoch"] in (1, 2)


@pytest.mark.full
def test_a_search_tries_them_and_does_not_mix_two_texts_of_a_file(copied, tmp_path):
    fields = {"search.space": ("loss.name choice my_loss.py:poly mine.py:cross_entropy",), "train.epochs": 1}
    config = make_config(**fields, **{"optim.name": "my_optim.py:lion", "optim.learning_rate": 1e-4})
    (trial,) = search.search(config, tmp_path / "study", trials=1).trials
    found = inference.load(tmp_path / "study" / trial.user_attrs["workdir"])
    assert found.run["sources"]["loss.name"]["file"] == str(copied / trial.params["loss.name"].split(":")[0])
    (copied / "my_optim.py").write_text((copied / "my_optim.py").read_text() + "\n")
    with pytest.raises(InputError, match=r"holds a search with another config:\s*optim.name: .*my_optim.py has the"):
        search.search(config, tmp_path / "study", trials=2)


def build(**fields):
    config = make_config(**fields)
    config.train.epochs = 4
    return freezing.make_phases(config, 7, image_shape=(48, 48, 1), steps_per_epoch=11)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes mine.py into the current directory."""
    write_docs(tmp_path)
    monkeypatch.chdir(tmp_path)
    imports = "import flax.linen as nn\nimport jax\nimport jax.numpy as jnp\nimport optax\n\n\n"
    return lambda text: (tmp_path / "mine.py").write_text(imports + text)


NET = """
class Net(nn.Module):
    classes: int{fields}

    @nn.compact
    def __call__(self, image, *, train):
        x = image.reshape(len(image), -1) / 255.0
        {body}
"""


def net(body, fields=""):
    return NET.format(body=body, fields=fields)


def test_freezing_takes_the_layers_of_the_network_by_their_paths(mine):
    (phase,) = build(**{"optim.freeze": ("conv_0", "norm_.*"), "optim.frozen_statistics": "updated"})
    assert phase.frozen == {"conv_0", "norm_0", "norm_1"}
    first, second = build(
        **{"optim.freeze": ("conv_.*",), "optim.fine_tune.after_epochs": 2, "optim.fine_tune.freeze": ("conv_0",)}
    )
    assert (first.frozen, second.frozen) == ({"conv_0", "conv_1"}, {"conv_0"})


def test_stored_statistics_are_the_networks_own_business(mine):
    mine(
        net(
            'x = nn.BatchNorm(use_running_average=not train or "norm" in self.stored, name="norm")(x)\n'
            '        return Head(name="backbone")(x)',
            "\n    stored: frozenset = frozenset()",
        )
        + "\n\nclass Head(nn.Module):\n    @nn.compact\n    def __call__(self, x):\n        return nn.Dense(7)(x)\n"
    )
    (phase,) = build(**{"model.name": "mine.py:Net", "optim.freeze": ("norm",)})
    variables = phase.model.init(jax.random.key(0), jnp.zeros((2, 48, 48, 1), jnp.uint8), train=False)
    faces = np.full((2, 48, 48, 1), 200, np.uint8)
    _, changed = phase.model.apply(variables, faces, train=True, mutable=["batch_stats"])
    assert_same(dict(changed).get("batch_stats", variables["batch_stats"]), variables["batch_stats"])
    with pytest.raises(InputError, match=r"TinyNet has no field `stored` .* norm_0, norm_1 use stored"):
        build(**{"optim.freeze": ("norm_.*",)})
    # A scope that is called backbone is no backbone of the package's: there are no features to keep.
    (phase,) = build(**{"model.name": "mine.py:Net", "optim.freeze": ("backbone",)})
    assert (phase.frozen, phase.backbone_frozen) == ({"backbone/Dense_0"}, False)


def test_its_logits_are_float32_and_its_dtype_that_of_the_config(mine):
    mine(net("return nn.Dense(self.classes, dtype=self.dtype)(x)", "\n    dtype: jnp.dtype = jnp.float32"))
    faces = jnp.zeros((3, 48, 48, 1), jnp.uint8)
    for dtype in ("float32", "bfloat16"):
        model = models.make(make_config(**{"model.name": "mine.py:Net", "model.dtype": dtype}).model, 7)
        logits, variables = jax.eval_shape(lambda m=model: m.init_with_output(jax.random.key(0), faces, train=False))
        assert logits.dtype == jnp.float32
        assert str(jnp.dtype(model.network.dtype)) == dtype
        assert list(variables["params"]) == ["Dense_0"]


DENSE = "return nn.Dense(7)(x)"
CACHE = 'self.variable("cache", "n", jnp.zeros, [])\n        return nn.Dense(7)(x)'


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        (
            "def Net(section): return 1",
            {},
            "Net is of type function; it must be a class of flax.linen.Module, or a Row",
        ),
        ("class Net: pass", {}, "mine.py:Net is a class; it must be a class of flax.linen.Module"),
        (net("return x[:, :8]"), {}, "Net returns [1, 8] for 1 face of 7 classes: it must return logits [1, 7]"),
        (net("return nn.Dense(7)(x), x"), {}, "mine.py:Net returns a tuple for 1 face"),
        (net("return x[:, :7]"), {}, "mine.py:Net has no parameters to train"),
        (net(CACHE), {}, "has variables in cache: only params and batch_stats are saved"),
        (net(DENSE).replace(", *, train", ""), {}, "has no argument `train`: define __call__(self"),
        (net(DENSE, "\n    width: int"), {}, "mine.py:Net fails, TypeError: "),
        (net(DENSE), {"model.dtype": "bfloat16"}, "declare a field `dtype`"),
        (net(DENSE), {"model.size_px": 96}, "model.size_px is 96, which has no effect on mine.py:Net: set it to 0"),
        (net(DENSE), {"optim.freeze_first_layers": 3}, "Keras has no network 'mine.py:Net': use optim.freeze"),
        (net(DENSE), {"optim.freeze": ("backbone",)}, "matches no layer; layers are, for instance, Dense_0"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_before_that(mine, text, fields, message):
    mine(text)
    with pytest.raises(InputError) as caught:
        build(**{"model.name": "mine.py:Net", **fields})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def loss(logits, targets): return logits", "mine.py:loss fails, TypeError: "),
        ("def loss(*rows): return sum(rows)", "mine.py:loss fails, line 7: "),
        ("def loss(x, y, mask): return jnp.sum(x)", "mine.py:loss returns []; it must be a function (logits [B, K]"),
        ("def loss(x, y, mask): return x.sum(1), mask", "mine.py:loss returns [4], [4]; it must be"),
        ("loss = 3", "mine.py:loss is of type int; it must be a function"),
    ],
)
def test_a_loss_that_is_no_sum_is_refused(mine, text, message):
    mine(text)
    with pytest.raises(InputError) as caught:
        losses.make(make_config(**{"loss.name": "mine.py:loss"}).loss)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule = 3", "mine.py:rule is of type int; it must be a function (section)"),
        ("rule = optax.scale_by_lion()", "is of type GradientTransformation"),
        ("def rule(s): return s.rate", "mine.py:rule fails, line 7: AttributeError"),
        ("def rule(s): return 1e-3", "mine.py:rule returns a float; it must be"),
        ("def rule(s): return optax.lion(1e-3)", "steps against the gradient"),
    ],
)
def test_an_optimizer_that_gives_no_directions_is_refused(mine, text, message):
    mine(text)
    with pytest.raises(InputError) as caught:
        optim.make(make_config(**{"optim.name": "mine.py:rule"}).optim, steps_per_epoch=10, epochs=1)
    assert message in str(caught.value)


def test_the_package_clips_before_an_optimizer_and_decays_and_sets_the_rate_after_it(mine):
    mine("def rule(section): return optax.scale(section.momentum)")
    fields = {"momentum": 0.5, "clip_norm": 1.0, "weight_decay": 0.1, "learning_rate": 0.2}
    config = make_config(**{"optim.name": "mine.py:rule", **{f"optim.{name}": value for name, value in fields.items()}})
    tx, _ = optim.make(config.optim, steps_per_epoch=10, epochs=1)
    params = {"dense": {"kernel": np.full((2, 2), 3.0, np.float32), "bias": np.zeros(2, np.float32)}}
    grads = {"dense": {"kernel": np.full((2, 2), 4.0, np.float32), "bias": np.zeros(2, np.float32)}}
    updates, _ = tx.update(grads, tx.init(params), params, lr_scale=0.5)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.2 * 0.5 * (0.5 * 4 / 8 + 0.1 * 3.0), rtol=1e-6)
    np.testing.assert_array_equal(updates["dense"]["bias"], 0)


def test_a_network_of_the_page_gets_the_head_and_the_size_of_the_config(mine):
    fields = {"model.name": "my_backbone.py:SMALL", "model.size_px": 32, "model.head": "flatten, dense 5 relu"}
    (phase,) = build(**fields, **{"optim.freeze": ("backbone",)})
    assert phase.backbone_frozen
    shapes = {
        path: leaves["kernel"].shape
        for path, leaves in params_lib.layers(phase.abstract.params).items()
        if "kernel" in leaves
    }
    assert shapes["head/dense"] == (4 * 4 * 16, 5)
    tune = {"optim.fine_tune.after_epochs": 2, "optim.fine_tune.unfreeze_from": "top", "optim.freeze": ("backbone",)}
    assert build(**fields, **tune)[1].frozen == {"backbone/stem", "backbone/stem_bn"}


def test_weights_by_name_are_refused_for_a_network_of_the_users_own(mine, tmp_path):
    with pytest.raises(InputError, match=r"my_net\.py:TinyNet"):
        train.train(make_config(**{"model.weights": "imagenet"}), tmp_path / "run")
