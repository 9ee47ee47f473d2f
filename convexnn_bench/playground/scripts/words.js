// Numbers in words, rounded so that a statement about a bound remains true.

/** Return x with so many significant digits, rounded up or down. */
function rounded(x, digits, up) {
  if (!Number.isFinite(x) || x === 0) return String(x);
  const scale = 10 ** (digits - 1 - Math.floor(Math.log10(Math.abs(x))));
  const whole = (up ? Math.ceil : Math.floor)(x * scale);
  return Math.abs(x) < 1e-4 ? (whole / scale).toExponential(digits - 1) : String(Number((whole / scale).toPrecision(digits)));
}

/** Return how far above the global optimum a point with this relative gap can be. */
function gapWords(gap) {
  if (gap <= 1e-6) return "the global optimum, to one part in a million";
  if (!(gap < 10)) return Number.isFinite(gap) ? `at most ${rounded(1 + gap, 2, true)} times the global optimum` : "no bound yet";
  return `at most ${rounded(100 * gap, 2, true)} % above the global optimum`;
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
