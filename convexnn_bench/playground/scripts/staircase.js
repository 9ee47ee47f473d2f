// Part 3: the staircase. Gradient descent stops at a saddle; a column along the top singular pair of -G leaves it.

const STAIRS = {
  X: [[1.2, 0.1, -0.3], [-0.4, 0.9, 0.2], [0.3, -0.2, 1.0], [0.6, 0.5, -0.4], [-0.7, 0.3, 0.5], [0.2, -0.8, 0.4]],
  Y: [[1.9, 0.5, -0.2], [-0.5, 1.0, 0.3], [0.4, -0.3, 0.6], [0.9, 0.8, -0.5], [-1.2, 0.2, 0.4], [0.4, -0.9, 0.3]],
};
const STAIRS_MAX = betaMax(STAIRS.X, STAIRS.Y);
const DESCENT = { tolerance: 1e-9, most: 60000, first: 0.35 };  // gradient norm, steps, part of the best size of a column

const stairs = { stop: () => {}, running: false };
const stairBeta = () => Number(byId("stair-beta").value) * STAIRS_MAX;
const stairProblem = () => ({ ...STAIRS, beta: stairBeta() });

/** Begin with no column, the zero network. */
function resetStairs() {
  stairs.stop();
  Object.assign(stairs, { U: STAIRS.X[0].map(() => []), V: STAIRS.Y[0].map(() => []), history: [], step: 0, running: false });
  noteStairs(true);
  showStairs();
}

function noteStairs(marked) {
  const { primal, bound, pairs } = certificate(stairProblem(), stairs.U, stairs.V);
  const before = stairs.history[stairs.history.length - 1];
  stairs.history.push({ step: stairs.step, primal, bound: Math.max(bound, before ? before.bound : 0), marked });
  stairs.pairs = pairs;
}

/** Append a column along the direction of descent, and run gradient descent to the next stationary point. */
function climb() {
  const problem = stairProblem(), pair = stairs.pairs[0], size = DESCENT.first * bestSize(problem, pair);
  if (stairs.running || size === 0) return;
  stairs.U = withColumn(stairs.U, pair.left, size);
  stairs.V = withColumn(stairs.V, pair.right, size);
  stairs.running = true;
  showStairs();
  const rate = stepFor(problem), end = stairs.step + DESCENT.most;
  let perFrame = 1;
  const frame = () => {
    let length = Infinity;
    for (let k = 0; k < perFrame && length > DESCENT.tolerance; k += 1) {
      [stairs.U, stairs.V, length] = descended(problem, stairs.U, stairs.V, rate);
      stairs.step += 1;
    }
    perFrame = Math.min(perFrame + 0.5, 40);
    stairs.running = length > DESCENT.tolerance && stairs.step < end;
    noteStairs(!stairs.running);
    return stairs.running;
  };
  stairs.stop = animated(frame, showStairs);
}

function showStairs() {
  const now = stairs.history[stairs.history.length - 1], weight = stairBeta(), problem = stairProblem();
  const [pair, columns] = [stairs.pairs[0], stairs.U[0].length], above = pair.value > weight * (1 + 1e-7);
  byId("stair-gap").textContent = gapWords((now.primal - now.bound) / now.bound);
  const state = stairs.running ? "gradient descent is running" : above
    ? `a saddle: one column more descends, since ||G|| = ${rounded(pair.value / weight, 3, false)} beta` : "no column descends: global optimum";
  byId("stair-numbers").textContent = `${plural(columns, "column")}: objective ${rounded(now.primal, 5, true)}, ` +
    `proven bound ${rounded(now.bound, 5, false)}; ${state}`;
  sandwich(byId("stair-chart"), stairs.history, "steps of gradient descent");
  // the change of the objective along a new column of size t
  const along = product(problem.X, pair.left.map((one) => [one])), curve = [], reach = 1.7;
  const change = (t) => t * t * (weight - pair.value) + 0.5 * t ** 4 * inner(along, along);
  for (let k = -50; k <= 50; k += 1) curve.push([(reach * k) / 50, change((reach * k) / 50)]);
  const first = stairs.history[0].primal, best = bestSize(problem, pair);
  const dots = [{ x: 0, y: 0, hue: above ? "pink" : "ink" }];
  if (above && !stairs.running) dots.push({ x: best, y: change(best), hue: "blue" });
  chart(byId("profile"), {
    x: [-reach, reach], y: [-0.6 * first, 0.6 * first], zero: true, dots, title: "size t of the new column",
    lines: [{ name: "", points: curve.filter(([, y]) => y <= 0.6 * first), hue: "blue" }],
  });
  const entries = (vector) => vector.map((one) => one.toFixed(2)).join(", ");
  byId("direction").textContent = above ? `The direction: t (${entries(pair.left)}) in U, t (${entries(pair.right)}) in V.`
    : "The objective rises along every new column.";
  drawSpectrum(weight);
  byId("stair-beta-words").textContent = `${rounded(weight / STAIRS_MAX, 2, false)} beta_max`;
  byId("climb").disabled = stairs.running || !above;
}

/** Draw the singular values of G as bars, and beta as a line that none exceeds at the optimum. */
function drawSpectrum(weight) {
  const svg = byId("spectrum"), top = 1.15 * STAIRS_MAX, wide = (v) => (210 * v) / top;
  svg.replaceChildren();
  stairs.pairs.forEach(({ value }, k) => {
    const hue = value > weight * (1 + 1e-7) ? "pink" : "blue";
    shape(svg, "rect", { x: 78, y: 10 + 26 * k, height: 16, width: Math.max(wide(value), 1), class: `bar ${hue}` });
    shape(svg, "text", { x: 70, y: 23 + 26 * k, "text-anchor": "end" }, `σ${k + 1} = ${value.toFixed(2)}`);
  });
  shape(svg, "line", { x1: 78 + wide(weight), x2: 78 + wide(weight), y1: 4, y2: 88, class: "line orange dashed" });
  shape(svg, "text", { x: 78 + wide(weight), y: 104, "text-anchor": "middle", class: "label orange" }, "beta");
}

byId("climb").addEventListener("click", climb);
byId("reset").addEventListener("click", resetStairs);
byId("stair-beta").addEventListener("input", resetStairs);
