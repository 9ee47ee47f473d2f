"""What every process does in tests/running/test_shared.py; run by torchrun with a folder to write `rank.pickle` to.

The functions are also called by the tests themselves, in one process, for the numbers to compare with.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import torch

import convexnn_bench as cnn
from convexnn_bench import parallel
from convexnn_bench.algorithms.newton.neurons import BlockNeurons
from convexnn_bench.algorithms.newton.point import PointState
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem
from convexnn_bench.formulations import burer_monteiro

SOLVERS = {"bm_gd": 12, "bm_adam": 60, "bm_lbfgs": 8, "bm_scaled_gd": 8}  # and steps of each
NEWTON = ("mlp_narrow", "mlp_wide", "cnn", "attention", "large")


def problems():
    rng = np.random.default_rng(0)
    classes = np.eye(3)[np.arange(27) % 3]
    images, tokens = rng.standard_normal((11, 2, 5, 5)), rng.standard_normal((9, 3, 2))
    pooled, weights = cnn.CNN(patch=2, pool=2), np.linspace(0.5, 1.5, 27)
    return {
        "mlp_narrow": cnn.Problem(
            rng.standard_normal((27, 30)), classes, loss="cross_entropy", beta=0.4, patterns=4, sample_weight=weights
        ),
        "mlp_wide": cnn.Problem(
            rng.standard_normal((25, 2)), rng.standard_normal(25), beta=0.3, patterns=40, output_bias="free"
        ),
        "mlp_linear": cnn.Problem(
            rng.standard_normal((23, 4)), classes[:23], activation="linear", loss="cross_entropy", beta=0.3
        ),
        "cnn": cnn.Problem(images, classes[:11], pooled, loss="cross_entropy", beta=0.2, patterns=6),
        "cnn_linear": cnn.Problem(images, rng.standard_normal((11, 2)), pooled, "linear", beta=0.2),
        "attention": cnn.Problem(tokens, rng.standard_normal((9, 3, 2)), "attention", beta=0.5, patterns=5),
        "attention_linear": cnn.Problem(
            tokens, rng.standard_normal((9, 2)), cnn.Attention("mean"), "linear", "huber", beta=0.1
        ),
        "large": cnn.Problem(
            rng.standard_normal((601, 25)), rng.standard_normal((601, 3)), beta_fraction=0.05, patterns=80
        ),
    }


def factors(problem, m=3):
    rng = np.random.default_rng(1)
    U, V = rng.standard_normal((problem.P, problem.p, m)), rng.standard_normal((problem.P, problem.q, m))
    return torch.as_tensor(U), torch.as_tensor(V)


def numbers(problem):
    """Products, value and gradient, and certificate at one point, with the operators that the problem gives."""
    operator, (U, V) = problem.operator(), factors(problem)
    value, left, right = burer_monteiro.value_and_gradient(problem, operator, U, V)
    certificate = cnn.certify(problem, (U, V))
    some = torch.arange(problem.P).flip(0)[: 1 + problem.P // 2]
    return {
        "apply": operator.apply(U @ V.transpose(1, 2)).numpy(),
        "adjoint": operator.adjoint(operator.Y).numpy(),
        "apply_factors": operator.apply_factors(U, V).numpy(),
        "some_blocks": operator.on_blocks(some).apply_factors(U[some], V[some]).numpy(),
        "adjoint_of_some": operator.on_blocks(some).adjoint(operator.Y).numpy(),
        "value": float(value),
        "left": left.numpy(),
        "right": right.numpy(),
        "beta_max": problem.beta_max,
        **{name: getattr(certificate, name) for name in ("primal", "dual", "max_dual_norm", "stationarity_error")},
    }


def hessian_products(problem):
    """Of bm_newton at one point, in float64 and in float32."""
    rng = np.random.default_rng(2)
    working, J = WorkingProblem(problem, "cpu"), 7
    W, Y = rng.standard_normal((problem.p, J)), rng.standard_normal((problem.q, J))
    W, Y = torch.as_tensor(W), torch.as_tensor(Y / np.linalg.norm(Y, axis=0))
    point = PointState(working, BlockNeurons(torch.arange(J) % problem.P, W, Y))
    step = torch.as_tensor(rng.standard_normal((problem.p + problem.q, J)))
    return point.hessian_product(step).numpy(), point.hessian_product(step, single=True).numpy()


def stepped(problem, name):
    """The objective after some steps of a solver, without a clock."""
    solver, left = cnn.SOLVERS.make(name), SOLVERS[name]

    def going():
        nonlocal left
        left -= 1
        return left >= 0

    solver.set_problem(problem)
    solver.run(going)
    return cnn.certify(problem, solver.get_result()).primal


class Wanders(cnn.BaseSolver):
    """Goes elsewhere in every process."""

    name, formulation = "wanders", "burer_monteiro"

    def set_problem(self, problem):
        self.problem = problem

    def run(self, callback):
        callback()

    def get_result(self):
        U, V = factors(self.problem)
        return cnn.Point(factors=(U + parallel.rank(), V))


class Spoils(Wanders):
    """Changes what only the operator of its own samples holds."""

    def run(self, callback):
        operator = self.problem.operator()
        operator.apply_factors(*factors(self.problem))
        assert operator.own.mask_matrix is not None
        callback()
        operator.own.mask_matrix.zero_()
        callback()

    def get_result(self):
        return cnn.Point(factors=factors(self.problem))


def told(call):
    """The kind and the words of what a call raises."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def solved(result):
    U, V = result.factors
    found = {name: getattr(result, name) for name in ("objective", "gap", "status", "curve", "solve_seconds", "device")}
    return {**found, "U": U, "V": V}


