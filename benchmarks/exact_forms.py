"""Measure the ways of stating the exact convex program for a conic solver, and print a table.

    OMP_NUM_THREADS=1 python benchmarks/exact_forms.py [--quick] [--time-limit SECONDS] [--only WORD]
        [--forms FORM ...] [--solvers SOLVER ...]

Forms without a cone (linear, gated ReLU):
    loop        the textbook sum of P expressions, one norm each
    stack       A = [D_1 X .. D_P X] times one variable
    stack_aux   the same with the predictions as a variable of their own, U == A Z
    dual        min F*(L) s.t. ||A_k^* L|| <= beta; one batched cone (one inequality of size p + q a block if q > 1)
    rowlmi      the same with max(p, q) inequalities of size min(p, q) + 1 a block
    dual tree   dual, each block's adjoint stated as a difference from a neighbouring block's
    rowlmi tree
Forms with cones (ReLU, scalar output):
    loop        the textbook sum, all rows of every cone
    primal      the same, stacked
    red         stacked, redundant rows of the cones removed
    dual        min F*(L), the cones' multipliers as variables
    dual tree

Set-up is building and compiling, solve is the call of the solver, both in CPU seconds of one thread, so that other
load on the machine matters little; the gap is the certificate's. Tolerances are those of the package's own solvers.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator

import cvxpy as cp
import numpy as np
import torch

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic import ConicProgram, adjoint_map, dual_program, primal_cone_program, split_point

Form = Callable[["cnn.Problem"], ConicProgram]


def _norm(Z: cp.Expression) -> cp.Expression:
    return cp.normNuc(Z) if min(Z.shape) > 1 else cp.norm(cp.vec(Z, order="C"), 2)


def _program(problem: "cnn.Problem", z: cp.Expression, norms: cp.Expression, constraints: list) -> cp.Problem:
    value, domain = problem.loss.cvxpy_value(z, problem.Y)
    return cp.Problem(cp.Minimize(value + problem.beta * norms), [*domain, *constraints])


def loop(problem: "cnn.Problem") -> ConicProgram:
    """min F(sum_k D_k X Z_k) + beta sum_k ||Z_k||, as it is written."""
    D = problem.masks.astype(float)
    Z = [cp.Variable((problem.p, problem.q)) for _ in range(problem.P)]
    z = sum((D[:, k, None] * problem.Phi) @ Z[k] for k in range(problem.P))
    program = _program(problem, z, sum(_norm(block) for block in Z), [])
    return ConicProgram(program, lambda: cnn.Point(blocks=np.stack([block.value for block in Z])))


def stack(problem: "cnn.Problem", aux: bool = False) -> ConicProgram:
    """The same with one variable of P p rows, and with the predictions as a variable (aux)."""
    P, p, q = problem.P, problem.p, problem.q
    A = np.hstack([problem.masks[:, k, None] * problem.Phi for k in range(P)])
    Z = cp.Variable((P * p, q))
    if q == 1:
        norms = cp.sum(cp.norm(cp.reshape(Z, (p, P), order="F"), 2, axis=0))
    else:
        norms = sum(_norm(Z[k * p : (k + 1) * p]) for k in range(P))
    z = cp.Variable(problem.Y.shape) if aux else A @ Z
    constraints = [z == A @ Z] if aux else []
    program = _program(problem, z, norms, constraints)

    def point() -> cnn.Point:
        return cnn.Point(blocks=Z.value.reshape(P, p, q), dual=-constraints[0].dual_value if aux else None)

    return ConicProgram(program, point)


def cone_loop(problem: "cnn.Problem") -> ConicProgram:
    """The ReLU program as it is written: two vectors a block, every row of its cone."""
    D = problem.masks.astype(float)
    pairs = [(cp.Variable((problem.p, 1)), cp.Variable((problem.p, 1))) for _ in range(problem.P)]
    z = sum((D[:, k, None] * problem.Phi) @ (u - v) for k, (u, v) in enumerate(pairs))
    rows = [(2 * D[:, k, None] - 1) * problem.Phi for k in range(problem.P)]
    constraints = [K @ x >= 0 for K, pair in zip(rows, pairs, strict=True) for x in pair]
    program = _program(problem, z, sum(_norm(x) for pair in pairs for x in pair), constraints)

    def point() -> cnn.Point:
        split = np.stack([np.hstack([u.value, v.value]) for u, v in pairs])
        return split_point(problem, split, problem.loss.gradient(*_at(problem, split)).numpy())

    return ConicProgram(program, point)


def _at(problem: "cnn.Problem", split: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    operator = problem.operator()
    return operator.apply(torch.as_tensor(split[:, :, :1] - split[:, :, 1:])), operator.Y


def dual(form: str, tree: bool) -> Form:
    return lambda problem: dual_program(problem, adjoint_map(problem, tree), form)


def primal(reduce: bool) -> Form:
    return lambda problem: primal_cone_program(problem, adjoint_map(problem, False), reduce)


def forms(problem: "cnn.Problem", complete: bool) -> dict[str, Form]:
    """The forms that apply. The tree is for complete sets of patterns; sampled ones have no close neighbours."""
    if problem.has_cone:
        found = {"loop": cone_loop, "primal": primal(False), "red": primal(True), "dual": dual("soc", False)}
        return {**found, "dual tree": dual("soc", True)} if complete else found
    found = {"loop": loop, "stack": stack, "stack_aux": lambda problem: stack(problem, aux=True)}
    found["dual"] = dual("soc" if problem.q == 1 else "lmi", False)
    if problem.q > 1:
        found["rowlmi"] = dual("rowlmi", False)
    if complete:
        found["dual tree"] = dual("soc" if problem.q == 1 else "lmi", True)
        if problem.q > 1:
            found["rowlmi tree"] = dual("rowlmi", True)
    return found


def gaussian(n: int, d: int, c: int, patterns: int, **options) -> "cnn.Problem":
    """Gaussian data, a teacher of ten ReLU neurons, a tenth of noise; beta = 0.05 beta_max."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    Y = np.maximum(X @ rng.standard_normal((d, 10)), 0) @ rng.standard_normal((10, c)) / np.sqrt(10)
    Y = Y + 0.1 * rng.standard_normal(Y.shape)
    if options.get("loss") == "cross_entropy":
        Y = np.argmax(Y, axis=1)
    elif options.get("loss") == "logistic":
        Y = np.where(np.median(Y) > Y, -1.0, 1.0)
    return cnn.Problem(X, Y, patterns=patterns, beta_fraction=0.05, **options)


