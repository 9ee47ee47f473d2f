"""The memory formulas of docs/architecture.md, against the rise of a process's resident memory on Linux."""

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

import convexnn_bench as cnn
from convexnn_bench.algorithms.descent.bm_objective import BMObjective
from convexnn_bench.algorithms.newton.neurons import BlockNeurons
from convexnn_bench.algorithms.newton.point import PointState
from convexnn_bench.algorithms.newton.system import NewtonSystem
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem
from convexnn_bench.algorithms.newton.working_set import WorkingSetNewton
from convexnn_bench.harness.process import run_process
from convexnn_bench.harness.tree import resident_mb
from convexnn_bench.operator import adjoint_rounding
from convexnn_bench.operator.chunks import CHUNK_ELEMENTS as C

pytestmark = pytest.mark.process
MMAP_THRESHOLD = -3  # malloc.h
LIBRARIES = 24 * 2**20  # bytes that libraries may take for themselves
CLEAR = Path("/proc/self/clear_refs")


def problem(n: int, d: int, P: int, c: int) -> "cnn.Problem":
    rng = np.random.default_rng(0)
    X, masks = rng.standard_normal((n, d)), rng.random((n, P)) < 0.5
    return cnn.Problem(X, rng.standard_normal((n, c)), beta=1.0, patterns=masks)


def neurons(working: WorkingProblem, J: int) -> BlockNeurons:
    g = torch.Generator().manual_seed(0)
    W, Y = (torch.randn(r, J, generator=g, dtype=torch.float64) for r in (working.problem.p, working.problem.q))
    return BlockNeurons(torch.arange(J) % working.problem.P, W, Y / torch.linalg.vector_norm(Y, dim=0))


def products(n: int, d: int, P: int, c: int):
    """A and its adjoint, masks as numbers included."""
    operator = problem(n, d, P, c).operator()
    Z = torch.zeros(P, d, c, dtype=torch.float64)
    masks = 8 * n * P if n * P <= C else 8 * C
    return lambda: operator.adjoint(operator.apply(Z)), masks + 24 * C * max(1, P / n)


def objective(n: int, d: int, P: int, c: int):
    """Value and gradient with one column a block, through the columns."""
    f = BMObjective(problem(n, d, P, c), 1, 0, "cpu")
    return lambda: f(f.start), 8 * n * P + 16 * P * (d + c)  # the masks as numbers are formed with the start


def newton(n: int, d: int, P: int, c: int, J: int, route: str):
    """Point, gradient and one damped Newton step by `route`."""
    working = WorkingProblem(problem(n, d, P, c), "cpu")
    start = neurons(working, J)

    def call():
        system = NewtonSystem(PointState(working, start))
        system.route = route
        system.trial_step(1.0, 0.5, 0.1)

    size = J * (d + (c if c > 1 else 0))
    matrices = {"products": 16 * n * d, "hessian": 24 * size**2 + 16 * n * d * J, "samples": 32 * n**2}[route]
    return call, 32 * n * J + 4 * n * (d + 2 * J + 3 * c) + 40 * J * (d + c) + 24 * J**2 + matrices


def sparse_problem(n: int, d: int, P: int, c: int, each: int) -> "cnn.Problem":
    """Data with so many numbers in each row."""
    rng = np.random.default_rng(0)
    columns, pointers = rng.integers(0, d, n * each), each * np.arange(n + 1)
    X = scipy.sparse.csr_array((rng.standard_normal(n * each), columns, pointers), shape=(n, d))
    return cnn.Problem(X, rng.standard_normal((n, c)), beta=1.0, patterns=rng.random((n, P)) < 0.5)


def sparse_products(n: int, d: int, P: int, c: int, each: int):
    """A, its adjoint, and the bound on its rounding."""
    made = sparse_problem(n, d, P, c, each)
    operator = made.operator()
    Z = torch.zeros(P, d, c, dtype=torch.float64)

    def call():
        z = operator.apply(Z)
        return operator.adjoint(z), adjoint_rounding(operator, z)

    return call, 8 * made.X.nnz + 16 * n * P * c + 24 * P * d * c


def sparse_newton(n: int, d: int, P: int, c: int, J: int, each: int):
    """Point, gradient and one Newton step by conjugate gradients."""
    made = sparse_problem(n, d, P, c, each)
    working = WorkingProblem(made, "cpu")
    start = neurons(working, J)
    bound = 56 * n * J + 40 * J * (d + c) + 24 * J**2 + 8 * made.X.nnz + 8 * d
    return lambda: NewtonSystem(PointState(working, start)).trial_step(1.0, 0.5, 0.1), bound


def float32_products(n: int, d: int, P: int, c: int):
    """A problem on float32 data, whose copy is counted, A, its adjoint, and the bound on its rounding."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    Y, masks = rng.standard_normal((n, c)), rng.random((n, P)) < 0.5
    Z = torch.zeros(P, d, c, dtype=torch.float64)

    def call():
        operator = cnn.Problem(X, Y, beta=1.0, patterns=masks).operator()
        z = operator.apply(Z)
        return operator.adjoint(z), adjoint_rounding(operator, z)

    return call, 4 * n * d + 16 * n * P * c + 24 * P * d * c + 8 * 2**20


def spreading(n: int, blocks: int):
    """Which of many blocks enter."""
    working = WorkingProblem(problem(n, 2, blocks, 1), "cpu")
    run = WorkingSetNewton(working, 1e-6, lambda neurons, Lambda: True)
    return lambda: run.spread(torch.arange(blocks), 20), n * blocks + 8 * C + 32 * blocks**2


CASES = {
    "A and its adjoint": (products, 60000, 10, 400, 2),
    "objective and gradient": (objective, 60000, 50, 200, 10),
    "step by products": (newton, 60000, 10, 100, 2, 100, "products"),
    "step by the Hessian": (newton, 4000, 10, 100, 2, 200, "hessian"),
    "step by samples": (newton, 3000, 10, 100, 1, 100, "samples"),
    "sparse A and its adjoint": (sparse_products, 50000, 20000, 30, 2, 40),
    "step on sparse data": (sparse_newton, 50000, 20000, 20, 2, 20, 40),
    "float32 A and its adjoint": (float32_products, 20000, 1000, 20, 2),
    "blocks that enter": (spreading, 100000, 800),
}


def _measure(link, threads, case):
    torch.set_num_threads(threads)
    make, *sizes = CASES[case]
    small = [value if isinstance(value, str) else min(value, 40) for value in sizes]
    make(*small)[0]()  # libraries warmed up
    call, bound = make(*sizes)
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc: freed arrays go back to the system, so that none is used again unseen
        library.mallopt(MMAP_THRESHOLD, 2**16)
        library.malloc_trim(0)
    CLEAR.write_text("5")  # the peak starts again from what is held now
    before = resident_mb(os.getpid())[1]
    call()
    link.send(("bytes", (2**20 * (resident_mb(os.getpid())[0] - before), bound)))


@pytest.mark.parametrize("case", CASES)
def test_memory_is_bounded_by_the_formula(case):
    if not CLEAR.exists():
        pytest.skip("peaks of a call are read from /proc/self/clear_refs, which this system has not")
    outcome = run_process(_measure, (case,), 1, 120.0)
    assert outcome.messages, outcome.output
    taken, bound = outcome.messages[0][1]
    assert taken <= bound + LIBRARIES
    assert taken >= 0.1 * bound  # a formula that says something
