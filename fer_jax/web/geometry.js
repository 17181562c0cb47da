// A face in a picture and the square around it, as fer_jax/faces/geometry.py has them.
// A face is {box: [x, y, width, height], score, eyes: [[x, y], [x, y]]} in px of the picture.

import { pad, reduce, slice, transform } from "./pixels.js";

export function tiltOf({ eyes: [[x0, y0], [x1, y1]] }) {
  return Math.atan2(y1 - y0, x1 - x0);
}

// The square [x, y of the centre, side] around a face that is rotated by `tilt`.
export function square({ box: [x, y, width, height] }, framing, tilt) {
  const size = (width + height) / 2;
  const [cos, sin] = [Math.cos(tilt) * size, Math.sin(tilt) * size];
  return [
    x + width / 2 + cos * framing.right - sin * framing.down,
    y + height / 2 + sin * framing.right + cos * framing.down,
    framing.scale * size,
  ];
}

export function crop(picture, face, framing, size) {
  const tilt = tiltOf(face);
  return cut(picture, square(face, framing, tilt), tilt, size);
}

// Crops a square, rotated by `tilt`, to `size` px a side, antialiased; beyond the picture its edge is repeated.
export function cut(picture, [x, y, side], tilt, size) {
  side = Math.max(side, 1);
  const reach = (side / 2) * (Math.abs(Math.cos(tilt)) + Math.abs(Math.sin(tilt)));
  const factor = Math.max(1, Math.trunc(side / size / 2));
  const { pixels, left, top } = region(picture, [x - reach, y - reach, x + reach, y + reach], factor);
  [x, y, side] = [(x - left) / factor, (y - top) / factor, side / factor];
  const more = Math.max(1, Math.ceil(side / size));
  const step = side / (size * more);
  const [cos, sin] = [Math.cos(tilt) * step, Math.sin(tilt) * step];
  const half = (size * more) / 2;
  const affine = [cos, -sin, x - half * (cos - sin), sin, cos, y - half * (sin + cos)];
  return reduce(transform(pixels, size * more, affine), more);
}

// Maps a point of a crop back to the picture.
export function locate([px, py], [x, y, side], tilt, size) {
  const [cos, sin] = [Math.cos(tilt), Math.sin(tilt)];
  const [u, v] = [((px - size / 2) * side) / size, ((py - size / 2) * side) / size];
  return [cos * u - sin * v + x, sin * u + cos * v + y];
}

// A rectangle of a picture with a margin of 2 px, shrunk, its edge repeated beyond the picture; and its corner.
function region(picture, [left, top, right, bottom], factor) {
  const span = (begin, end, length) => {
    const first = Math.min(Math.max(Math.floor(begin) - 2 * factor, 0), length - 1);
    const last = Math.max(Math.min(Math.ceil(end) + 2 * factor, length), first + 1);
    const before = Math.max(0, Math.ceil((first - begin) / factor) + 2);
    const after = Math.max(0, Math.ceil((end - last) / factor) + 2);
    return { first, last, before, after, corner: first - before * factor };
  };
  const [x, y] = [span(left, right, picture.width), span(top, bottom, picture.height)];
  const small = reduce(slice(picture, x.first, y.first, x.last, y.last), factor);
  return { pixels: pad(small, [x.before, y.before], [x.after, y.after]), left: x.corner, top: y.corner };
}
