"""Draws docs/report.png, parts of the demo's report: python experiments/demo/picture.py [report] [out].

Needs Playwright with a Chromium: pip install playwright; --chromium names an installed one.
"""

import argparse
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIDTH_PX, SCALE = 1080, 1.5  # CSS pixels, and image pixels for each
STYLE = """
main { max-width: none; padding: 16px; }
h2 { margin: 12px 0 8px; }
.headlines { grid-template-columns: 1.6fr 1fr 1fr 1.2fr 1.1fr 0.9fr; margin: 12px 0; }
.headlines > div { padding: 8px 12px; }
.headlines span, .headlines small { white-space: nowrap; letter-spacing: -0.02em; }
.confusion { min-width: 0 !important; }
.confusion thead th:first-child { width: 6.5em !important; }
.parts { display: grid; grid-template-columns: 330px minmax(0, 1fr) 300px; gap: 0 24px; }
.parts .faces { grid-template-columns: repeat(3, minmax(0, 1fr)); }
"""
# Keeps the head of the page and, side by side, a plot, the percentages of the confusion matrix, and three mistakes.
SELECT = """
const main = document.querySelector("main");
const sections = [...main.querySelectorAll("section")];
const section = name => sections.find(one => one.querySelector("h2")?.textContent === name);
const parts = document.createElement("div");
parts.className = "parts";
for (const [name, part, place] of [
  ["Training", ".plot", 0], ["Confusion matrix", ".confusion", 1], ["Most confident mistakes", ".faces", 0],
]) {
  const column = document.createElement("div"), found = section(name);
  column.append(found.querySelector("h2"), found.querySelectorAll(part)[place]);
  parts.append(column);
}
parts.querySelector("caption")?.remove();
[...parts.querySelectorAll(".faces > figure")].slice(3).forEach(face => face.remove());
const head = ["h1", ".lead", ".synthetic", ".headlines"].map(part => main.querySelector(part));
main.replaceChildren(...head, parts);
"""


def draw(report, out, chromium=None):
    """Draws the picture of a report, evaluation-<split>.html, into a PNG file."""
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": WIDTH_PX, "height": 800}, device_scale_factor=SCALE)
        page.goto(pathlib.Path(report).resolve().as_uri())
        page.add_style_tag(content=STYLE)
        page.evaluate(SELECT)
        page.locator("main").screenshot(path=out)
        browser.close()


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", nargs="?", default=ROOT / "runs" / "demo" / "evaluation-test.html")
    parser.add_argument("out", nargs="?", default=ROOT / "docs" / "report.png")
    parser.add_argument("--chromium", metavar="FILE", help="the browser; default: Playwright's own")
    options = parser.parse_args()
    draw(options.report, options.out, options.chromium)


if __name__ == "__main__":
    main()
