// Weighted non-maximum suppression, as fer_jax/faces/suppression.py has it.
// A row is {numbers: [left, top, right, bottom, ...], score}.

const area = ([left, top, right, bottom]) => Math.max(right - left, 0) * Math.max(bottom - top, 0);

function shared(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  return Math.max(width, 0) * Math.max(height, 0);
}

// Intersection over union.
export function overlap(one, other) {
  const both = shared(one, other);
  const union = area(one) + area(other) - both;
  return union > 0 ? both / union : 0;
}

// The best row absorbs all that overlap it, then the best of the rest, and so on; best first.
export function merge(rows, threshold) {
  let rest = [...rows].sort((one, other) => other.score - one.score);
  const merged = [];
  while (rest.length) {
    const best = rest[0];
    const same = rest.filter((row) => row === best || overlap(best.numbers, row.numbers) > threshold);
    const total = same.reduce((sum, row) => sum + row.score, 0);
    const mean = (_, place) => same.reduce((sum, row) => sum + row.score * row.numbers[place], 0) / total;
    merged.push({ numbers: best.numbers.map(mean), score: best.score });
    rest = rest.filter((row) => !same.includes(row));
  }
  return merged;
}

// Drops boxes that lie mostly inside a better one.
export function dropParts(rows, share) {
  const kept = [];
  for (const row of rows) {
    const isPart = ({ numbers }) =>
      shared(row.numbers, numbers) > share * Math.min(area(row.numbers), area(numbers));
    if (!kept.some(isPart)) kept.push(row);
  }
  return kept;
}
