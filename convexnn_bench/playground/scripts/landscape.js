// Part 2: the objective of one neuron over (u, v), gradient descent from a point of one's choice, and its certificate.

const SIDE = 1.7;  // half the side of the drawn square
const SCALAR = { X: [[0.8], [-0.4], [0.4]], Y: [[0.9], [-0.2], [0.5]] };
const [A, B, C] = [inner(SCALAR.X, SCALAR.X), inner(SCALAR.X, SCALAR.Y), inner(SCALAR.Y, SCALAR.Y)];
const SCALAR_MAX = betaMax(SCALAR.X, SCALAR.Y);
const VALLEY = { tolerance: 1e-10, most: 20000, rate: 0.04 };

const valley = { start: [0.9, -0.7], path: [], history: [], stop: () => {} };
const surface = byId("surface");
const beta = () => Number(byId("beta").value) * SCALAR_MAX;

/** Return f(u, v) = 1/2 (A (u v)^2 - 2 B u v + C) + beta/2 (u^2 + v^2), the objective of SCALAR written out. */
const height = (u, v, weight) => 0.5 * (A * u * v * u * v - 2 * B * u * v + C) + 0.5 * weight * (u * u + v * v);

/** Return z = u v at the optimum, (|B| - beta)_+ / A with the sign of B. */
const bestProduct = (weight) => (Math.sign(B) * Math.max(Math.abs(B) - weight, 0)) / A;

function drawLandscape() {
  const weight = beta(), z = bestProduct(weight), root = Math.sqrt(Math.abs(z));
  const low = height(root, Math.sign(z) * root, weight), top = height(SIDE, -SIDE, weight) - low;
  const tints = Array.from({ length: 15 }, (_, k) => mixed("paper", "blue", 0.62 * (1 - k / 14)));
  // bands of equal width in the square root of the height above the minimum
  paint(byId("surface-canvas"), (x, y) =>
    tints[Math.floor(Math.min(1.6 * Math.sqrt((height(SIDE * x, SIDE * y, weight) - low) / top), 1) * 14)]);
  const on = (u, v) => [160 + (150 / SIDE) * u, 160 - (150 / SIDE) * v];
  const minima = z === 0 ? [[0, 0]] : [[root, Math.sign(z) * root], [-root, -Math.sign(z) * root]];
  ["minimum-1", "minimum-2"].forEach((id, k) => {
    byId(id).style.display = k < minima.length ? "" : "none";
    if (k < minima.length) byId(id).setAttribute("transform", `translate(${on(...minima[k]).join()})`);
  });
  byId("saddle").style.display = z === 0 ? "none" : "";
  byId("beta-words").textContent = `${rounded(weight / SCALAR_MAX, 2, false)} beta_max`;
  byId("landscape-words").textContent = z === 0
    ? "beta is at least beta_max: zero is the only stationary point, and the global minimum."
    : `Two minima at ±(${root.toFixed(3)}, ${(Math.sign(z) * root).toFixed(3)}), a saddle at (0, 0).`;
  const marker = valley.path.length ? valley.path[valley.path.length - 1] : valley.start;
  byId("track").setAttribute("points", valley.path.map(([u, v]) => on(u, v).map((one) => one.toFixed(1)).join()).join(" "));
  byId("ball").setAttribute("transform", `translate(${on(...marker).join()})`);
  byId("start").setAttribute("transform", `translate(${on(...valley.start).join()})`);
  byId("start").setAttribute("aria-label",
    `start at u = ${valley.start[0].toFixed(2)}, v = ${valley.start[1].toFixed(2)}; Enter starts the descent`);
}

/** Write down the certificate of a point. */
function noteValley(step, u, v) {
  const { primal, bound } = certificate({ ...SCALAR, beta: beta() }, [[u]], [[v]]);
  const before = valley.history[valley.history.length - 1];
  valley.history.push({ step, primal, bound: Math.max(bound, before ? before.bound : bound) });
}

function showValley(state) {
  const now = valley.history[valley.history.length - 1], gap = (now.primal - now.bound) / now.bound;
  byId("valley-gap").textContent = gapWords(gap);
  byId("valley-numbers").textContent =
    `step ${now.step}: objective ${rounded(now.primal, 5, true)}, proven bound ${rounded(now.bound, 5, false)}, ${state}`;
  sandwich(byId("valley-chart"), valley.history, "steps of gradient descent");
  drawLandscape();
}

/** Run gradient descent from the start, in frames that grow longer. `still`: show its end alone. */
function descend(still = calm.matches) {
  valley.stop();
  let [[u, v], step, perFrame, size] = [valley.start, 0, 1, Infinity];
  const weight = beta(), problem = { ...SCALAR, beta: weight };
  valley.path = [[u, v]];
  valley.history = [];
  noteValley(0, u, v);
  const words = () => (size > VALLEY.tolerance ? `gradient ${size.toExponential(0)}` : Math.hypot(u, v) < 1e-6 && weight < SCALAR_MAX
    ? "the gradient is zero: stuck at the saddle" : "the gradient is zero");
  const frame = () => {
    for (let k = 0; k < perFrame && size > VALLEY.tolerance; k += 1) {
      const [U, V, length] = descended(problem, [[u]], [[v]], VALLEY.rate);
      [u, v, size, step] = [U[0][0], V[0][0], length, step + 1];
      if (valley.path.length < 4000) valley.path.push([u, v]);
    }
    perFrame = Math.min(perFrame + 0.1, 12);
    noteValley(step, u, v);
    return size > VALLEY.tolerance && step < VALLEY.most;
  };
  valley.stop = animated(frame, () => showValley(words()), still);
}

function placeStart(u, v) {
  valley.start = [u, v].map((one) => Math.min(Math.max(one, -SIDE), SIDE));
  valley.stop();
  [valley.path, valley.history] = [[], []];
  noteValley(0, ...valley.start);
  showValley("press Enter or Descend");
}

const toValley = (x, y) => [((x - 160) * SIDE) / 150, ((160 - y) * SIDE) / 150];
surface.addEventListener("click", (event) => { placeStart(...toValley(...place(surface, event))); descend(); });
movable(surface, byId("start"), {
  moved: (x, y) => placeStart(...toValley(x, y)),
  pushed: (right, up) => placeStart(valley.start[0] + 0.05 * right, valley.start[1] + 0.05 * up),
  key: (event) => { if (![" ", "Enter"].includes(event.key)) return false; descend(); return true; },
});
byId("start").addEventListener("click", (event) => event.stopPropagation());
byId("beta").addEventListener("input", () => placeStart(...valley.start));
byId("descend").addEventListener("click", () => descend());
byId("ridge").addEventListener("click", () => { placeStart(1.1, -1.1); descend(); });
