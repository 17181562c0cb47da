// BlazeFace over views of a picture, with a second look at each candidate, as fer_jax/faces/blazeface.py has it.

import { cut, locate, square, tiltOf } from "./geometry.js";
import { makePicture, paste, reduce, resize, round } from "./pixels.js";
import { dropParts, merge, overlap } from "./suppression.js";

const logit = (p) => Math.log(p / (1 - p));
const expit = (x) => 1 / (1 + Math.exp(-x));

export class Detector {
  // run(pictures) -> [{regressors, logits}] of pictures of facts.size_px; facts: `detector` of model.json.
  constructor(run, facts) {
    this.run = run;
    this.facts = facts;
    this.anchors = makeAnchors(facts);
  }

  // The faces of a picture, best first. levels: how finely the picture is tiled; 1: not at all.
  async detect(picture, levels) {
    const { size_px: size, same_face, part } = this.facts;
    const views = makeViews(picture, levels, this.facts);
    const first = [];
    for (const [place, raw] of (await this.run(views.map((view) => view.pixels))).entries()) {
      first.push(...this.#believe(views[place], raw));
    }
    const candidates = dropParts(merge(first, same_face), part).map((row) => this.#secondPlace(row));
    const squares = candidates.map(({ place, tilt }) => cut(picture, place, tilt, size));
    const outputs = await this.run(squares);
    const second = candidates.flatMap((candidate, place) => this.#lookAgain(candidate, outputs[place]));
    return dropParts(merge(second, same_face), part).map(asFace);
  }

  // [left, top, right, bottom, and x, y of the points] of an anchor, in px of the input.
  #decode(regressors, anchor) {
    const raw = regressors.subarray(16 * anchor, 16 * (anchor + 1));
    const [ax, ay] = this.anchors[anchor];
    const [x, y, width, height] = [raw[0] + ax, raw[1] + ay, raw[2], raw[3]];
    const points = Array.from(raw.subarray(4), (value, place) => value + (place % 2 ? ay : ax));
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2, ...points];
  }

  // The candidates of a view, in px of the picture.
  #believe({ origin, step, bounds: [left, top, right, bottom] }, { regressors, logits }) {
    const least = logit(this.facts.candidate);
    const rows = [];
    logits.forEach((value, anchor) => {
      if (value <= least) return;
      const toPicture = (number, place) => number * step[place % 2] + origin[place % 2];
      const numbers = this.#decode(regressors, anchor).map(toPicture);
      const inside = numbers[0] >= left && numbers[1] >= top && numbers[2] <= right && numbers[3] <= bottom;
      if (inside) rows.push({ numbers, score: expit(value) });
    });
    return rows;
  }

  #secondPlace(row) {
    const face = asFace(row);
    const tilt = tiltOf(face);
    const framing = { scale: this.facts.second_side, right: 0, down: 0 };
    return { place: square(face, framing, 0), tilt, score: row.score };
  }

  // The face in the centre of a square, its box upright in the picture; or none.
  #lookAgain({ place, tilt, score }, { regressors, logits }) {
    const { size_px: size, second_side, same_face, min_score } = this.facts;
    const [low, high] = [size / 2 - size / second_side / 2, size / 2 + size / second_side / 2];
    const same = [];
    logits.forEach((value, anchor) => {
      const numbers = this.#decode(regressors, anchor);
      if (overlap([low, low, high, high], numbers) > same_face) same.push({ numbers, value, score: expit(value) });
    });
    const mean = (same.reduce((most, row) => Math.max(most, row.value), -Infinity) + logit(score)) / 2;
    if (mean < logit(min_score)) return [];
    const [left, top, right, bottom, ...rest] = merge(same, same_face)[0].numbers;
    const pairs = [[(left + right) / 2, (top + bottom) / 2]];
    for (let number = 0; number < rest.length; number += 2) pairs.push([rest[number], rest[number + 1]]);
    const [[x, y], ...points] = pairs.map((pair) => locate(pair, place, tilt, size));
    const [halfWidth, halfHeight] = [right - left, bottom - top].map((length) => (length * place[2]) / size / 2);
    const box = [x - halfWidth, y - halfHeight, x + halfWidth, y + halfHeight];
    return [{ numbers: [...box, ...points.flat()], score: expit(mean) }];
  }
}

function asFace({ numbers: [left, top, right, bottom, x0, y0, x1, y1], score }) {
  return { box: [left, top, right - left, bottom - top], score, eyes: [[x0, y0], [x1, y1]] };
}

// The centres of the anchors in px of the input: cells row by row, map after map.
function makeAnchors({ size_px, grids }) {
  const found = [];
  for (const [cells, count] of grids) {
    const middle = (place) => ((place + 0.5) * size_px) / cells;
    for (let row = 0; row < cells; row++) {
      for (let column = 0; column < cells; column++) {
        for (let copy = 0; copy < count; copy++) found.push([middle(column), middle(row)]);
      }
    }
  }
  return found;
}

// Square views of a picture, as fer_jax/faces/views.py cuts them: the whole, then tiles of half the side each level.
// Px (x, y) of a view is at origin + step * (x, y); boxes count within `bounds` only.
function makeViews(picture, levels, { size_px, overlap: tileOverlap, least_tile }) {
  const longer = Math.max(picture.width, picture.height);
  const factor = Math.max(1, Math.floor(longer / (size_px << levels)));
  const small = reduce(picture, factor);
  const views = [];
  for (let level = 0; level < levels; level++) {
    const side = longer / 2 ** level;
    if (level && side < least_tile * size_px) break;
    for (const top of startsOf(picture.height, side, tileOverlap)) {
      for (const left of startsOf(picture.width, side, tileOverlap)) {
        const x = makeSpan(left, side, picture.width, size_px);
        const y = makeSpan(top, side, picture.height, size_px);
        views.push(makeView(small, factor, x, y, size_px));
      }
    }
  }
  return views;
}

// Where overlapping squares start that cover a length.
function startsOf(length, side, tileOverlap) {
  if (length <= side) return [(length - side) / 2];
  const count = Math.ceil(tileOverlap * (length / side - 1) - 1e-9) + 1;
  return Array.from({ length: count }, (_, place) => (place * (length - side)) / (count - 1));
}

// The part of an axis of a picture, `begin` to `end`, that becomes px `first` to `last` of a view.
function makeSpan(start, side, length, size) {
  const [begin, end] = [Math.max(start, 0), Math.min(start + side, length)];
  const first = round(((begin - start) * size) / side);
  const last = Math.max(round(((end - start) * size) / side), first + 1);
  const bounds = [begin > 0 ? begin : -Infinity, end < length ? end : Infinity];
  return { begin, end, first, last, bounds, step: (end - begin) / (last - first) };
}

function makeView(small, factor, x, y, size) {
  const box = [
    x.begin / factor,
    y.begin / factor,
    Math.min(x.end / factor, small.width),
    Math.min(y.end / factor, small.height),
  ];
  const pixels = makePicture(size, size);
  paste(pixels, resize(small, x.last - x.first, y.last - y.first, box), x.first, y.first);
  return {
    pixels,
    origin: [x.begin - x.first * x.step, y.begin - y.first * y.step],
    step: [x.step, y.step],
    bounds: [x.bounds[0], y.bounds[0], x.bounds[1], y.bounds[1]],
  };
}
