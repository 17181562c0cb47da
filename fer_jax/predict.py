"""Predicts the emotions of faces: python -m fer_jax.predict photo.jpg holidays/ --annotate out/.

An input is a picture, a folder (walked recursively), a glob in quotes, a video, `-` for a list of files on stdin, or
`@FILE` for such a list in a file; several may be given. `--camera N` reads a camera; `--live` shows it in a window, or,
without a screen, on a web page of this machine. Faces are detected first; with `--faces given` each picture is a face.

Output, to stdout or --out:
  jsonl   one line per picture or frame: source, frame, seconds, size, faces, error; for each face: box (x, y, width,
          height, in pixels), score, track (its number in a video), label, top (two classes), probs, uncertain (the
          first class is less probable than --threshold). A picture without a face has an empty list.
  csv     one line per face, and one for a picture without a face
  kaggle  a column `emotion` with the number of the class, for pictures that are faces; -1 for unreadable ones

Unreadable files are reported on stderr, written with their `error`, and skipped. Exit codes: 0 all was read, 1 some
files were not, 2 bad input, 130 Ctrl-C.

`--out` is written as OUT.partial until it is complete. Rerun an interrupted command to resume it; with other options,
sources or another model it is refused. `--split i/n` predicts every n-th file, from the i-th, and writes OUT.i-of-n;
`--merge OUT` joins these in the order of the files, and refuses parts that are missing, unfinished, overlapping or from
another job.

Tables with a column `pixels` are predicted too, as in the challenge:
    python -m fer_jax.predict --workdir runs/x --format kaggle --data_path test.csv
`kaggle` writes the challenge's submission: the header `emotion` and, for each row in order, the number of the predicted
class. `csv` adds a column with the class name and one column per class with its probability. For the folder of an
ensemble, the members are averaged with their weights.
"""

import argparse
import logging
import pathlib
import re
import sys

from fer_jax import command, wording
from fer_jax.errors import InputError

logger = logging.getLogger("fer_jax")


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog=command.program("predict"),
        description="Predicts the emotions of faces in pictures, videos, tables and camera frames.",
        epilog="Exit codes: 0 all was read, 1 some files could not be read, 2 bad input. The docstring of "
        "fer_jax.predict describes the output, how to resume, and how to split and merge a job.",
    )
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="picture, folder, 'glob', video, test.csv, @list.txt, or - for stdin"
    )
    model = parser.add_argument_group("model").add_argument
    model("--model", metavar="NAME|DIR", help="a shipped model, .safetensors, or folder of a run or ensemble")
    model("--workdir", metavar="DIR", help="folder of a run, or --out of `ensemble`")
    model("--checkpoint", choices=("best", "latest"), help="default: best, or those an ensemble was scored with")
    model("--views", metavar="NAME", help="test-time views to average; default: the model's")
    faces = parser.add_argument_group("faces").add_argument
    faces(
        "--faces",
        default="auto",
        metavar="NAME",
        help="given (pictures are faces), auto, lbp, blazeface, blazeface:back, blazeface:full or yunet:FILE.onnx; "
        "default: %(default)s, the best available detector",
    )
    faces(
        "--align",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="rotate faces until their eyes are level; default: on, if the detector finds eyes",
    )
    faces(
        "--threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="faces less probable are uncertain; default: %(default)s",
    )
    output = parser.add_argument_group("output").add_argument
    output("--format", choices=("jsonl", "csv", "kaggle"), help="default: jsonl, or kaggle for a table")
    output(
        "--out", metavar="FILE", help="default: stdout; for a table submission.csv or predictions.csv in the workdir"
    )
    output("--annotate", metavar="DIR|VIDEO", help="draw the predictions; a folder, or a file for one video or camera")
    output("--explain", metavar="DIR", help="write each face with a heat map of the evidence for its class")
    output("--split", metavar="i/n", help="predict every n-th file, from the i-th; writes OUT.i-of-n")
    output("--merge", metavar="OUT", help="only join the parts OUT.1-of-n ... into OUT")
    video = parser.add_argument_group("videos and cameras").add_argument
    video("--every", type=int, default=1, metavar="N", help="read every N-th frame; default: %(default)s")
    video(
        "--smooth",
        type=float,
        default=0.5,
        metavar="SECONDS",
        help="half-life for smoothing the probabilities of a tracked face; 0: none; default: %(default)s",
    )
    video("--camera", type=int, metavar="N", help="number of a camera, from 0")
    video("--live", action="store_true", help="show a camera in a window, or on a web page of this machine")
    video("--port", type=int, metavar="N", help="of that page; default: 8765")
    video("--data_path", metavar="FILE", help="a table with a column `pixels`, such as the challenge's test.csv")
    return parser.parse_args(argv)


