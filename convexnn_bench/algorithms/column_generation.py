"""Column generation: the ReLU program over all activation patterns, without enumerating them.

A master program, the convex program of the patterns found so far (the working set), is solved; its multiplier Lambda
prices every other pattern at max ||R^T D_k Phi u|| over its cone and the unit ball, R = C^*(Lambda), and a pattern
priced above beta enters (the program: Pilanci & Ergen, ICML 2020; its dual has a constraint for every direction u).
When none is left the master's optimum is that of the ReLU network of any width.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float

from convexnn_bench.certificates import certify
from convexnn_bench.errors import ConvexNNError
from convexnn_bench.formulations import burer_monteiro, convex
from convexnn_bench.formulations.point import Point
from convexnn_bench.norms.all_patterns.ascent import ascend
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver

IDLE = 1e-9  # blocks below this fraction of the largest one leave the working set
NUDGE = 1e-6  # how far a direction is moved off the boundaries of cells that it lies on, relative to its length


class WorkingSet:
    """The patterns of the master program and their pricing, for one ReLU problem."""

    def __init__(self, problem: Problem, seed: int):
        self.problem = problem
        self.masks = np.zeros((problem.N, 0), dtype=bool)
        self.generator = np.random.default_rng(seed)
        lengths = np.linalg.norm(problem.Phi, axis=1)
        self._lengths = lengths[lengths > 0]
        self._rows = np.flatnonzero(lengths > 0)
        self.rounds = 0

    def price(self, Lambda: Float[torch.Tensor, "n_out c"], beta: float, most: int) -> Bool[np.ndarray, "N new"]:
        """At most `most` patterns outside the working set whose dual norm was found above beta, the largest first."""
        R = self.problem.operator().second_layer_adjoint(Lambda).numpy()
        self.rounds += 1
        values, U = ascend(self.problem.Phi, R, seed=self.rounds)
        known = {_name(mask) for mask in self.masks.T}
        found: list[np.ndarray] = []
        for j in np.flatnonzero(values > beta):
            for mask in self._cells_near(U[:, j]):
                if _name(mask) not in known and len(found) < most:
                    known.add(_name(mask))
                    found.append(mask)
        if not found:
            exact = self.problem.all_patterns.worst_pattern(R)
            if exact is not None and exact[0] > beta and _name(exact[1]) not in known:
                found.append(exact[1])
        return np.stack(found, axis=1) if found else np.zeros((self.problem.N, 0), dtype=bool)

    def _cells_near(self, u: Float[np.ndarray, " p"]) -> list[Bool[np.ndarray, " N"]]:
        """Patterns of open cells whose closures hold u, or nearly: the best directions lie on boundaries as a rule."""
        noise = self.generator.standard_normal((len(u), 3))
        near = u[:, None] + NUDGE * np.hstack([np.zeros((len(u), 1)), noise / np.linalg.norm(noise, axis=0)])
        values = self.problem.Phi @ near
        strict = np.all(np.abs(values[self._rows]) > 1e-10 * NUDGE * self._lengths[:, None], axis=0)
        masks = values >= 0
        masks[:, ~strict] = False
        return [mask for mask in masks.T if mask[self._rows].any()]

    def add(self, masks: Bool[np.ndarray, "N new"]) -> None:
        self.masks = np.hstack([self.masks, masks])

    def keep(self, sizes: Float[np.ndarray, " P"]) -> None:
        """Drop the blocks that are zero at the master's optimum."""
        if sizes.max(initial=0.0) > 0:
            self.masks = self.masks[:, sizes > IDLE * sizes.max()]


def _name(mask: Bool[np.ndarray, " N"]) -> bytes:
    return np.packbits(mask).tobytes()


def restrict(problem: Problem, masks: Bool[np.ndarray, "N P"]) -> Problem:
    """The same training problem with these patterns."""
    return Problem(
        problem.X, problem.Y, problem.architecture, problem.activation, problem.loss, problem.beta, masks, problem.seed
    )


def solve_master(master: Problem, solver: BaseSolver, calls: int) -> tuple[Point, torch.Tensor, np.ndarray]:
    """(network, Lambda, block sizes) at the master's optimum.

    An iterative solver is stopped after `calls` callbacks, or once its gap is 1e-9.
    """
    count = 0

    def callback() -> bool:
        nonlocal count
        count += 1
        due = not solver.one_shot and count % 100 == 0
        return count <= calls and not (due and certify(master, solver.get_result()).gap <= 1e-9)

    solver.set_problem(master)
    solver.run(callback)
    point = solver.get_result()
    U, V = point_factors(master, point)
    W1, W2 = burer_monteiro.to_network(master, U, V)
    dual = point.dual
    if dual is None:
        dual = master.loss.gradient(master.operator().apply_factors(U, V), master.operator().Y)
    dual = torch.as_tensor(np.asarray(dual)).reshape(master.Y.shape)
    Lambda = master.loss.project_dual(dual, master.operator().Y)
    sizes = (torch.linalg.vector_norm(U, dim=1) * torch.linalg.vector_norm(V, dim=1)).sum(dim=1)
    return Point(network=(W1.numpy(), W2.numpy()), dual=Lambda.numpy()), Lambda, sizes.numpy()


def point_factors(problem: Problem, point: Point) -> tuple[torch.Tensor, torch.Tensor]:
    """Balanced factors in their cones, from blocks with a split or cone factors, or from factors."""
    pair = point.factors if point.factors is not None else point.cone_factors
    if pair is not None:
        U, V = burer_monteiro.check_factors(problem, *pair)
        return burer_monteiro.balance(burer_monteiro.project(problem, U), V)
    if point.split is None:
        raise ConvexNNError("the master's point does not say how its blocks are made of cone vectors")
    split = torch.as_tensor(np.asarray(point.split))
    return convex.to_factors(problem, split[:, :, :1] - split[:, :, 1:], split=split)
