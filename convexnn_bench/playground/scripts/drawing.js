// SVG elements, colours of the page, charts, and points that can be moved by mouse, finger and arrow keys.

const byId = (id) => document.getElementById(id);
const SVG = document.querySelector("svg").namespaceURI;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Append an SVG element with attributes to a parent and return it. */
function shape(parent, name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== "") made.textContent = text;
  parent.append(made);
  return made;
}

const parsed = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));

/** Return the colour between two, as [red, green, blue]. */
function mixed(from, to, part) {
  const other = parsed(colour(to));
  return parsed(colour(from)).map((one, k) => Math.round(one + part * (other[k] - one)));
}

/** Paint every pixel of a canvas: tone(x, y) in [-1, 1] x [-1, 1], upwards, is [red, green, blue] or null. */
function paint(canvas, tone) {
  const { width, height } = canvas, context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let row = 0, at = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1, at += 4) {
      const made = tone((2 * column + 1) / width - 1, 1 - (2 * row + 1) / height);
      if (made) { image.data.set(made, at); image.data[at + 3] = 255; }
    }
  }
  context.putImageData(image, 0, 0);
}

/** Return where a pointer is, in units of an SVG. */
function place(svg, event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [at.x, at.y];
}

/**
 * Make an element movable. moved(x, y) gets a place in units of the SVG; pushed(right, up, event) gets a step of an arrow
 * key, 5 with Shift, else 1; key(event) gets any other key and returns true where it acted.
 */
function movable(svg, element, { moved, pushed, key = () => false }) {
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    element.focus({ preventScroll: true });
    event.preventDefault();
    event.stopPropagation();
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) moved(...place(svg, event));
  });
  element.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 5 : 1;
    const arrows = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key in arrows) pushed(...arrows[event.key]);
    else if (!key(event)) return;
    event.preventDefault();
  });
}

/** Return a few round numbers between two. */
function ticks(low, high, most = 4) {
  const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= raw);
  const made = [];
  for (let k = Math.ceil(low / step); k * step <= high * (1 + 1e-9); k += 1) made.push(Number((k * step).toPrecision(6)));
  return made;
}

/**
 * Draw lines into an SVG of 320 x 240 units.
 * lines: [{name, points: [[x, y]], hue, dashed, label: above the last point or below it}]; dots: [{x, y, hue}].
 */
function chart(svg, { lines, dots = [], x, y, title, zero = false }) {
  svg.replaceChildren();
  const left = 44, right = 308, top = 14, bottom = 200;
  const across = (v) => left + ((v - x[0]) / (x[1] - x[0] || 1)) * (right - left);
  const up = (v) => bottom - ((Math.min(Math.max(v, y[0]), y[1]) - y[0]) / (y[1] - y[0] || 1)) * (bottom - top);
  for (const v of ticks(...y)) {
    shape(svg, "line", { x1: left, x2: right, y1: up(v), y2: up(v), class: "grid" });
    shape(svg, "text", { x: left - 6, y: up(v) + 4, "text-anchor": "end" }, v);
  }
  for (const v of ticks(...x)) shape(svg, "text", { x: across(v), y: bottom + 17, "text-anchor": "middle" }, v);
  shape(svg, "text", { x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, title);
  shape(svg, "line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" });
  if (zero) shape(svg, "line", { x1: left, x2: right, y1: up(0), y2: up(0), class: "axis" });
  for (const { points, hue, dashed } of lines) {
    const path = points.map(([a, b]) => `${across(a).toFixed(1)},${up(b).toFixed(1)}`).join(" ");
    shape(svg, "polyline", { points: path, class: `line ${hue}${dashed ? " dashed" : ""}` });
  }
  for (const { x: a, y: b, hue } of dots) shape(svg, "circle", { cx: across(a), cy: up(b), r: 6, class: `dot ${hue}` });
  for (const { name, points, hue, below } of lines.filter((line) => line.name && line.points.length)) {
    const [a, b] = points[points.length - 1], end = across(a) > (left + right) / 2;
    const label = { x: across(a), y: up(b) + (below ? 18 : -9), class: `label ${hue}`, "text-anchor": end ? "end" : "start" };
    shape(svg, "text", label, name);
  }
}

/** Draw objective and proven bound against steps. history: [{step, primal, bound, marked}]. */
function sandwich(svg, history, title) {
  const last = history[history.length - 1], best = [];
  for (const { step, bound } of history) best.push([step, Math.max(bound, best.length ? best[best.length - 1][1] : -Infinity)]);
  const high = Math.max(...history.map((one) => one.primal));
  chart(svg, {
    x: [0, Math.max(last.step, 10)], y: [0, 1.15 * high || 1], title,
    lines: [
      { name: "objective", points: history.map((one) => [one.step, one.primal]), hue: "blue" },
      { name: "proven bound", points: best, hue: "orange", dashed: true, below: true },
    ],
    dots: [...history.filter((one) => one.marked).map((one) => ({ x: one.step, y: one.primal, hue: "pink" })),
           { x: last.step, y: last.primal, hue: "blue" }, { x: last.step, y: best[best.length - 1][1], hue: "orange" }],
  });
}

/**
 * Call step() and shown() in every frame until step() returns false. Return a function that ends it. `still`: take all
 * steps at once and show the last one, as for readers who prefer no motion.
 */
function animated(step, shown, still = calm.matches) {
  let ended = false;
  if (still) { while (step()); shown(); return () => {}; }
  const next = () => {
    if (ended) return;
    const more = step();
    shown();
    if (more) requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
  return () => { ended = true; };
}
