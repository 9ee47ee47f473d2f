"""Column generation: the ReLU program over all activation patterns, without enumerating them.

The program (Pilanci & Ergen, ICML 2020) has a dual constraint max ||R^T D_k Phi u|| <= beta for every pattern, over the
unit vectors u of its cone, with R = C^*(Lambda). The method begins without patterns and with Lambda = grad F(0), or at
step 3 with the patterns of a start's neurons. It repeats

1. price: look for patterns whose dual norm exceeds beta at Lambda, and stop if there is none;
2. add them to the working set;
3. solve the master program, the convex program of the working set, for its point and multiplier Lambda;
4. keep the point if it is the best so far, and drop the blocks that are zero there.

If step 1 finds no pattern, the master's optimum is the optimum of the ReLU network of any width.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float

from convexnn_bench.certificates import certify
from convexnn_bench.formulations import Point, burer_monteiro
from convexnn_bench.norms import ascend
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback

LARGEST_START = 200  # number of the largest neurons of a start whose patterns are used
IDLE = 1e-9  # blocks below this part of the largest one leave the working set; interior-point solutions reach it
NUDGE = 1e-6  # distance by which a direction is moved off the boundaries of cells, relative to its length
MASTER_GAP, CHECK_EVERY = 1e-9, 100  # gap that ends an iterative master, and callbacks between two certificates of it


class PatternSet:
    """The working set: the patterns of the master program, with the pricing of all others."""

    def __init__(self, problem: Problem, seed: int):
        self.problem = problem
        self.masks = np.zeros((problem.N, 0), dtype=bool)
        self.generator = np.random.default_rng(seed)
        lengths = np.linalg.norm(problem.Phi, axis=1)
        self._lengths = lengths[lengths > 0]
        self._rows = np.flatnonzero(lengths > 0)
        self._pricings = 0

    def price(self, Lambda: Float[torch.Tensor, "n_out c"], beta: float, most: int) -> Bool[np.ndarray, "N new"]:
        """Return at most `most` new patterns whose dual norm exceeds beta, the largest first."""
        R = self.problem.operator().second_layer_adjoint(Lambda).numpy()
        self._pricings += 1
        # local ascent over all directions, then the exact maximum where the problem is small enough for it
        values, U = ascend(self.problem.Phi, R, seed=self._pricings)
        new = self.new_cells(U[:, values > beta], most)
        if new.shape[1]:
            return new
        exact = self.problem.all_patterns.worst_pattern(R)
        if exact is not None and exact[0] > beta and _key(exact[1]) not in self._known():
            return exact[1][:, None]
        return new

    def _known(self) -> set[bytes]:
        return {_key(mask) for mask in self.masks.T}

    def new_cells(self, U: Float[np.ndarray, "p M"], most: int) -> Bool[np.ndarray, "N new"]:
        """Return at most `most` new patterns, of cells that contain or touch the directions U."""
        known = self._known()
        new = [np.zeros(self.problem.N, dtype=bool)]  # a placeholder column, which is removed at the end
        for u in U.T:
            for mask in self._cells_near(u / np.linalg.norm(u)):
                if _key(mask) not in known and len(new) <= most:
                    known.add(_key(mask))
                    new.append(mask)
        return np.stack(new, axis=1)[:, 1:]

    def _cells_near(self, u: Float[np.ndarray, " p"]) -> list[Bool[np.ndarray, " N"]]:
        """Return patterns of open cells whose closures contain u, or nearly.

        The best u mostly lie on boundaries.
        """
        # u itself and three points next to it, in random directions, which lie in open cells even if u does not.
        noise = self.generator.standard_normal((len(u), 3))
        near = u[:, None] + NUDGE * np.hstack([np.zeros((len(u), 1)), noise / np.linalg.norm(noise, axis=0)])
        values = self.problem.Phi @ near
        # If a row is zero up to rounding, the cell is in doubt and its pattern is left out.
        strict = np.all(np.abs(values[self._rows]) > 1e-10 * NUDGE * self._lengths[:, None], axis=0)
        masks = values >= 0
        masks[:, ~strict] = False
        return [mask for mask in masks.T if mask[self._rows].any()]

    def add(self, masks: Bool[np.ndarray, "N new"]) -> None:
        self.masks = np.hstack([self.masks, masks])

    def drop_idle(self, sizes: Float[np.ndarray, " P"]) -> None:
        """Drop the blocks that are zero at the master's optimum, where `sizes` are their norms."""
        if sizes.max(initial=0.0) > 0:
            self.masks = self.masks[:, sizes > IDLE * sizes.max()]


