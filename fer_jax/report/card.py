"""The model card: intended and excluded uses, limits and figures (Mitchell et al. 2019, "Model Cards")."""

from fer_jax.report.text import percent

USES = """## Intended use

Research and teaching on facial expression recognition: a baseline to compare with, a starting point to train on, a
demo. The answer is a guess at how people would label a picture of a face. It is not a fact about what a person feels.

## Excluded use

- Inferring emotions of people at work or in education: prohibited in the European Union (Regulation (EU) 2024/1689,
  Article 5(1)(f)), except for medical or safety reasons.
- Decisions about people: hiring, credit, policing, border control, insurance, diagnosis.
- Identifying or tracking people.
"""
OF_FER2013 = """\
- FER-2013 was collected by a web search for emotion words. Its labels are noisy (human raters agree with about 65 +- 5%
  of them), many faces are posed, and its people are those of the web's photographs of 2013.
- Some pictures are in more than one split of FER-2013 (about 8% of the validation and test faces are also in train), so
  all figures on it are slightly too high."""
FER2013 = """## Data

FER-2013 (Goodfellow et al. 2013, "Challenges in Representation Learning") was released for a Kaggle challenge, for
research; the pictures remain those of their authors. The model file holds no picture.
"""


def model_card(facts) -> str:
    """Returns the card of a model file as Markdown.

    facts: its JSON description, see fer_jax.portable; that of a model without a run has no figures and no data.
    """
    lines = [
        f"# Model card: {facts['name']}",
        "",
        f"A network for {' x '.join(map(str, facts['image_shape']))} faces that answers with the probabilities of "
        f"{', '.join(facts['classes'])}. {facts['parameters']:,} parameters and statistics.",
        "",
        USES,
        *(_figures(facts) if "figures" in facts else []),
        *(_files(facts["exports"]) if facts.get("exports") else []),
        *_limits(facts),
    ]
    return "\n".join(lines)


def _figures(facts):
    trained = facts["trained"]
    return [
        "## Figures",
        "",
        f"Trained on {facts['data']['train_faces']:,} faces of {facts['data']['data_name']} "
        f"({facts['data']['data_fingerprint']}), seed {trained['seed']}, commit {trained['commit']}, "
        f"{trained['device']}, {trained['time']}. The checkpoint is that {facts['checkpoint']}, "
        f"epoch {facts['epoch']}. Test-time views: {facts['views']}. Temperature {facts['temperature']:.3f}, "
        f"fitted on {facts['temperature_fitted_on']}. Test split: {facts['test_scored']}.",
        "",
        "| split | faces | accuracy (95% interval) | macro F1 | loss | calibration error |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(split, scores) for split, scores in facts["figures"].items()),
        "",
        *(_by_class(split, scores) for split, scores in list(facts["figures"].items())[-1:]),
        "",
        *(["The faces are **synthetic**: these figures say nothing else.", ""] if facts["data"]["synthetic"] else []),
    ]


def _limits(facts):
    height, width, channels = facts["image_shape"]
    of_fer2013 = facts.get("data", {}).get("data_name") == "fer2013"
    return [
        "## Limits",
        "",
        "- Its errors by age, sex or skin tone have not been measured.",
        f"- It was trained on {height}x{width} {'grey' if channels == 1 else 'colour'} crops of faces; other crops, "
        "profiles, masks and glasses cost accuracy.",
        *([OF_FER2013, "", FER2013] if of_fer2013 else [""]),
    ]


def _files(exports):
    lines = ["## Files", "", "| file | size | largest difference of a probability to JAX |", "| --- | --- | --- |"]
    lines += [
        f"| {one['file']} | {one['bytes'] / 1e6:.2f} MB | {one['largest_difference']:.1e} |" for one in exports.values()
    ]
    if "int8" in exports:
        one = exports["int8"]
        lines += [
            "",
            f"int8: accuracy {percent(one['validation_accuracy'])} on {one['validation_faces']:,} validation faces, "
            f"where float32 has {percent(one['validation_accuracy_float32'])}; the ranges of its activations are those "
            f"of {one['calibrated_on']}.",
        ]
    if "stablehlo" in exports:
        one = exports["stablehlo"]
        lines += [
            "",
            f"StableHLO: for {' and '.join(one['platforms'])}, written by JAX {one['jax']}; releases of JAX until "
            f"{one['readable_until']} are sure to read it.",
        ]
    return [*lines, ""]


def _row(split, scores):
    low, high = scores["accuracy_interval_95"]
    return (
        f"| {split} | {scores['n']:,} | {percent(scores['accuracy'])} ({percent(low)} to {percent(high)}) | "
        f"{scores['macro_f1']:.4f} | {scores['loss']:.4f} | {scores['calibration_error']:.4f} |"
    )


def _by_class(split, scores):
    rows = [
        f"| {row['class']} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} | {row['support']:,} |"
        for row in scores["per_class"]
    ]
    return "\n".join([f"| {split} | precision | recall | F1 | faces |", "| --- | --- | --- | --- | --- |", *rows])
