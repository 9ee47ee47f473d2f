"""How often a solver's loop waits for the GPU, counted on a stand-in (tests/support/standin_cuda.py).

Between two callbacks, scoring left out. Kinds that wait: a number or a shape read by the host, copies to the host, and
copies to the device (of memory that is not pinned).
"""

import numpy as np
import pytest
import torch
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.algorithms.newton.neurons import BlockNeurons
from convexnn_bench.algorithms.newton.point import PointState
from convexnn_bench.algorithms.newton.system import NewtonSystem
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem
from convexnn_bench.harness.inside import _answer

pytestmark = pytest.mark.slow

WAITS = ("wait", "to_host", "to_device")
# solver -> waits an iteration: median at most, and mean at most where line searches and rare events count too
BOUNDS = {
    "bm_gd": (1, 2.5),  # one a trial of the line search
    "bm_scaled_gd": (1, 2.5),
    "network_gd": (1, 2.5),
    "bm_adam": (0, 0.03),  # a look at the objective once in 50 steps
    "network_adam": (0, 0.03),
    "fista": (2, 2.2),  # one a trial, and one inside torch's eigh where blocks are matrices
    "network_sgd": (2, 3),  # the batch's indices, and the test for divergence
    "bm_lbfgs": (50, 60),  # torch.optim.LBFGS reads two numbers for each of 20 stored pairs
    "network_lbfgs": (50, 60),
    "bm_newton": (20, 30),  # a whole Newton step, with sizes and pricing
    "semismooth_newton": (15, 30),  # a whole Newton step, and a scalar search a proximal step
}
RELU_BOUNDS = {
    "bm_gd": (3, 4),  # projections onto the cones are done on the host
    "bm_adam": (1, 1.1),
    "fista": (3, 3.2),
    "network_adam": (0, 0.03),
}


def waits(traffic, problem, name, steps):
    """How many there are between one callback and the next."""
    solver = cnn.SOLVERS.make(name)
    solver.device, solver.seed, solver.gap, solver.time_limit = "cuda", 0, 1e-6, None
    if hasattr(solver, "finish"):
        solver.finish = False
    solver.load_packages()
    solver.set_problem(problem)
    traffic.notes.clear()
    seen = []

    def going():
        seen.append(traffic.count(*WAITS))
        return len(seen) <= steps

    solver.run(going)
    return np.diff(seen)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("name", BOUNDS)
def test_a_loop_waits_seldom(traffic, name, loss):
    problem = random_problem(1, loss, n=12, d=4, c=2, patterns=6)
    found = waits(traffic, problem, name, 110 if "adam" in name else 40)
    median, mean = BOUNDS[name]
    assert len(found) >= 8
    assert np.median(found) <= median, traffic.lines(*WAITS)
    assert found.mean() <= mean, traffic.lines(*WAITS)


@pytest.mark.parametrize("name", RELU_BOUNDS)
def test_a_loop_waits_seldom_with_cones(traffic, name):
    problem = random_problem(1, "squared", "relu", n=12, d=3, patterns=6)
    found = waits(traffic, problem, name, 110 if "adam" in name else 40)
    median, mean = RELU_BOUNDS[name]
    assert np.median(found) <= median, traffic.lines(*WAITS)
    assert found.mean() <= mean, traffic.lines(*WAITS)


def test_operators_and_losses_do_not_wait(traffic):
    """Products, values, gradients and conjugates, once the data are there; a pooling matrix is sent once."""
    rng = np.random.default_rng(0)
    images, rows = rng.standard_normal((6, 2, 5, 5)), np.eye(3)[np.arange(6) % 3]
    pooling = cnn.CNN(patch=2, pool=rng.random((9, 16)), bias=True)
    for problem in (
        cnn.Problem(images, rows, pooling, loss="cross_entropy", beta=0.1, patterns=3),
        cnn.Problem(images[:, 0], rows[:, None].repeat(5, 1), "attention", loss="huber", beta=0.1, patterns=3),
        *(random_problem(1, loss) for loss in ("squared", "cross_entropy", "logistic", "squared_hinge", "huber")),
    ):
        operator, loss = problem.operator("cuda"), problem.loss
        U, V = (torch.ones(problem.P, rows, 2, dtype=torch.float64, device="cuda") for rows in (problem.p, problem.q))
        for _ in range(2):  # what is derived from the data is formed the first time
            traffic.notes.clear()
            z, pull = operator.factored(U, V)
            slope = loss.project_dual(loss.gradient(z, operator.Y), operator.Y)
            pull(slope)
            operator.apply(operator.adjoint(slope))
            loss.value(z, operator.Y) + loss.conjugate(0.5 * slope, operator.Y)
        assert traffic.count(*WAITS) == 0, traffic.lines(*WAITS)


def test_conjugate_gradients_wait_twice_a_step(traffic):
    problem, rng = random_problem(2, "logistic", n=40, d=6, c=1, patterns=8), np.random.default_rng(0)
    Y = rng.standard_normal((problem.q, 10))
    given = [np.arange(10) % problem.P, rng.standard_normal((problem.p, 10)), Y / np.linalg.norm(Y, axis=0)]
    working = WorkingProblem(problem, "cuda", single=False)
    point = PointState(working, BlockNeurons(*(torch.as_tensor(array, device="cuda") for array in given)))
    system = NewtonSystem(point)
    system._by_conjugate_gradients(0.5, 0.1)  # forms the preconditioner
    found = []
    for accuracy in (1e-1, 1e-8):
        traffic.notes.clear()
        before = working.products
        system._by_conjugate_gradients(1e3, accuracy)
        found.append((working.products - before, traffic.count(*WAITS)))
    (few, waits_of_few), (many, waits_of_many) = found
    assert many >= few + 3
    assert waits_of_many - waits_of_few == 2 * (many - few)


def test_a_certificate_waits_a_fixed_number_of_times(traffic):
    """Whatever n, P and the loss's targets are."""
    counts = set()
    for n, patterns in ((9, 3), (30, 12)):
        problem = random_problem(3, "squared", n=n, patterns=patterns)
        Z = torch.zeros(problem.P, problem.p, problem.q, dtype=torch.float64, device="cuda")
        cnn.certify(problem, Z)
        traffic.notes.clear()
        cnn.certify(problem, Z)
        counts.add(traffic.count(*WAITS))
    assert len(counts) == 1
    assert counts.pop() <= 20


@pytest.mark.parametrize("name", ["bm_gd", "bm_adam", "bm_lbfgs", "bm_newton", "bm_scaled_gd"])
def test_solvers_that_gpus_share_add_up_in_a_fixed_order(traffic, name):
    """Processes that share a solve must come to the same bits."""
    problem = random_problem(1, "cross_entropy", n=12, d=4, c=3, patterns=6)
    waits(traffic, problem, name, 20)
    assert traffic.count("any_order") == 0, traffic.lines("any_order")


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnDsyevd`",
    ],
)
def test_memory_of_the_device_that_is_used_up(message):
    assert _answer(RuntimeError(message))["status"] == "memory_limit"
