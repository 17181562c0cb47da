// Heat maps of where a network sees a class, as fer_jax/explain.py makes them.

import { round } from "./pixels.js";

// Where patches start on a side.
function startsOf(side, patch, stride) {
  const starts = [];
  for (let start = 0; start < side - patch; start += stride) starts.push(start);
  return [...starts, side - patch];
}

// Covers a face [H, W, C] with a patch of its mean at each place; the first copy is the face itself.
export function coverings(face, [height, width, channels], { patch, stride }) {
  const means = new Array(channels).fill(0);
  face.forEach((value, place) => (means[place % channels] += value / (height * width)));
  const mean = means.map(round);
  const corners = startsOf(height, patch, stride).flatMap((top) =>
    startsOf(width, patch, stride).map((left) => [top, left]),
  );
  const covered = corners.map(([top, left]) => {
    const copy = face.slice();
    for (let y = top; y < top + patch; y++) {
      for (let x = left; x < left + patch; x++) copy.set(mean, (y * width + x) * channels);
    }
    return copy;
  });
  return { corners, faces: [face, ...covered] };
}

// The mean drop [H, W] of a probability where patches covered a px; probs: of `coverings`' faces.
export function occlusion(probs, corners, [height, width], { patch }) {
  const [total, count] = [new Float32Array(height * width), new Float32Array(height * width)];
  corners.forEach(([top, left], place) => {
    for (let y = top; y < top + patch; y++) {
      for (let x = left; x < left + patch; x++) {
        total[y * width + x] += probs[0] - probs[place + 1];
        count[y * width + x] += 1;
      }
    }
  });
  const heat = total.map((sum, place) => Math.max(sum / count[place], 0));
  const top = heat.reduce((most, value) => Math.max(most, value), 0);
  return top > 0 ? heat.map((value) => value / top) : heat;
}

// Lays heat [H, W] over a square picture, enlarged bilinearly; px without heat do not change.
export function overlay(picture, heat, [height, width], { colours, heat_share }) {
  const { data, width: size } = picture;
  const between = (place, length) => {
    const at = Math.min(Math.max(((place + 0.5) * length) / size - 0.5, 0), length - 1);
    const low = Math.floor(at);
    return [low, Math.min(low + 1, length - 1), at - low];
  };
  for (let y = 0, to = 0; y < size; y++) {
    const [y0, y1, dy] = between(y, height);
    for (let x = 0; x < size; x++, to += 4) {
      const [x0, x1, dx] = between(x, width);
      const upper = heat[y0 * width + x0] * (1 - dx) + heat[y0 * width + x1] * dx;
      const lower = heat[y1 * width + x0] * (1 - dx) + heat[y1 * width + x1] * dx;
      const value = Math.min(Math.max(upper * (1 - dy) + lower * dy, 0), 1);
      const colour = colours[Math.min(Math.trunc(value * colours.length), colours.length - 1)];
      const share = heat_share * value;
      for (let channel = 0; channel < 3; channel++) {
        data[to + channel] = round((1 - share) * data[to + channel] + share * 255 * colour[channel]);
      }
    }
  }
}
