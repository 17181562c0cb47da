"""Exports a trained model to files that other programs load: fer-jax export --model runs/lean --out models/mine.

--model is the workdir of a run, the folder of an ensemble, a model file, or the name of a shipped model. Next to the
formats of --formats it writes <out>.json (classes, input, views, temperature, figures, files) and <out>.md, the model
card:

safetensors  the weights of a run's best checkpoint, for `fer_jax.load`; the temperature is fitted on the validation
             split, and the figures are those of the file's rounded weights
onnx         for onnxruntime and other programs: uint8 faces in, probabilities out
int8         the same with int8 arithmetic, and its accuracy on the validation split
stablehlo    for JAX without this package, on CPU and CUDA

--score_test also scores the test split: do so once, for the run chosen on validation. --web DIR writes a page that
runs in the browser.
"""

import argparse
import json
import pathlib

from fer_jax import command
from fer_jax.errors import InputError
from fer_jax.exports import ENDINGS
from fer_jax.views import VIEWS

ARCHIVE = "safetensors"
FORMATS = (ARCHIVE, *ENDINGS)


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog=command.program("export"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="workdir, ensemble, model file or name of a shipped model")
    parser.add_argument("--out", metavar="PATH", help="path of the files, without an ending")
    parser.add_argument(
        "--formats", help=f"comma-separated: {', '.join(FORMATS)}; default: {ARCHIVE} of a run, onnx of other models"
    )
    parser.add_argument(
        "--views", choices=tuple(VIEWS), help="test-time views to average; default: none for a run, else the model's"
    )
    parser.add_argument("--data_path", metavar="PATH", help="faces for int8 of a model without a run, as data.path")
    parser.add_argument(
        "--score_test", action="store_true", help="score the test split too: once, for the chosen model"
    )
    parser.add_argument("--web", metavar="DIR", help="write a page that runs the model in a browser")
    return parser.parse_args(argv)


def export(model, out=None, *, formats=None, views=None, data_path=None, score_test=False, web=None) -> dict:
    """Writes a model in some formats, with its card, or as a page; returns the content of the JSON.

    The files can be shared: they contain no paths of this machine.

    Args:
      model: what `fer_jax.load` takes.
      out: path of the files, without an ending; None: only the page is written.
      formats: of FORMATS; None: ('safetensors',) for a run, else ('onnx',).
      views: test-time views; None: none for a run, else those of the model.
      data_path: faces for the int8 format of a model that is not a run.
      score_test: whether to score a run on the test split too.
      web: the folder of a page that runs the model in a browser, or None.

    Raises:
      InputError: no such model, format, data or views; a network that cannot be exported; an unwritable folder; files
        of a model that would lose their description.
    """
    from fer_jax import report
    from fer_jax import workdir as workdir_lib
    from fer_jax.exports import formats as formats_lib
    from fer_jax.exports import sources

    is_run = sources.is_run(model)
    formats = tuple(dict.fromkeys(formats or ((ARCHIVE,) if is_run else ("onnx",)))) if out else ()
    _check(formats, model, is_run, data_path, score_test)
    _check_views(views, formats, web)
    name = pathlib.Path(out or web).name
    if out:
        _check_files(out, formats)
    if web:
        from fer_jax.exports import web as web_lib

        web_lib.check(web)
    if is_run:
        with_archive = ARCHIVE in formats
        recognizer, facts, splits = sources.load_run(
            model, name, views or "none", with_archive=with_archive, score_test=score_test
        )
    else:
        recognizer, facts, splits = sources.load_model(model, views, data_path)
    _check_views(recognizer.views, formats, web)
    if out:
        pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
        others = [name for name in formats if name != ARCHIVE]
        facts["exports"] = formats_lib.write(recognizer, out, others, splits)
        facts["exported"] = {name: value for name, value in workdir_lib.facts().items() if name != "command"}
        _save(out, recognizer, facts, ARCHIVE in formats)
        report.write(report.model_card(facts), f"{out}.md")
    if web:
        web_lib.write(web, recognizer)
    return facts


def _check(formats, model, is_run, data_path, score_test):
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError(f"unknown format {', '.join(unknown)}; known are {', '.join(FORMATS)}")
    if is_run and data_path:
        raise InputError(f"--data_path is for models without a run: {model} is exported with its own faces")
    if not is_run and (ARCHIVE in formats or score_test):
        what = "--score_test is" if score_test else f"the format {ARCHIVE} and its figures are"
        raise InputError(f"{what} for the workdir of a run, and {model} is not one")
    if "int8" in formats and not is_run and not data_path:
        raise InputError("int8 needs faces to choose its ranges and to be scored: give --data_path")


def _check_views(views, formats, web):
    """Rejects views, and missing packages, before anything is loaded or scored."""
    from fer_jax import views as views_lib
    from fer_jax.exports import onnx_models

    if views is not None:
        views_lib.check(views)
        if web or set(formats) - {ARCHIVE}:
            onnx_models.check_views(views)
    if web or {"onnx", "int8"} & set(formats):
        onnx_models.check_installed()


def _check_files(out, formats):
    """Rejects an unwritable folder, and a JSON that describes an archive which is not written again."""
    from fer_jax import workdir as workdir_lib

    workdir_lib.check_folder(pathlib.Path(out).parent, option="--out")
    archive = pathlib.Path(f"{out}.{ARCHIVE}")
    if archive.exists() and ARCHIVE not in formats:
        raise InputError(
            f"{archive} is a model file whose description {out}.json would be replaced: give another --out, or export "
            f"the run with {ARCHIVE} among the formats"
        )


def _save(out, recognizer, facts, with_archive):
    from fer_jax import files, portable

    if with_archive:
        facts |= portable.save(out, recognizer.members[0].variables, facts)
        return
    with files.atomic_write(f"{out}.json") as file:
        file.write(json.dumps(facts, indent=2) + "\n")


def _main():
    flags = _parse()
    if not flags.out and not flags.web:
        raise InputError("give --out PATH, --web DIR, or both")
    command.begin()
    facts = export(
        flags.model,
        flags.out,
        formats=flags.formats and [name.strip() for name in flags.formats.split(",") if name.strip()],
        views=flags.views,
        data_path=flags.data_path,
        score_test=flags.score_test,
        web=flags.web,
    )
    if flags.out:
        _print(facts, flags.out)
    if flags.web:
        print(f"page: {flags.web}; to look at it: python -m http.server --bind 127.0.0.1 --directory {flags.web}")


def _print(facts, out):
    for split, scores in facts.get("figures", {}).items():
        print(f"{split}: accuracy {scores['accuracy']:.4f}, macro F1 {scores['macro_f1']:.4f}, {scores['n']:,} faces")
    archive = pathlib.Path(f"{out}.{ARCHIVE}")
    if "sha256" in facts:
        print(f"model: {archive}, {archive.stat().st_size / 1e6:.2f} MB, temperature {facts['temperature']:.3f}")
    for one in facts["exports"].values():
        accuracy = f", validation accuracy {one['validation_accuracy']:.4f}" if "validation_accuracy" in one else ""
        print(
            f"model: {archive.with_name(one['file'])}, {one['bytes'] / 1e6:.2f} MB, probabilities within "
            f"{one['largest_difference']:.1e} of JAX's{accuracy}"
        )
    print(f"card: {out}.md")


if __name__ == "__main__":
    command.run(_main)
