// Activation patterns 1{row . u >= 0} of rows with three whole-number entries, in exact arithmetic.
//
// A cell of an arrangement of rank 3 has a vertex, which is the intersection of two planes. The cells around a vertex are
// those of the planes through it, an arrangement of rank 2, whose cells lie between neighbouring rays. Whole numbers below
// 2^53 are exact in JavaScript, so that three points on one line count as such.

const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const dot = (a, b) => a.reduce((sum, one, k) => sum + one * b[k], 0);
const isZero = (a) => a.every((one) => one === 0);
const unit = (a) => { const length = Math.hypot(...a); return a.map((one) => one / length); };

/** Return the mask of the rows at u as text, "1" where row . u >= 0. */
const maskAt = (rows, u) => rows.map((row) => (dot(row, u) >= 0 ? "1" : "0")).join("");

/** Return 2 sum_{k<r} C(N-1, k): the number of patterns of N rows of rank r in general position. */
function countInGeneralPosition(N, r) {
  let sum = 0;
  for (let k = 0, choose = 1; k < Math.min(r, N); k += 1) { sum += choose; choose = (choose * (N - 1 - k)) / (k + 1); }
  return 2 * sum;
}

/** Return a whole-number direction inside each cell of nonzero rows in the plane, in the order of their angles. */
function planarCells(rows) {
  const half = ([x, y]) => (y > 0 || (y === 0 && x > 0) ? 0 : 1);
  const turn = (a, b) => a[0] * b[1] - a[1] * b[0];
  // 1. Each row gives two rays, on which it is zero. Sort them by angle, and keep one of each direction.
  const rays = rows.flatMap(([a, b]) => [[-b, a], [b, -a]]).sort((a, b) => half(a) - half(b) || -turn(a, b));
  const kept = rays.filter((ray, k) => k === 0 || half(ray) !== half(rays[k - 1]) || turn(rays[k - 1], ray) !== 0);
  // 2. The sum of two neighbouring rays lies between them. If there is one line only, its normals do.
  if (kept.length === 2) return [[rows[0][0], rows[0][1]], [-rows[0][0], -rows[0][1]]];
  return kept.map((ray, k) => { const next = kept[(k + 1) % kept.length]; return [ray[0] + next[0], ray[1] + next[1]]; });
}

/** Return the rank of the rows, and the first rows of a basis. */
function basisOf(rows) {
  const first = rows.find((row) => !isZero(row));
  if (!first) return { rank: 0, basis: [] };
  const second = rows.find((row) => !isZero(cross(first, row)));
  if (!second) return { rank: 1, basis: [first] };
  const normal = cross(first, second);
  return { rank: rows.some((row) => dot(row, normal) !== 0) ? 3 : 2, basis: [first, second] };
}

/** Return the coordinates of rows in the span of two rows, times a positive number. `vertex` is their cross product. */
const inSpan = (rows, [first, second], vertex) =>
  rows.map((row) => [dot(cross(row, second), vertex), dot(cross(first, row), vertex)]);

/** Return {rank, patterns: [{mask, u}]}, every attainable pattern once, with a unit vector inside its cell. */
function attainablePatterns(rows) {
  const { rank, basis } = basisOf(rows);
  if (rank === 0) return { rank, patterns: [{ mask: maskAt(rows, [0, 0, 1]), u: [0, 0, 1] }] };
  if (rank === 1) {
    const us = [basis[0], basis[0].map((one) => -one)];
    return { rank, patterns: us.map((u) => ({ mask: maskAt(rows, u), u: unit(u) })) };
  }
  if (rank === 2) {
    const vertex = cross(...basis), flat = inSpan(rows, basis, vertex);
    const dual = [cross(basis[1], vertex), cross(vertex, basis[0])];  // dual[i] . basis[j] = |vertex|^2 if i = j, else 0
    const cells = planarCells(flat.filter((row) => !isZero(row)));
    return { rank, patterns: cells.map(([s, t]) => ({
      mask: maskAt(flat, [s, t]), u: unit(dual[0].map((one, k) => s * one + t * dual[1][k])) })) };
  }
  return { rank, patterns: spatialPatterns(rows) };
}

/** Return the patterns of rows of rank 3, with the mean of the extreme rays of each cell. */
function spatialPatterns(rows) {
  const sums = new Map(), seen = new Set();
  for (let i = 0; i < rows.length; i += 1) {
    for (let j = i + 1; j < rows.length; j += 1) {
      const vertex = cross(rows[i], rows[j]);
      if (isZero(vertex)) continue;
      // 1. The planes through the vertex, and the cells around it. A vertex of more than two planes is treated once.
      const values = rows.map((row) => dot(row, vertex));
      const through = rows.map((row, k) => k).filter((k) => values[k] === 0 && !isZero(rows[k]));
      const key = through.join();
      if (seen.has(key)) continue;
      seen.add(key);
      const flat = inSpan(rows, [rows[i], rows[j]], vertex);
      const cells = planarCells(through.map((k) => flat[k]));
      // 2. Beside them, the signs at the vertex and at its opposite decide.
      for (const side of [1, -1]) {
        for (const cell of cells) {
          const mask = rows.map((row, k) => ((values[k] === 0 ? dot(flat[k], cell) : side * values[k]) >= 0 ? "1" : "0"));
          const name = mask.join(""), ray = unit(vertex).map((one) => side * one);
          sums.set(name, (sums.get(name) ?? [0, 0, 0]).map((one, k) => one + ray[k]));
        }
      }
    }
  }
  const active = (mask) => mask.split("1").length;
  return [...sums].map(([mask, u]) => ({ mask, u: unit(u) }))
    .sort((a, b) => active(a.mask) - active(b.mask) || (a.mask < b.mask ? -1 : 1));
}

/** Return in words why there are fewer patterns than in general position, or an empty text. */
function specialPosition(rows, rank) {
  const zero = rows.findIndex(isZero);
  if (zero >= 0) return `point ${zero + 1} is the origin, where every neuron is zero`;
  for (let i = 0; i < rows.length; i += 1) {
    for (let j = i + 1; j < rows.length; j += 1) {
      const normal = cross(rows[i], rows[j]);
      if (isZero(normal) && rank > 1) {
        const words = rows[i][2] ? "are the same point" : "lie on one line through the origin";
        return `points ${i + 1} and ${j + 1} ${words}`;
      }
      const third = rows.findIndex((row, k) => k > j && dot(row, normal) === 0);
      if (rank === 3 && third > 0) return `points ${i + 1}, ${j + 1} and ${third + 1} lie on one line`;
    }
  }
  return "";
}
