// Part 1: points in the plane, the cells of neurons that are active on the same points, and their number.

const UNIT = 20, LIMIT = 40, MOST_POINTS = 12;  // a coordinate is a whole number of twentieths, at most 2
const START_POINTS = [[24, 10], [6, 28], [-26, 16], [-18, -20], [14, -28]];
const SPECIAL = { true: [[-30, -24], [-10, -8], [10, 8], [-20, 24], [26, -20]],
                  false: [[24, 12], [-12, -6], [8, 28], [-26, 18], [6, -30]] };

const cells = { points: [], bias: false, u: [0.8, -0.6, 0], marks: [], rows: [], patterns: [], chosen: 0 };
const [plane, disc] = [byId("plane"), byId("disc")];
const onPlane = ([x, y]) => [160 + 3.6 * x, 160 - 3.6 * y];

/** Compute the patterns of the points, and the index of the pattern of the neuron. */
function updateCells() {
  cells.rows = cells.points.map(([x, y]) => [x, y, cells.bias ? UNIT : 0]);
  const { rank, patterns } = attainablePatterns(cells.rows);
  Object.assign(cells, { rank, patterns });
  if (!cells.bias) cells.u[2] = 0;
  const found = patterns.findIndex((one) => one.mask === maskAt(cells.rows, cells.u));
  if (found < 0) chooseCell(0); else { cells.chosen = found; drawCells(); }
}

/** Put the neuron into the cell of this index. */
function chooseCell(index) {
  cells.chosen = Math.min(Math.max(index, 0), cells.patterns.length - 1);
  cells.u = [...cells.patterns[cells.chosen].u];
  drawCells();
}

function setPoint(k, x, y) {
  const whole = (v) => Math.min(Math.max(Math.round(v), -LIMIT), LIMIT);
  cells.points[k] = [whole(x), whole(y)];
  updateCells();
}

function setPoints(points) {
  cells.points = points.map((one) => [...one]);
  while (cells.marks.length < cells.points.length) cells.marks.push(newMark(cells.marks.length));
  cells.marks.forEach((mark, k) => { mark.style.display = k < cells.points.length ? "" : "none"; });
  updateCells();
}

/** Make the mark of a point: a wide invisible circle for fingers, a circle and a number. */
function newMark(k) {
  const mark = shape(plane, "g", { class: "mark", tabindex: 0, role: "button", "aria-roledescription": "movable point" });
  shape(mark, "circle", { r: 18, class: "touch" });
  shape(mark, "circle", { r: 8, class: "point" });
  shape(mark, "text", { y: -13, "text-anchor": "middle", class: "label" }, k + 1);
  movable(plane, mark, {
    moved: (x, y) => setPoint(k, (x - 160) / 3.6, (160 - y) / 3.6),
    pushed: (right, up) => setPoint(k, cells.points[k][0] + right, cells.points[k][1] + up),
    key: (event) => ["Delete", "Backspace"].includes(event.key) && removePoint(k),
  });
  mark.addEventListener("focus", () => drawDisc());
  mark.addEventListener("blur", () => drawDisc());
  return mark;
}

function removePoint(k) {
  if (cells.points.length > 1) setPoints(cells.points.filter((_, other) => other !== k));
  return true;
}

function addPoint() {
  if (cells.points.length < MOST_POINTS) setPoints([...cells.points, randomPoint()]);
}

const randomPoint = () => [0, 0].map(() => Math.round((2 * Math.random() - 1) * 36));

function drawCells() {
  drawPlane();
  drawDisc();
  drawMatrix();
  const { points, patterns, rank, chosen, rows, bias } = cells;
  const N = points.length, most = countInGeneralPosition(N, rank), fewer = patterns.length < most;
  byId("count").textContent = patterns.length;
  byId("formula").textContent = most;
  const terms = Array.from({ length: Math.min(rank, N) }, (_, k) => `C(${N - 1},${k})`).join(" + ");
  const why = specialPosition(rows, rank);
  const degenerate = rank < (bias ? 3 : 2) ? `; the rank is only ${rank}` : "";
  byId("cells-words").textContent = `${plural(N, "point")}, rank r = ${rank}: 2 (${terms || "1"}) = ${most || 1} in general position. ` +
    (fewer ? `Here there are ${most - patterns.length} fewer${why ? `: ${why}` : ""}.` : `Here all of them occur${degenerate}.`);
  const mask = patterns[chosen].mask, active = mask.split("1").length - 1;
  byId("block").max = patterns.length;
  byId("block").value = chosen + 1;
  byId("block-words").textContent = `block ${chosen + 1} of ${patterns.length}: active on ${active} of ${plural(N, "point")}`;
  byId("block").setAttribute("aria-valuetext", byId("block-words").textContent);
  byId("remove-point").disabled = N <= 1;
  byId("add-point").disabled = N >= MOST_POINTS;
}

