"""device="cuda" gives what the CPU gives: on a stand-in for a GPU (tests/support/standin_cuda.py), and on a real one.

On the stand-in kernels are those of the CPU, so that the same steps give the same numbers; what is tested is that
nothing is on the wrong device. A clock that ticks with every look at it makes both take the same steps.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cuda_problems import PROBLEMS, close, same_certificate

import convexnn_bench as cnn
from convexnn_bench.algorithms.newton.neurons import BlockNeurons
from convexnn_bench.algorithms.newton.point import PointState
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem
from convexnn_bench.operator import chunks
from convexnn_bench.operator.products import pooled
from convexnn_bench.operator.rounding import adjoint_rounding
from convexnn_bench.running import monitor, runner, timed_run

CONIC = ("column_generation", "cvxpy_clarabel")
INTERIOR_POINT = 1e-6  # relative: what Clarabel promises, on the host, of programs that differ in their last digits
PAIRS = [(name, solver) for name, (_, solvers) in PROBLEMS.items() for solver in solvers]


@pytest.fixture
def ticking(monkeypatch):
    """The clock of a solve goes on by a millisecond whenever it is looked at."""

    def restart():
        ticks = iter(range(10**9))
        clock = SimpleNamespace(perf_counter=lambda: 1e-3 * next(ticks))
        for module in (runner, timed_run, monitor):
            monkeypatch.setattr(module, "time", clock)

    return restart


@pytest.mark.slow
@pytest.mark.parametrize(("name", "solver"), PAIRS)
def test_a_solver_takes_the_same_steps(cuda, ticking, name, solver):
    problem, found = PROBLEMS[name][0], []
    limits = {"gap": 1e-8, "iterations": 6, "time_limit": None, "show_progress": False}
    for device in ("cpu", "cuda"):
        ticking()
        found.append(cnn.solve(problem, solver, device=device, **limits))
    host, device = found
    accuracy = max(cuda, INTERIOR_POINT) if solver in CONIC else cuda
    assert (device.status, len(device.curve)) == (host.status, len(host.curve))
    assert device.status != "skipped", device.reason
    assert device.objective == pytest.approx(host.objective, rel=accuracy)
    same_certificate(device.certificate, host.certificate, accuracy)
    assert device.device == "cuda"
    own, of_host = device.network, host.network
    assert (own is None) == (of_host is None)
    if own is not None:
        assert all(isinstance(weights, np.ndarray) for weights in own)
    # the certificate of the same numbers, held on the host
    fields = {key: _on_host(value) for key, value in vars(device.point).items()}
    again = cnn.certify(problem, cnn.Point(**fields))
    assert again.primal == pytest.approx(device.certificate.primal, rel=1e-10)
    if fields["dual"] is None or device.point.dual is None:
        assert again.max_dual_norm == pytest.approx(device.certificate.max_dual_norm, rel=1e-10)


def _on_host(value):
    if isinstance(value, tuple):
        return tuple(map(_on_host, value))
    return value.cpu() if torch.is_tensor(value) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_vector", "mlp_classes", "cnn_pooled"])
@pytest.mark.parametrize("single", [True, False])
def test_newton_by_products_takes_the_same_steps(cuda, ticking, monkeypatch, name, single):
    """Small problems take direct steps by themselves; here conjugate gradients, in float32 for MLPs where allowed."""
    monkeypatch.setattr("convexnn_bench.algorithms.newton.system.cheapest_route", lambda point, products: "products")
    problem, found = PROBLEMS[name][0], []
    limits = {"gap": 1e-8, "iterations": 200, "time_limit": None, "show_progress": False}
    for device in ("cpu", "cuda"):
        ticking()
        found.append(cnn.solve(problem, f"bm_newton[single={single}]", device=device, **limits))
    host, device = found
    assert device.status == host.status == "gap_reached"
    assert device.objective == pytest.approx(host.objective, rel=cuda)
    same_certificate(device.certificate, host.certificate, cuda)


def test_every_solver_is_tested():
    elsewhere = {
        "auto",  # runs the others
        "cvxpy_mosek",
        "cvxpy_scs",
        "cvxpy_qoco",
        "cvxpy_infinite_width",
        "bm_ipopt",
        "bm_uno",
        "rival_adelie",
        "rival_scnn",
        "rival_celer",
        "rival_skglm",
    }  # on the host by design, see docs/howto/gpu.md
    assert {solver for _, solver in PAIRS} == set(cnn.SOLVERS.names()) - elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (problem, _) in PROBLEMS.items() if not problem.has_cone])
def test_points_of_the_device_are_certified_there(cuda, name):
    problem, rng = PROBLEMS[name][0], np.random.default_rng(1)
    arrays = {
        "blocks": rng.standard_normal((problem.P, problem.p, problem.q)),
        "factors": tuple(rng.standard_normal((problem.P, rows, 2)) for rows in (problem.p, problem.q)),
        "network": tuple(rng.standard_normal((rows, 3)) for rows in (problem.p, problem.q)),
    }
    dual = rng.standard_normal(problem.Y.shape)
    for kind, value in arrays.items():
        there = [
            torch.as_tensor(part, device="cuda") for part in (value if isinstance(value, tuple) else (value, dual))
        ]
        point = cnn.Point(**{kind: tuple(there) if isinstance(value, tuple) else there[0]}, dual=dual)
        same_certificate(
            cnn.certify(problem, point), cnn.certify(problem, cnn.Point(**{kind: value}, dual=dual)), 1e-10
        )


def test_relu_points_of_the_device_are_certified(cuda):
    problem = PROBLEMS["mlp_relu"][0]
    U, V = (torch.zeros(problem.P, rows, 2, dtype=torch.float64) for rows in (problem.p, problem.q))
    for points in ((U, V), U[:, :, :1]):
        there = tuple(part.to("cuda") for part in points) if isinstance(points, tuple) else points.to("cuda")
        same_certificate(cnn.certify(problem, there), cnn.certify(problem, points), 1e-10)


# -- the operator --------------------------------------------------------------------------------------------


def products(operator, problem, at):
    """What every map of the operator makes of numbers drawn on the host."""
    rng = np.random.default_rng(2)

    def drawn(*shape):
        return torch.as_tensor(rng.standard_normal(shape), dtype=operator.dtype, device=at)

    U, V, L = drawn(problem.P, problem.p, 2), drawn(problem.P, problem.q, 2), drawn(*problem.Y.shape)
    z, pull = operator.factored(U, V)
    some = torch.arange(problem.P, device=at).flip(0)[: 1 + problem.P // 2]
    part = operator.restricted(
        *(slice(0, rows // len(problem.X)) for rows in (len(problem.X), problem.N, problem.n_out))
    )
    own = operator.on_blocks(some)
    maps = [
        *(operator.apply(U @ V.transpose(1, 2)), operator.adjoint(L), operator.apply_factors(U, V), z, *pull(L)),
        *(
            operator.hidden(U),
            operator.combine(operator.hidden(U), V),
            *operator.factor_gradients(operator.hidden(U), L, V),
        ),
        *(own.adjoint(L), own.apply_factors(U[some], V[some]), part.apply_factors(U, V)),
    ]
    sizes = [operator.norm_squared(3)]
    return maps, [*sizes, adjoint_rounding(operator, L)] if operator.dtype == torch.float64 else sizes


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "chunked"), [(torch.float64, False), (torch.float64, True), (torch.float32, False)])
@pytest.mark.parametrize("name", [name for name, (problem, _) in PROBLEMS.items() if not problem.has_cone])
def test_operators(cuda, monkeypatch, name, dtype, chunked):
    if chunked:
        monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 16)
        monkeypatch.setattr(chunks, "SMALLEST_PART", 3)
        monkeypatch.setattr(pooled, "POOLED_ELEMENTS", 0)
    monkeypatch.setattr(PROBLEMS[name][0], "_operators", {})
    problem = PROBLEMS[name][0]
    accuracy = 1e-11 if dtype == torch.float64 else 1e-4
    for whole in (problem, problem.shared()):  # the second as under torchrun, with one process
        host, device = whole.operator("cpu", dtype), whole.operator("cuda", dtype)
        assert whole.operator("cuda:0", dtype) is device
        (expected, sizes), (found, own_sizes) = products(host, problem, "cpu"), products(device, problem, "cuda")
        for one, other in zip(found, expected, strict=True):
            assert one.device.type == "cuda"
            assert one.dtype == dtype
            close(one, other, accuracy)
        close(own_sizes, sizes, accuracy)
        kept = [value for value in vars(device).values() if torch.is_tensor(value)]
        assert len(kept) >= 3
        assert all(tensor.device.type == "cuda" for tensor in kept)


@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("name", ["mlp_vector", "mlp_blocks", "cnn_pooled", "attention"])
def test_hessian_products_in_float32(cuda, name, precision):
    """Those of bm_newton, with TensorFloat-32 where the user allows it."""
    problem, rng, J = PROBLEMS[name][0], np.random.default_rng(3), 6
    W, Y = rng.standard_normal((problem.p, J)), rng.standard_normal((problem.q, J))
    given = [
        np.arange(J) % problem.P,
        W,
        Y / np.linalg.norm(Y, axis=0),
        rng.standard_normal((problem.p + problem.q, J)),
    ]
    found = []
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        for at in ("cpu", "cuda"):
            blocks, W, Y, step = (torch.as_tensor(array, device=at) for array in given)
            point = PointState(WorkingProblem(problem, at), BlockNeurons(blocks, W, Y))
            found.append([point.hessian_product(step), point.hessian_product(step, point.single), point.gradient])
    finally:
        torch.set_float32_matmul_precision(before)
    for device in found[1]:
        assert device.device.type == "cuda"
        assert device.dtype == torch.float64
    close(found[1][0], found[0][0], 1e-11)
    close(found[1][1], found[0][0], 1e-4 if precision == "highest" else 1e-2)
    close(found[1][2], found[0][2], 1e-11)