class ColumnGeneration:
    """The method on one ReLU problem.

    make_master: returns a new solver for a master program. tolerance: a pattern is added if its dual norm exceeds
    (1 + tolerance) beta. most_new: patterns added at a time. master_calls: callbacks after which an iterative master is
    stopped. start: a ReLU network whose patterns begin the working set. point: the best point so far, a ReLU network.
    message: what the method reached.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        make_master: Callable[[], BaseSolver],
        tolerance: float,
        most_new: int,
        master_calls: int,
        start: Point | None = None,
    ):
        self.problem, self.make_master, self.master_calls = problem, make_master, master_calls
        self.most_new, self.threshold = most_new, problem.beta * (1 + tolerance)
        self.point = Point(network=(np.zeros((problem.p, 1)), np.zeros((problem.q, 1))))
        self.patterns = PatternSet(problem, seed)
        self.message: str | None = None
        if start is not None and start.network is not None:
            self.point = start
            W1, W2 = (np.asarray(part) for part in start.network)
            sizes = np.linalg.norm(W1, axis=0) * np.linalg.norm(W2, axis=0)
            largest = np.argsort(-sizes, kind="stable")[:LARGEST_START]
            largest = largest[sizes[largest] > IDLE * sizes.max(initial=0.0)]
            self.patterns.add(self.patterns.new_cells(W1[:, largest], 4 * LARGEST_START))

    def run(self, callback: Callback) -> None:
        """Repeat the steps above, with one callback before each round."""
        problem, Y = self.problem, self.problem.operator().Y
        Lambda = problem.loss.gradient(torch.zeros_like(Y), Y)
        best, rounds = problem.network_objective(*(self.point.network or ())), 0
        while callback():
            # 1. price, 2. add; the first round of a start skips both, since the set has its patterns
            if rounds or self.patterns.masks.shape[1] == 0:
                new = self.patterns.price(Lambda, self.threshold, self.most_new)
                size = self.patterns.masks.shape[1]
                if new.shape[1] == 0:
                    self.message = f"no pattern is priced above beta: {size} patterns after {rounds} rounds"
                    return
                self.patterns.add(new)
            # 3. solve the master program
            master = restrict(problem, self.patterns.masks)
            point, Lambda, sizes = solve_master(master, self.make_master(), self.master_calls)
            rounds += 1
            # 4. keep the best point; blocks leave only if the objective fell, so that no working set recurs
            value = problem.network_objective(*point.network) if point.network is not None else np.inf
            self.point.dual = point.dual
            if value < best:
                best, self.point = value, point
                self.patterns.drop_idle(sizes)
            self.message = f"{self.patterns.masks.shape[1]} patterns after {rounds} rounds"


def _key(mask: Bool[np.ndarray, " N"]) -> bytes:
    return np.packbits(mask).tobytes()


def restrict(problem: Problem, masks: Bool[np.ndarray, "N P"]) -> Problem:
    """Return the same training problem with these patterns."""
    return Problem(
        problem.X, problem.Y, problem.architecture, problem.activation, problem.loss, problem.beta, masks, problem.seed
    )


def solve_master(
    master: Problem, solver: BaseSolver, calls: int
) -> tuple[Point, Float[torch.Tensor, "n_out c"], Float[np.ndarray, " P"]]:
    """Return the master's optimum as a network, its multiplier Lambda, and the norms of its blocks.

    An iterative solver is stopped after `calls` callbacks, or once its certified gap is MASTER_GAP.
    """
    count = 0

    def callback() -> bool:
        nonlocal count
        count += 1
        due = not solver.one_shot and count % CHECK_EVERY == 0
        return count <= calls and not (due and certify(master, solver.get_result()).gap <= MASTER_GAP)

    solver.set_problem(master)
    solver.run(callback)
    point = solver.get_result()
    U, V = point.to_factors(master)
    if point.split is None:  # those of a split are balanced and in their cones
        U, V = burer_monteiro.balance(burer_monteiro.project(master, U), V)
    # A column in its cone is a neuron: D_k Phi u = (Phi u)_+ there.
    W1, W2 = burer_monteiro.to_network(master, U, V)
    dual = point.dual
    # At the master's optimum the multiplier is grad F at the predictions. A solver's own one is inexact and may lie
    # outside the domain of F*, onto which it is projected.
    if dual is None:
        dual = master.loss.gradient(master.operator().apply_factors(U, V), master.operator().Y)
    dual = torch.as_tensor(np.asarray(dual)).reshape(master.Y.shape)
    Lambda = master.loss.project_dual(dual, master.operator().Y)
    sizes = (torch.linalg.vector_norm(U, dim=1) * torch.linalg.vector_norm(V, dim=1)).sum(dim=1)
    return Point(network=(W1.numpy(), W2.numpy()), dual=Lambda.numpy()), Lambda, sizes.numpy()