/** Draw the points, and the line on which the chosen neuron begins to be active. */
function drawPlane() {
  const [a, b, c] = cells.u, corners = [[-44, -44], [44, -44], [44, 44], [-44, 44]];
  const value = ([x, y]) => a * x + b * y + UNIT * c;
  const side = [], border = [];
  corners.forEach((corner, k) => {
    const next = corners[(k + 1) % 4], [here, there] = [value(corner), value(next)];
    if (here >= 0) side.push(corner);
    if (here * there < 0) {
      const crossing = corner.map((one, i) => one + (here / (here - there)) * (next[i] - one));
      side.push(crossing);
      border.push(crossing);
    }
  });
  const text = (list) => list.map((one) => onPlane(one).join()).join(" ");
  byId("side").setAttribute("points", text(side));
  byId("border").setAttribute("points", text(border));
  cells.points.forEach((point, k) => {
    const mark = cells.marks[k], active = cells.patterns[cells.chosen].mask[k] === "1";
    const [x, y] = point.map((one) => (one / UNIT).toFixed(2));
    mark.setAttribute("transform", `translate(${onPlane(point).join()})`);
    mark.querySelector(".point").classList.toggle("active", active);
    mark.setAttribute("aria-label", `point ${k + 1} at ${x}, ${y}, ${active ? "active" : "not active"}`);
  });
}

/** Draw the neurons: directions (u1, u2) without a bias, else the upper half of the sphere of (u1, u2, bias). */
function drawDisc() {
  const tints = Array.from({ length: MOST_POINTS + 1 }, (_, k) => mixed("paper", "blue", (0.6 * k) / cells.points.length));
  const own = mixed("paper", "green", 0.6), chosen = cells.patterns[cells.chosen].mask, lower = cells.u[2] < 0;
  const shown = lower ? [...chosen].map((one) => (one === "1" ? "0" : "1")).join("") : chosen;
  paint(byId("disc-canvas"), (px, py) => {
    const x = px / 0.94, y = py / 0.94, rest = 1 - x * x - y * y;
    if (rest < 0) return null;
    const u = [x, y, cells.bias ? Math.sqrt(rest) : 0];
    let active = 0, same = true;
    cells.rows.forEach((row, k) => {
      const one = dot(row, u) >= 0;
      active += one;
      same = same && (shown[k] === "1") === one;
    });
    return same ? own : tints[active];
  });
  const lines = byId("disc-lines");
  lines.replaceChildren();
  cells.rows.forEach((row, k) => {
    if (isZero(row)) return;
    const first = unit(row[0] || row[1] ? [-row[1], row[0], 0] : [1, 0, 0]), second = unit(cross(unit(row), first));
    const sign = second[2] < 0 ? -1 : 1, arc = [];
    for (let step = 0; step <= 60; step += 1) {
      const angle = (Math.PI * step) / 60, [along, away] = [Math.cos(angle), sign * Math.sin(angle)];
      const [x, y] = [0, 1].map((i) => along * first[i] + (cells.bias ? away * second[i] : 0));
      arc.push(`${(160 + 150.4 * x).toFixed(1)},${(160 - 150.4 * y).toFixed(1)}`);
    }
    const focused = document.activeElement === cells.marks[k];
    shape(lines, "polyline", { points: arc.join(" "), class: focused ? "cut focused" : "cut" });
  });
  const [x, y] = cells.u.map((one) => (lower ? -one : one)), scale = cells.bias ? 150.4 : 105;
  const dotAt = cells.bias ? [x, y] : unit([x, y]);
  byId("neuron").setAttribute("transform", `translate(${160 + scale * dotAt[0]},${160 - scale * dotAt[1]})`);
  byId("neuron").classList.toggle("lower", lower);
  byId("disc-words").textContent = cells.bias
    ? "The sphere of (u1, u2, bias) from above. The half below has the opposite patterns" +
      (lower ? "; the chosen neuron lies there, behind the ring." : ".")
    : "The directions of (u1, u2). A line belongs to each point; cells lie between the lines.";
}

/** Draw the patterns as columns, a row for each point. */
function drawMatrix() {
  const canvas = byId("matrix"), { patterns, chosen } = cells, N = cells.points.length;
  const cell = Math.max(4, Math.min(14, Math.floor(640 / patterns.length))), scale = 2;
  canvas.width = scale * cell * patterns.length;
  canvas.height = scale * (14 * N + 6);
  canvas.style.width = `${cell * patterns.length}px`;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  patterns.forEach(({ mask }, k) => {
    [...mask].forEach((one, row) => {
      context.fillStyle = colour(one === "0" ? "panel" : k === chosen ? "green-text" : "blue-text");
      context.fillRect(k * cell + 0.5, row * 14 + 0.5, cell - 1, 13);
    });
    if (k === chosen) { context.fillStyle = colour("green-text"); context.fillRect(k * cell, 14 * N + 2, cell, 4); }
  });
  canvas.setAttribute("aria-label", `${plural(patterns.length, "pattern")} as columns, with a row for each of ${plural(N, "point")}`);
}

disc.addEventListener("click", (event) => {
  const [x, y] = place(disc, event).map((one, k) => (k ? -1 : 1) * (one - 160) / 150.4), rest = 1 - x * x - y * y;
  if (rest <= 0) return;
  cells.u = [x, y, cells.bias ? Math.sqrt(rest) : 0];
  updateCells();
});
byId("block").addEventListener("input", (event) => chooseCell(event.target.value - 1));
byId("bias").addEventListener("change", (event) => {
  cells.bias = event.target.checked;
  if (cells.bias) cells.u = unit([cells.u[0], cells.u[1], 0.4]);
  updateCells();
});
byId("add-point").addEventListener("click", addPoint);
byId("remove-point").addEventListener("click", () => removePoint(cells.points.length - 1));
byId("random-points").addEventListener("click", () => setPoints(cells.points.map(randomPoint)));
byId("special-points").addEventListener("click", () => setPoints(SPECIAL[cells.bias]));