def alone(problem):
    """What one process does while the others do not: it must not wait for them."""
    relu = cnn.Problem(problem.X, problem.Y, activation="relu", beta=1.0, patterns=5)
    return {
        "fista": cnn.solve(problem, "fista", gap=1e-4, time_limit=600).status,
        "clarabel": cnn.solve(problem, "cvxpy_clarabel", gap=1e-4, time_limit=600).status,
        "relu": cnn.solve(relu, "bm_lbfgs", gap=1e-4, time_limit=600).status,
    }


def everything():
    parallel.join("cpu")
    given, found = problems(), {}
    if parallel.rank() == 0:
        assert given["cnn"].beta_max > 0  # known to one of them only
    shared = {name: problem.shared() for name, problem in given.items()}
    found["numbers"] = {name: numbers(problem) for name, problem in shared.items()}
    found["hessian"] = {name: hessian_products(problem) for name, problem in shared.items()}
    found["stepped"] = {
        (name, solver): stepped(shared[name], solver) for name in ("mlp_narrow", "cnn") for solver in SOLVERS
    }
    results = {name: cnn.solve(given[name], "bm_newton", gap=1e-8, time_limit=600) for name in NEWTON}
    found["newton"] = {name: solved(result) for name, result in results.items()}
    for name in ("mlp_wide", "large"):
        found["warm", name] = solved(cnn.solve(given[name], "bm_lbfgs", gap=1e-4, start=results[name], iterations=1))
    if parallel.rank() == 0:
        found["certified"] = cnn.certify(results["cnn"].problem, results["cnn"]).primal
    found["limited"] = solved(cnn.solve(given["large"], "bm_gd", gap=None, time_limit=1.0))
    if parallel.rank() == 1:
        found["alone"] = alone(given["mlp_wide"])
    small = cnn.Problem(np.ones((1, 2)), np.ones(1), beta=0.1)
    other = cnn.Problem(
        given["cnn"].X, given["cnn"].Y, given["cnn"].architecture, beta=1.0 + parallel.rank(), patterns=6
    )
    found["told"] = {
        "few": told(lambda: cnn.solve(small, "bm_gd")),
        "other": told(lambda: cnn.solve(other, "bm_gd")),
        "settings": told(lambda: cnn.solve(given["cnn"], "bm_gd", seed=parallel.rank())),
        "start": told(
            lambda: cnn.solve(given["cnn"], "bm_gd", start=(results["cnn"].factors if parallel.rank() else None))
        ),
        "wanders": told(lambda: cnn.solve(given["cnn"], Wanders())),
        "spoils": told(lambda: cnn.solve(given["mlp_narrow"], Spoils(), time_limit=None, gap=None)),
    }
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 2:  # the products alone
        parallel.join("cpu")
        left = {"numbers": {name: numbers(problem.shared()) for name, problem in problems().items()}}
    else:
        left = everything()
    (Path(sys.argv[1]) / f"{parallel.rank()}.pickle").write_bytes(pickle.dumps(left))