def _check(flags):
    """Rejects incompatible flags before anything is imported or read."""
    if flags.model and flags.workdir:
        raise InputError("--model and --workdir both name the model: give one of them")
    if not 0 <= flags.threshold <= 1:
        raise InputError(f"--threshold is {flags.threshold}: it is a probability")
    if flags.every < 1 or not 0 <= flags.smooth < float("inf"):
        raise InputError("--every must be 1 or more, and --smooth 0 s or more")
    given = [bool(flags.inputs), flags.data_path is not None, flags.merge is not None, _is_camera(flags)]
    if sum(given) != 1:
        raise InputError(
            "give pictures, folders, globs or videos, or else one of --camera, --live, --data_path and --merge"
        )
    if flags.explain and (not flags.inputs or flags.inputs == ["-"]):
        raise InputError("--explain is for pictures: give files, folders or globs")
    if flags.split and not (flags.inputs and flags.out):
        raise InputError("--split needs files and --out, of which it writes a part: give both")
    if flags.format == "kaggle" and flags.data_path is None and (_is_camera(flags) or flags.faces != "given"):
        raise InputError("--format kaggle has one class per picture: give pictures and --faces given")


def _is_camera(flags):
    return flags.camera is not None or flags.live


def _config_of(model):
    """Returns the training config of a model, or of an ensemble's first member; else the default config."""
    from fer_jax import config as config_lib

    if model is None or not pathlib.Path(model).is_dir():
        return config_lib.get_default()
    from fer_jax import inference, members

    record = members.read_record(model)
    return inference.read_config(record["members"][0]["workdir"] if record else model)


def _predict_table(flags):
    from fer_jax import submission

    model, format = flags.workdir or flags.model, flags.format or "kaggle"
    command.keep_compiled(_config_of(model))
    folder = pathlib.Path(model) if model and pathlib.Path(model).is_dir() else pathlib.Path()
    out = flags.out or folder / ("submission.csv" if format == "kaggle" else "predictions.csv")
    counts = submission.predict_table(
        model, flags.data_path, out, format=format, checkpoint=flags.checkpoint, views=flags.views
    )
    print(f"{wording.count(sum(counts), 'face')}; by predicted class: {', '.join(map(str, counts))}")
    print(f"predictions: {out}")


def _load_recognizer(flags):
    import fer_jax

    model = flags.workdir or flags.model
    command.keep_compiled(_config_of(model))
    return fer_jax.load(model, checkpoint=flags.checkpoint, views=flags.views)


def _options(flags):
    from fer_jax import predicting

    return predicting.Options(
        flags.faces, flags.align, flags.threshold, flags.every, flags.smooth, flags.annotate and str(flags.annotate)
    )


def _split(text) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    part = tuple(map(int, match.groups())) if match else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise InputError(f"--split is {text!r}: give i/n with 1 <= i <= n, such as 2/5")
    return part


def predict_files(recognizer, inputs, options, *, format="jsonl", out=None, split=None, stdin=None) -> dict:
    """Predicts the files named by arguments of the command line, and writes the results to `out` or stdout.

    recognizer: as returned by `fer_jax.load`. options: a predicting.Options. split: 'i/n', one part of the job.

    Returns:
      The numbers of `items`, `faces` and `failed` files.

    Raises:
      InputError: no such files, or an output that cannot be written or was started by another job.
    """
    from fer_jax import outputs, pictures, predicting, submission

    part = _split(split)
    every_source = list(pictures.find(inputs, stdin=stdin))
    sources = every_source[part[0] - 1 :: part[1]]
    classes = submission.classes_of(recognizer, format)
    first = outputs.header(format, classes)
    if out is None:
        output = outputs.Stdout(first)
    else:
        settings = {name: getattr(options, name) for name in ("faces", "align", "threshold", "every", "smooth_seconds")}
        model = [str(recognizer.name), list(recognizer.classes), getattr(recognizer, "facts", {}).get("sha256")]
        digest = outputs.digest(sources=every_source, options=settings, format=format, model=model)
        job = {"digest": digest, "format": format, "part": list(part), "sources": len(sources)}
        output = outputs.Output(outputs.part_of(out, part), first, job)
    with output:
        if output.done:
            logger.info("%s was finished earlier", output.path)
            return {name: output.state[name] for name in ("items", "faces", "failed")}
        if output.state:
            logger.info("%s: resuming after %s images", output.path, f"{output.state['items']:,}")
        return predicting.predict_files(recognizer, sources, output, format, options=options, classes=classes)