def problems(quick: bool) -> Iterator[tuple[str, "cnn.Problem"]]:
    yield "gated spiral (45,2,3,90)", cnn.make_problem("spiral", n=45, beta_fraction=0.01)
    yield "ReLU (60,2,1,all)", gaussian(60, 2, 1, "all", activation="relu")
    if quick:
        return
    yield "gated spiral (150,2,3,300)", cnn.make_problem("spiral", n=150, beta_fraction=0.01)
    yield "gated spiral (600,2,3,1200)", cnn.make_problem("spiral", n=600, beta_fraction=0.01)
    yield "gated spiral (1500,2,3,3000)", cnn.make_problem("spiral", n=1500, beta_fraction=0.01)
    yield "gated (500,20,1,100)", gaussian(500, 20, 1, 100)
    yield "gated (200,50,3,10)", gaussian(200, 50, 3, 10)
    yield "gated (200,100,3,5)", gaussian(200, 100, 3, 5)
    yield "gated (200,20,10,10)", gaussian(200, 20, 10, 10)
    yield "gated cross-entropy (150,10,4,10)", gaussian(150, 10, 4, 10, loss="cross_entropy")
    yield "gated logistic (500,20,1,50)", gaussian(500, 20, 1, 50, loss="logistic")
    yield "linear (500,30,5)", gaussian(500, 30, 5, 1, activation="linear")
    yield "ReLU (500,2,1,200)", gaussian(500, 2, 1, 200, activation="relu")
    yield "ReLU (300,2,1,all)", gaussian(300, 2, 1, "all", activation="relu")
    yield "ReLU (40,3,1,all)", gaussian(40, 3, 1, "all", activation="relu")
    yield "ReLU (300,8,1,60)", gaussian(300, 8, 1, 60, activation="relu")
    yield "ReLU logistic (300,8,1,60)", gaussian(300, 8, 1, 60, activation="relu", loss="logistic")


def measure(problem: "cnn.Problem", form: Form, name: str, limit: float) -> str:
    """One row: set-up and solve seconds, certified gap, the solver's own status."""
    solver = cnn.SOLVERS.make(name)
    solver.time_limit = limit
    start = time.process_time()
    conic = solver.conic = form(problem)
    backend = solver.backend()
    data, chain, inverse = conic.program.get_problem_data(
        backend, solver_opts={"accept_unknown": True}, canon_backend="SCIPY"
    )
    built = time.process_time()
    try:
        raw = chain.solve_via_data(conic.program, data, solver_opts=solver.options())
        done = time.process_time()
        conic.program.unpack_results(raw, chain, inverse)
    except cp.SolverError as error:
        return f"{built - start:8.2f} {'':8} {'failed':>9}  {str(error)[:40]}"
    certificate = cnn.certify(problem, conic.point())
    return f"{built - start:8.2f} {done - built:8.2f} {certificate.gap:9.1e}  {solver.said(raw)}"


LOOP_LIMIT = {"loop": 120, "stack": 1200, "stack_aux": 600, "dual": 1200, "rowlmi": 1200, "rowlmi tree": 1200}
# blocks, beyond which a form has to be asked for by name: compiling alone takes minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small problems only")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for every solve")
    parser.add_argument("--only", default="", help="problems whose label holds this word")
    parser.add_argument("--forms", nargs="+", help="these forms only")
    parser.add_argument("--solvers", nargs="+", default=["cvxpy_clarabel", "cvxpy_scs"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning, module="cvxpy")
    warnings.filterwarnings("ignore", message="Solution may be inaccurate")
    print(f"{'program (n,d,c,P)':34} {'form':12} {'solver':15} {'set-up':>8} {'solve':>8} {'gap':>9}  solver says")
    for label, problem in problems(arguments.quick):
        if arguments.only not in label:
            continue
        for form_name, form in forms(problem, problem.scope == "complete" and problem.P > 1).items():
            too_large = LOOP_LIMIT.get(form_name, problem.P) < problem.P
            if form_name not in arguments.forms if arguments.forms else too_large:
                continue
            for name in arguments.solvers:
                row = measure(problem, form, name, arguments.time_limit)
                print(f"{label:34} {form_name:12} {name:15} {row}", flush=True)


if __name__ == "__main__":
    main()
