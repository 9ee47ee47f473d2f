// The Burer-Monteiro factorisation of a linear network with squared loss, and the certificate of its points.
//
//   f(U, V) = 1/2 ||X U V^T - Y||^2 + beta/2 (||U||^2 + ||V||^2),  U: p x m, V: q x m, matrices as arrays of rows.
//
// For R = X U V^T - Y and every s with |s| ||X^T R||_2 <= beta, weak duality bounds the optimum of every width from below:
// p* >= -s^2/2 ||R||^2 - s <R, Y>.

const product = (A, B) => A.map((row) => B[0].map((_, j) => row.reduce((sum, one, k) => sum + one * B[k][j], 0)));
const transposed = (A) => A[0].map((_, j) => A.map((row) => row[j]));
const combined = (A, B, factor) => A.map((row, i) => row.map((one, j) => one + factor * B[i][j]));
const inner = (A, B) => A.reduce((sum, row, i) => sum + row.reduce((part, one, j) => part + one * B[i][j], 0), 0);
const norm = (A) => Math.sqrt(inner(A, A));

/** Return X U V^T - Y. Without columns, the prediction is zero. */
function residual({ X, Y }, U, V) {
  if (U[0].length === 0) return Y.map((row) => row.map((one) => -one));
  return combined(product(product(X, U), transposed(V)), Y, -1);
}

function objective(problem, U, V) {
  const R = residual(problem, U, V);
  return 0.5 * inner(R, R) + 0.5 * problem.beta * (inner(U, U) + inner(V, V));
}

/** Return the gradients with respect to U and V. */
function gradient(problem, U, V) {
  const G = product(transposed(problem.X), residual(problem, U, V));
  return [combined(product(G, V), U, problem.beta), combined(product(transposed(G), U), V, problem.beta)];
}

/** Return the singular values of a matrix and the vectors {left, value, right}, the largest first: one-sided Jacobi. */
function singular(A) {
  const columns = transposed(A).map((column) => [...column]), n = columns.length;
  const right = columns.map((_, i) => columns.map((__, j) => (i === j ? 1 : 0)));  // right[i] belongs to columns[i]
  for (let sweep = 0; sweep < 60; sweep += 1) {
    let rotated = false;
    for (let i = 0; i < n; i += 1) {
      for (let j = i + 1; j < n; j += 1) {
        const a = dot(columns[i], columns[i]), b = dot(columns[j], columns[j]), c = dot(columns[i], columns[j]);
        if (Math.abs(c) <= 1e-15 * Math.sqrt(a * b)) continue;
        // The rotation by the angle with tan(2 angle) = 2 c / (a - b) makes both columns orthogonal.
        const angle = 0.5 * Math.atan2(2 * c, a - b), cos = Math.cos(angle), sin = Math.sin(angle);
        for (const pair of [columns, right]) {
          [pair[i], pair[j]] = [pair[i].map((one, k) => cos * one + sin * pair[j][k]),
                                pair[j].map((one, k) => cos * one - sin * pair[i][k])];
        }
        rotated = true;
      }
    }
    if (!rotated) break;
  }
  return columns.map((column, k) => ({ value: Math.hypot(...column), column, right: right[k] }))
    .sort((a, b) => b.value - a.value)
    .map(({ value, column, right: v }) => ({ value, right: v, left: column.map((one) => (value > 0 ? one / value : 0)) }));
}

/** Return {primal, bound, gap, pairs}: objective, proven lower bound, relative gap, and the singular pairs of -G. */
function certificate(problem, U, V) {
  const R = residual(problem, U, V), primal = objective(problem, U, V);
  const pairs = singular(product(transposed(problem.X), R).map((row) => row.map((one) => -one)));
  const limit = problem.beta / pairs[0].value, square = inner(R, R), slope = inner(R, problem.Y);
  const s = square > 0 ? Math.min(limit, Math.max(-limit, -slope / square)) : 0;
  const bound = -0.5 * s * s * square - s * slope;
  return { primal, bound, gap: (primal - bound) / Math.abs(bound), pairs };
}

/** Return the best size t of a new column t (x, y) along the top singular pair of -G, or 0 where none descends. */
function bestSize(problem, pair) {
  // f(t) = f(0) + t^2 (beta - sigma) + t^4/2 ||X x||^2
  const along = product(problem.X, pair.left.map((one) => [one]));
  return pair.value > problem.beta ? Math.sqrt((pair.value - problem.beta) / inner(along, along)) : 0;
}

const withColumn = (A, column, size) => A.map((row, k) => [...row, size * column[k]]);

/** Return the factors after a step of gradient descent, and the norm of the gradient before it. */
function descended(problem, U, V, rate) {
  const [dU, dV] = gradient(problem, U, V);
  return [combined(U, dU, -rate), combined(V, dV, -rate), Math.hypot(norm(dU), norm(dV))];
}

/** Return the step of gradient descent for data of this size. */
const stepFor = (problem) => { const size = singular(problem.X)[0].value; return 0.15 / (size * size); };

/** Run gradient descent until the gradient is below the tolerance; return [U, V, steps]. */
function stationary(problem, U, V, tolerance, most) {
  const rate = stepFor(problem);
  for (let step = 0; step < most; step += 1) {
    const [nextU, nextV, length] = descended(problem, U, V, rate);
    if (length <= tolerance) return [U, V, step];
    [U, V] = [nextU, nextV];
  }
  return [U, V, most];
}

/** Return the smallest weight decay at which zero is optimal, ||X^T Y||_2. */
const betaMax = (X, Y) => singular(product(transposed(X), Y))[0].value;