def _predict_files(flags):
    if flags.out:
        from fer_jax import workdir as workdir_lib

        workdir_lib.check_folder(pathlib.Path(flags.out).parent, option="--out")
    options = _options(flags)
    if flags.inputs != ["-"]:  # missing files are reported before a model is loaded
        from fer_jax import pictures

        pictures.find([word for word in flags.inputs if word != "-"])
    recognizer = _load_recognizer(flags)
    counts = predict_files(
        recognizer, flags.inputs, options, format=flags.format or "jsonl", out=flags.out, split=flags.split
    )
    failed = f"; could not be read: {counts['failed']:,}" if counts["failed"] else ""
    logger.info("images: %s; faces: %s%s", f"{counts['items']:,}", f"{counts['faces']:,}", failed)
    if flags.explain:
        _explain(recognizer, flags)
    if flags.split:
        logger.info("once all parts are finished: %s --merge %s", command.program("predict"), flags.out)
    sys.exit(1 if counts["failed"] else 0)


def _explain(recognizer, flags):
    """Writes every face of the pictures with its heat map, as <name of the picture>-<number of the face>.png."""
    from PIL import Image

    from fer_jax import files, pictures

    folder, written = pathlib.Path(flags.explain), 0
    folder.mkdir(parents=True, exist_ok=True)
    for source in pictures.find(flags.inputs):
        try:
            found = recognizer.explain(source, flags.faces, align=flags.align)
        except InputError:  # already reported by the prediction
            continue
        for number, face in enumerate(found):
            with files.replacing(folder / f"{pathlib.Path(source).stem}-{number}.png") as temporary:
                Image.fromarray(face).save(temporary, format="png")
        written += len(found)
    logger.info("explained: %s, in %s", wording.count(written, "face"), folder)


def _watch(flags):
    """Predicts the frames of a camera, and shows them with --live."""
    import contextlib

    from fer_jax import live, outputs, predicting, videos

    number = flags.camera or 0
    if flags.annotate and pathlib.Path(flags.annotate).suffix.lower() not in videos.CODECS:
        raise InputError(f"--annotate {flags.annotate}: for a camera give a video file, {', '.join(videos.CODECS)}")
    format, options = flags.format or "jsonl", _options(flags)
    with contextlib.ExitStack() as stack:
        camera = stack.enter_context(videos.Camera(number))
        recognizer = _load_recognizer(flags)
        view = stack.enter_context(live.open_view(flags.port or live.PORT)) if flags.live else None
        output = None
        if flags.out:
            job = {"digest": outputs.digest(camera=number), "format": format, "part": [1, 1], "sources": 1}
            output = outputs.Output(flags.out, outputs.header(format, recognizer.classes), job)
        elif view is None:
            output = outputs.Stdout(outputs.header(format, recognizer.classes))
        if output is not None:
            stack.enter_context(output)
        if view is not None:
            logger.info("live: %s", view.place)
        latencies, interrupt = predicting.watch(
            recognizer, camera.frames(), camera.name, output, format, options=options, show_fn=view and view.show
        )
    if found := live.percentiles_ms(latencies):
        logger.info("from camera to result: %.1f ms in the median, 95 %% within %.1f ms", *found)
    if interrupt is not None:
        raise interrupt


def _merge(out):
    from fer_jax import outputs

    found = outputs.merge(out)
    print(f"{out}: {found['sources']:,} files, {found['failed']:,} of them could not be read")
    sys.exit(1 if found["failed"] else 0)


def _main():
    flags = _parse()
    if len(flags.inputs) == 1 and flags.inputs[0].lower().endswith(".csv"):
        flags.inputs, flags.data_path = [], flags.inputs[0]
    _check(flags)
    command.begin()
    if flags.merge is not None:
        _merge(flags.merge)
    elif flags.data_path is not None:
        _predict_table(flags)
    elif _is_camera(flags):
        _watch(flags)
    else:
        _predict_files(flags)


if __name__ == "__main__":
    command.run(_main)
