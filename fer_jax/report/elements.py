"""The elements of a page as an XML tree, which escapes all text when it is serialized."""

import json
from xml.etree import ElementTree

from fer_jax.report import figures
from fer_jax.report.style import CSS

DARK = (31, 95, 168)
MANY_CLASSES, LONG_NAME = 8, 9  # more than this does not fit above the columns of a confusion matrix


def element(tag, *content, **attributes):
    """Returns an element; content: texts and elements; in attributes, `class_` means class, and underscores hyphens."""
    names = {key.rstrip("_").replace("_", "-"): str(value) for key, value in attributes.items() if value}
    node = ElementTree.Element(tag, names)
    for piece in content:
        if isinstance(piece, ElementTree.Element):
            node.append(piece)
        elif len(node):
            node[-1].tail = (node[-1].tail or "") + str(piece)
        else:
            node.text = (node.text or "") + str(piece)
    return node


def page(title, content):
    """Returns a complete HTML document."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", CSS),
    )
    document = element("html", head, element("body", element("main", *content)), lang="en")
    return "<!DOCTYPE html>\n" + ElementTree.tostring(document, encoding="unicode", method="html") + "\n"


def section(title, *content):
    """Returns a section under a heading."""
    return element("section", element("h2", title), *content)


def side_by_side(*content):
    """Returns elements side by side if the page is wide enough, else one below the other."""
    return element("div", *content, class_="pair")


def picture(address, description):
    """Returns a figure that fills the available width."""
    return element("figure", element("img", src=address, alt=description), class_="plot")


def table(header, rows, *, numbers=(), class_=None, caption=None, min_width=None):
    """Returns a table; cells: texts or elements; `numbers`: the columns that align to the right.

    The table scrolls sideways on pages narrower than `min_width` (a CSS length).
    Each cell carries its column's name, so that narrow pages can show rows as lists.
    """
    kinds = ["number" if column in numbers else None for column in range(len(header))]
    top = [element("th", name, class_=kind, scope="col") for name, kind in zip(header, kinds, strict=True)]
    body = [_row(header, row, kinds) for row in rows]
    title = [element("caption", caption)] if caption else []
    head, style = element("thead", element("tr", *top)), f"min-width:{min_width}" if min_width else None
    node = element("table", *title, head, element("tbody", *body), class_=class_, style=style)
    return element("div", node, class_="scroll")


def confusion(classes, counts, *, normalized):
    """Returns a confusion matrix, rows true, as faces or as percent of each row.

    classes: K names; counts [K][K]. A row without faces shows dashes when normalized. With many classes or long
    names, columns show only the labels, and rows show names and labels.
    """
    numbered = len(classes) > MANY_CLASSES or max(map(len, classes)) > LONG_NAME
    largest = max(max(row) for row in counts) or 1
    rows = []
    for label, (name, row) in enumerate(zip(classes, counts, strict=True)):
        total = sum(row) if normalized else largest
        cells = []
        for count in row:
            share = count / total if total else 0.0
            shown = f"{count:,}" if not normalized else f"{100 * share:.1f}" if total else "\u2013"
            cells.append(element("td", shown, style=_shade(share)))
        head = [name, element("small", f" {label}")] if numbered else [name]
        rows.append(element("tr", element("th", *head, scope="row"), *cells))
    tops = range(len(classes)) if numbered else classes
    top = [element("th", element("span", str(name)), scope="col") for name in tops]
    corner = element("th", element("small", "true \u2193 predicted \u2192"), scope="col")
    node = element(
        "table",
        element("caption", "percent of each true class" if normalized else "faces"),
        element("thead", element("tr", corner, *top)),
        element("tbody", *rows),
        class_="confusion numbered" if numbered else "confusion",
        style=f"min-width:{(7.5 if numbered else 5.6) + 3.1 * len(classes):.1f}em",
    )
    return element("div", node, class_="scroll")


def face(image, class_, *captions):
    """Returns a face with lines of text below it. image uint8 [H, W, 1 or 3]."""
    lines = [element("span", text, class_=kind) for text, kind in captions]
    described = ", ".join(text for text, _ in captions)
    image = element("img", src=figures.face(image), alt=described, width=96, height=96)
    return element("figure", image, element("figcaption", *lines), class_=class_)


def bar(share, text):
    """Returns a text with a bar below it that fills `share` of the cell."""
    return element("div", text, element("i", style=f"width:{100 * share:.1f}%"), class_="bar")


def value(leaf):
    """Returns a config value as an element; None: the config lacks the field."""
    shown = leaf if isinstance(leaf, str) and leaf else json.dumps(leaf, default=str, ensure_ascii=False)
    return element("span", "not set" if leaf is None else shown, class_="value")


def swatch(position):
    """Returns the colour of a run's curves."""
    return element("i", style=f"background:{figures.run_style(position)[0]}", class_="swatch")


def _row(header, row, kinds):
    cells = zip(header, row, kinds, strict=True)
    return element("tr", *(element("td", cell, class_=kind, data_label=name) for name, cell, kind in cells))


def _shade(share):
    red, green, blue = (round(255 + (end - 255) * share) for end in DARK)
    return f"background:rgb({red},{green},{blue})" + (";color:#fff" if share > 0.55 else "")
