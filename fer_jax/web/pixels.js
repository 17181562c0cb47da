// Pillow's operations on pictures, in its integer arithmetic, so that a browser sees the same pixels as Python.
// A picture is {width, height, data}, data being RGBA bytes as a canvas returns them; alpha is ignored.

const BITS = 22; // of the weights in `resize`

export function makePicture(width, height) {
  return { width, height, data: new Uint8ClampedArray(4 * width * height) };
}

// Rounds halves to even numbers, as Python does.
export function round(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 ? floor + 1 : floor;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Averages blocks of factor x factor px; blocks at the right and lower edges may be smaller.
export function reduce({ width, height, data }, factor) {
  if (factor === 1) return { width, height, data };
  const small = makePicture(Math.ceil(width / factor), Math.ceil(height / factor));
  for (let row = 0, to = 0; row < small.height; row++) {
    const bottom = Math.min(factor * (row + 1), height);
    for (let column = 0; column < small.width; column++, to += 4) {
      const right = Math.min(factor * (column + 1), width);
      let [red, green, blue] = [0, 0, 0];
      for (let y = factor * row; y < bottom; y++) {
        for (let x = factor * column, from = 4 * (y * width + x); x < right; x++, from += 4) {
          red += data[from];
          green += data[from + 1];
          blue += data[from + 2];
        }
      }
      const count = (bottom - factor * row) * (right - factor * column);
      // Pillow multiplies by a truncated reciprocal.
      const share = Math.trunc(Math.fround(2 ** 32 / (256 * count))) / 2 ** 24;
      const half = count >> 1;
      small.data[to] = Math.floor((red + half) * share);
      small.data[to + 1] = Math.floor((green + half) * share);
      small.data[to + 2] = Math.floor((blue + half) * share);
    }
  }
  return small;
}

// The weights of a triangle filter along an axis: for each px of the result, the first px and the weights of it and
// of the following ones.
function weigh(size, begin, end, length) {
  const scale = (end - begin) / size;
  const support = Math.max(scale, 1);
  return Array.from({ length: size }, (_, place) => {
    const centre = begin + (place + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), length);
    const weights = [];
    for (let x = first; x < last; x++) weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / support)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => Math.trunc(0.5 + (weight / total) * 2 ** BITS)) };
  });
}

function convolve(from, to, lines, taps, fromLine, fromStep, toLine, toStep) {
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < taps.length; place++) {
      const { first, weights } = taps[place];
      let [red, green, blue] = [1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)];
      let at = line * fromLine + first * fromStep;
      for (let tap = 0; tap < weights.length; tap++, at += fromStep) {
        red += from[at] * weights[tap];
        green += from[at + 1] * weights[tap];
        blue += from[at + 2] * weights[tap];
      }
      const out = line * toLine + place * toStep;
      to[out] = red >> BITS;
      to[out + 1] = green >> BITS;
      to[out + 2] = blue >> BITS;
    }
  }
}

// Resizes a part [left, top, right, bottom] of a picture bilinearly, antialiased.
export function resize(picture, width, height, [left, top, right, bottom]) {
  const across = weigh(width, left, right, picture.width);
  const down = weigh(height, top, bottom, picture.height);
  const narrow = makePicture(width, picture.height);
  convolve(picture.data, narrow.data, picture.height, across, 4 * picture.width, 4, 4 * width, 4);
  const result = makePicture(width, height);
  convolve(narrow.data, result.data, width, down, 4, 4 * width, 4, 4 * width);
  return result;
}

// Samples a square of `size` px bilinearly: px (x, y) of it is at (a x + b y + c, d x + e y + f) in the picture.
export function transform(picture, size, [a, b, c, d, e, f]) {
  const { width, height, data } = picture;
  const result = makePicture(size, size);
  for (let y = 0, to = 0; y < size; y++) {
    for (let x = 0; x < size; x++, to += 4) {
      const [u, v] = [a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f];
      if (u < 0 || u >= width || v < 0 || v >= height) continue;
      const [column, row] = [Math.floor(u - 0.5), Math.floor(v - 0.5)];
      const [dx, dy] = [u - 0.5 - column, v - 0.5 - row];
      const [x0, x1] = [clamp(column, 0, width - 1), clamp(column + 1, 0, width - 1)];
      const [y0, y1] = [clamp(row, 0, height - 1), clamp(row + 1, 0, height - 1)];
      for (let channel = 0; channel < 3; channel++) {
        const at = (i, j) => data[4 * (j * width + i) + channel];
        const upper = at(x0, y0) + (at(x1, y0) - at(x0, y0)) * dx;
        const lower = at(x0, y1) + (at(x1, y1) - at(x0, y1)) * dx;
        result.data[to + channel] = Math.floor(upper + (lower - upper) * dy);
      }
    }
  }
  return result;
}

// A rectangle of a picture, with its edge repeated `before` px to the left and above, and `after` px beyond.
export function pad({ width, height, data }, [left, top], [right, bottom]) {
  const result = makePicture(left + width + right, top + height + bottom);
  const [from, to] = [new Uint32Array(data.buffer, data.byteOffset, width * height), new Uint32Array(result.data.buffer)];
  for (let y = 0, place = 0; y < result.height; y++) {
    const row = width * clamp(y - top, 0, height - 1);
    for (let x = 0; x < result.width; x++) to[place++] = from[row + clamp(x - left, 0, width - 1)];
  }
  return result;
}

export function slice({ width, data }, left, top, right, bottom) {
  const part = makePicture(right - left, bottom - top);
  for (let y = top; y < bottom; y++) {
    part.data.set(data.subarray(4 * (y * width + left), 4 * (y * width + right)), 4 * (y - top) * part.width);
  }
  return part;
}

export function paste(picture, part, left, top) {
  for (let y = 0; y < part.height; y++) {
    const row = part.data.subarray(4 * y * part.width, 4 * (y + 1) * part.width);
    picture.data.set(row, 4 * ((top + y) * picture.width + left));
  }
}

// Packs pictures of one size into uint8 [N, H, W, C]: their RGB, or their grey if C is 1.
export function pack(pictures, channels) {
  const cells = pictures.length ? pictures[0].width * pictures[0].height : 0;
  const packed = new Uint8Array(pictures.length * cells * channels);
  let to = 0;
  for (const { data } of pictures) {
    for (let from = 0; from < 4 * cells; from += 4) {
      const [red, green, blue] = [data[from], data[from + 1], data[from + 2]];
      if (channels === 1) {
        packed[to++] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16;
      } else {
        packed[to++] = red;
        packed[to++] = green;
        packed[to++] = blue;
      }
    }
  }
  return packed;
}
