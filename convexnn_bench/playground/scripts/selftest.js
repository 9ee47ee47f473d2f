// The page's functions against cases that the Python package has computed: open the page with #selftest.

const CASES = JSON.parse(byId("cases").textContent);

/** Return [{what, expected, computed, difference}] of every comparison. Differences are relative. */
function compareAll() {
  const rows = [];
  const number = (what, expected, computed) =>
    rows.push({ what, expected, computed, difference: Math.abs(computed - expected) / Math.max(Math.abs(expected), 1e-3) });
  const text = (what, expected, computed) => rows.push({ what, expected, computed, difference: expected === computed ? 0 : 1 });
  for (const one of CASES.patterns) {
    const rows3 = one.points.map(([x, y]) => [x, y, one.bias ? UNIT : 0]), { rank, patterns } = attainablePatterns(rows3);
    text(`${one.name}: patterns`, one.masks.join(" "), patterns.map((each) => each.mask).sort().join(" "));
    text(`${one.name}: rank`, one.rank, rank);
    text(`${one.name}: formula`, one.formula, countInGeneralPosition(one.points.length, rank));
    text(`${one.name}: neurons lie in their cells`, true, patterns.every((each) => maskAt(rows3, each.u) === each.mask));
  }
  for (const one of CASES.points) {
    const made = certificate(one, one.U, one.V);
    number(`${one.name}: objective`, one.objective, made.primal);
    number(`${one.name}: bound`, one.bound, made.bound);
    number(`${one.name}: dual norm`, one.dual_norm, made.pairs[0].value);
    const lengths = gradient(one, one.U, one.V);
    number(`${one.name}: gradient`, one.gradient, Math.hypot(norm(lengths[0]), norm(lengths[1])));
  }
  for (const one of CASES.scalar) {
    const z = bestProduct(one.beta), root = Math.sqrt(Math.abs(z));
    number(`${one.name}: minimiser`, one.product, z);
    number(`${one.name}: minimum`, one.objective, height(root, Math.sign(z) * root, one.beta));
    number(`${one.name}: beta_max`, one.beta_max, SCALAR_MAX);
  }
  for (const one of CASES.stairs) {
    const problem = { ...STAIRS, beta: one.beta };
    number(`${one.name}: beta_max`, one.beta_max, STAIRS_MAX);
    let [U, V] = [STAIRS.X[0].map(() => []), STAIRS.Y[0].map(() => [])];
    for (const expected of one.objectives) {
      const made = certificate(problem, U, V), size = DESCENT.first * bestSize(problem, made.pairs[0]);
      number(`${one.name}: objective with ${plural(U[0].length, "column")}`, expected, made.primal);
      [U, V] = [withColumn(U, made.pairs[0].left, size), withColumn(V, made.pairs[0].right, size)];
      if (size > 0) [U, V] = stationary(problem, U, V, DESCENT.tolerance, DESCENT.most);
    }
    const end = certificate(problem, U, V);
    number(`${one.name}: optimum`, one.optimum, end.primal);
    number(`${one.name}: bound at the optimum`, one.optimum, end.bound);
  }
  return rows;
}

/** Show the outcome on the page, as words and as JSON. */
function selftest() {
  const rows = compareAll(), wrong = rows.filter((row) => !(row.difference <= CASES.tolerance));
  const box = byId("selftest");
  box.hidden = false;
  box.querySelector("p").textContent = wrong.length
    ? `${wrong.length} of ${rows.length} comparisons with the package fail.`
    : `All ${rows.length} comparisons with the package agree to ${CASES.tolerance}.`;
  box.querySelector("pre").textContent = JSON.stringify({ compared: rows.length, wrong });
}
