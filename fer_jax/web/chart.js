// Probabilities over time: a line for each class, over the last seconds.

const SECONDS = 30;
const [WIDTH, HEIGHT] = [600, 160]; // of the plot in the SVG
const SVG = "http://www.w3.org/2000/svg";

export class Chart {
  constructor(svg) {
    this.svg = svg;
    this.clear();
  }

  clear() {
    this.points = [];
    this.svg.querySelectorAll(".line").forEach((line) => line.remove());
  }

  // probs: {class: probability} at a time in seconds; null if there is no face, which interrupts the lines.
  add(seconds, probs) {
    this.points.push({ seconds, probs });
    while (this.points[0].seconds < seconds - SECONDS) this.points.shift();
    const lines = this.svg.querySelectorAll(".line");
    Object.keys(probs ?? {}).forEach((name, number) => {
      const line = lines[number] ?? this.#makeLine(number);
      line.setAttribute("d", this.points.map((point, place) => this.#step(point, place, name, seconds)).join(""));
    });
  }

  #step({ seconds, probs }, place, name, now) {
    if (!probs) return "";
    const x = WIDTH * (1 - (now - seconds) / SECONDS);
    const y = HEIGHT * (1 - probs[name]);
    return `${this.points[place - 1]?.probs ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
  }

  #makeLine(number) {
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("class", `line class-${number % 8}`);
    return this.svg.appendChild(line);
  }
}
