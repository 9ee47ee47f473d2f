"""The polytope of all global optima, for one output and without cones.

Let F be strictly convex near the predictions f of an optimum. Then f, the multiplier Lambda = grad F(f) and the
penalty R are the same at every optimum. With G_k = A_k^* Lambda, an optimum has ||G_k|| <= beta in every block, and
<G_k, Z_k> = -beta ||Z_k||. With one output, blocks are vectors and norms Euclidean, so that

    Z_k = -c_k G_k / ||G_k||,   c_k >= 0,   c_k = 0 unless ||G_k|| = beta.

Such blocks are optimal exactly if sum_k c_k a_k = f with a_k = -A_k(G_k) / ||G_k||, and then sum_k c_k = R: the optima
form a polytope (Mishkin & Pilanci, Optimal sets and solution paths of ReLU networks, ICML 2023).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from convexnn_bench.certificates import Certificate
from convexnn_bench.checks import Array
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.formulations import Point
from convexnn_bench.operator import CHUNK_ELEMENTS, Operator
from convexnn_bench.optima.hypotheses import certified_blocks, check_curvature, counted_rows
from convexnn_bench.optima.polytope import least_changes, null_space, support_of
from convexnn_bench.plugins import Number
from convexnn_bench.prediction import predict
from convexnn_bench.problem import Problem
from convexnn_bench.running import Result

LARGEST_TOLERANCE = 1e-3  # relative to beta; with more, blocks far from beta would count as active
SMALLEST_TOLERANCE = 1e-10  # relative to beta: the rounding of ||G_k||, with a margin
NEGLIGIBLE = 1e-13  # size up to which slopes of predictions count as rounding, relative to the largest one


@dataclass(frozen=True, repr=False)
class OptimalSet:
    """The set of all global optima of a problem, up to a tolerance.

    Attributes
    ----------
    result : Result
        The certified point. It is one of the optima, up to its gap.
    tolerance : float
        A block counts as active if ||G_k|| >= (1 - tolerance) beta. Vectors a_k count as dependent if each of them is
        within 2 tolerance max_k ||A_k|| of dependent vectors.
    active : int array
        The blocks that count as active. All other blocks are zero at every optimum.
    support : int array
        The active blocks whose size is above `tolerance` R at some optimum, where R is the sum of all sizes.
    dimension : int
        The dimension of the set: 0 for one optimum, 1 for a segment.
    from_gap : bool
        Whether the tolerance is the default one, which follows from the certified gap.

    Notes
    -----
    `optimal_set` returns this set, and explains the tolerance.
    """

    result: Result
    tolerance: float
    active: Int[np.ndarray, " J"]
    support: Int[np.ndarray, " S"]
    dimension: int
    from_gap: bool
    _sizes: Float[np.ndarray, " S"]  # the sizes ||Z_k|| of the point over the support
    _directions: Float[np.ndarray, "S p"]  # -G_k / ||G_k||
    _basis: Float[np.ndarray, "S dimension"]  # orthonormal: the sizes of all optima differ by its combinations

    @property
    def is_unique(self) -> bool:
        """Whether there is only one optimum.

        With the default tolerance True is a proof, up to rounding and to changes of sizes below `tolerance` R. False
        means that another optimum is possible within the tolerance.
        """
        return self.dimension == 0

    def prediction_range(self, X_new: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the largest prediction over all optima.

        Parameters
        ----------
        X_new : array
            Samples of the same shape as those of ``problem.X``.

        Returns
        -------
        low, high : arrays n_new x 1
            The bounds for each new sample, in the shape of ``result.predict(X_new)``, which lies between them.

        Raises
        ------
        InputError
            X_new has samples of another shape.
        UnsupportedError
            The problem has masks without gates.

        Notes
        -----
        The least prediction is a linear program in the sizes. Blocks with equal vectors a_k, such as those of gates
        with one mask, may share their sizes in any way, so that the least of their slopes counts. Where the sum of
        the sizes is the same at all optima for each such group, this is the solution; otherwise HiGHS solves two
        programs for each sample. Their error is about 1e-9 of the range that sizes of sum R allow. The error of the
        polytope itself is of the order of `tolerance`.
        """
        problem, point = self.result.problem, self.result.point
        assert point is not None
        middle = predict(problem, point, X_new)
        if self.dimension == 0:
            return middle, middle.copy()
        # 1. Predictions are linear in the sizes: one column for each basis vector.
        columns = [predict(problem, self._moved(direction), X_new) - middle for direction in self._basis.T]
        slopes = np.stack([column.ravel() for column in columns], axis=1) @ self._basis.T
        # 2. Bound each of them over the polytope. Where all optima agree, the slope is zero up to rounding.
        low, high = (end.reshape(middle.shape) for end in self._ends(slopes))
        return middle + np.minimum(low, 0.0), middle + np.maximum(high, 0.0)

    @cached_property
    def _unit(self) -> float:
        """R, the sum of the sizes."""
        return float(self._sizes.sum())

    def _moved(self, direction: Float[np.ndarray, " S"]) -> Point:
        """Return the point of the result plus `_unit` times a direction of the sizes."""
        blocks = np.array(self.result.blocks)
        blocks[self.support, :, 0] += self._unit * direction[:, None] * self._directions
        return Point(blocks=blocks)

    def _ends(self, slopes: Float[np.ndarray, "n S"]) -> Float[np.ndarray, "2 n"]:
        """Return the least and the largest <slope, c - sizes> over the sizes c of all optima, for each slope."""
        lengths, sizes = np.linalg.norm(slopes, axis=1), self._sizes / self._unit
        moving = lengths > NEGLIGIBLE * lengths.max(initial=0.0)
        directions = slopes[moving] / lengths[moving, None]
        ends = np.zeros((2, len(slopes)))
        for end, sign in zip(ends, (1.0, -1.0), strict=True):
            end[moving] = sign * lengths[moving] * least_changes(sign * directions, self._across, sizes)
        return ends

    @cached_property
    def _across(self) -> Float[np.ndarray, "rank S"]:
        """An orthonormal basis of the vectors orthogonal to `_basis`, as rows."""
        return np.linalg.svd(self._basis, full_matrices=True)[0][:, self.dimension :].T

    def __repr__(self) -> str:
        what = "one optimum" if self.is_unique else f"a polytope of dimension {self.dimension}"
        source = "from the certified gap" if self.from_gap else "as given"
        return (
            f"{type(self).__name__}({what}; {len(self.support)} of {self.result.problem.P} blocks are nonzero at some "
            f"optimum; {len(self.active)} are active, ||G_k|| >= (1 - {self.tolerance:.2g}) beta, a tolerance {source})"
        )


def optimal_set(result: Result, tolerance: float | None = None) -> OptimalSet:
    """Return the set of all global optima, from a point with a small certified gap.

    Parameters
    ----------
    result : Result
        A certified point of a problem with linear or gated ReLU activation and one output, such as that of
        ``cnn.solve(problem, "bm_newton", gap=1e-12)``.
    tolerance : float, optional
        Relative distance from beta up to which ||G_k|| counts as equal to beta. The default follows from the certified
        gap, see Notes. A smaller number proves nothing, but may describe the set better, since the default is a bound
        for the worst case.

    Returns
    -------
    OptimalSet
        The set, with `is_unique` and `prediction_range`.

    Raises
    ------
    InputError
        `result` is no Result, or the tolerance is no number above 0 and below 0.001.
    UnsupportedError
        The activation has cones, there are several outputs, the gap is too large, or the loss is not strictly convex
        near the predictions, so that these may differ between optima. The message names the reason.

    Notes
    -----
    The multiplier Lambda of the certificate is feasible, and F* is 1/L strongly convex for a loss with smoothness L.
    So with the multiplier Lambda* of the optimum

        ||Lambda - Lambda*||^2 <= 2 L (primal - dual),    | ||G_k|| - ||G_k*|| | <= ||A_k|| ||Lambda - Lambda*||,

    and the default tolerance is max_k ||A_k|| sqrt(2 L (primal - dual)) / beta (compare the safe screening rules of
    Ndiaye, Fercoq, Gramfort & Salmon, JMLR 2017). A block that is not active by this tolerance is zero at every
    optimum. The error of a direction G_k / ||G_k|| is at most twice the tolerance, and that of a vector a_k is at most
    2 tolerance ||A_k||. Vectors within these errors of dependent ones count as dependent. The set therefore contains
    the exact one, to that accuracy.

    With a free output bias all optima have the same predictions on the data, and sum_k c_k a_k = f up to a shift that
    the bias cancels. Samples of weight zero are not in the loss, so that predictions on them may differ.

    The polytope is that of Mishkin & Pilanci, Optimal sets and solution paths of ReLU networks, ICML 2023.

    Examples
    --------
    Of three gates on two samples at 120 degrees, one is the sum of the other two.

    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [-0.5, 0.75**0.5]], [1.0, 1.0], beta=0.1)
    >>> optima = cnn.optimal_set(cnn.solve(problem, "bm_newton", gap=1e-12))
    >>> optima.is_unique, optima.dimension
    (False, 1)
    >>> low, high = optima.prediction_range([[1.0, 1.0]])
    >>> (high - low).round(6)
    array([[1.558846]])
    """
    if not isinstance(result, Result):
        raise InputError(f"result must be a Result, as `solve` returns it, got {type(result).__name__}")
    given: float | None = Number(high=LARGEST_TOLERANCE, optional=True).check("tolerance", tolerance)
    # 1. Check that the optima are a polytope.
    certificate, Z = certified_blocks(result)
    problem, operator = result.problem, result.problem.operator()
    error = math.sqrt(2 * problem.loss.smoothness * max(certificate.absolute_gap, 0.0))  # of the multiplier, at most
    check_curvature(problem, operator.apply(torch.as_tensor(Z)), error)
    # 2. Derive the tolerance from the gap, unless it is given.
    length = _largest_norm(operator)
    chosen = _tolerance(problem, certificate, length, error) if given is None else given
    # 3. Find the active blocks, and the constraints on their sizes.
    G = operator.adjoint(torch.as_tensor(certificate.multiplier))[:, :, 0].numpy()
    norms = np.linalg.norm(G, axis=1)
    active = np.flatnonzero(norms >= (1 - chosen) * problem.beta)
    directions = -G[active] / norms[active, None]
    sizes = np.linalg.norm(Z[active, :, 0], axis=1)
    M = _constraints(problem, operator, active, directions, length)
    # 4. Find the blocks that are not zero at some optimum, and the directions in which their sizes can change.
    threshold = min(2 * chosen * math.sqrt(len(active)), 0.5) * length
    kept = support_of(null_space(M, threshold), sizes, chosen)
    basis = null_space(M[:, kept], threshold)
    return OptimalSet(
        result, chosen, active, active[kept], basis.shape[1], given is None, sizes[kept], directions[kept], basis
    )


def _tolerance(problem: Problem, certificate: Certificate, length: float, error: float) -> float:
    """Return the tolerance that follows from the gap; raise UnsupportedError if it is too large.

    length: max_k ||A_k||. error: a bound on the distance of the multiplier from that of the optimum.
    """
    tolerance = max(length * error / problem.beta, SMALLEST_TOLERANCE)
    if tolerance >= LARGEST_TOLERANCE:
        curvature = 2 * problem.loss.smoothness
        needed = (0.1 * LARGEST_TOLERANCE * problem.beta / length) ** 2 / curvature / abs(certificate.primal)
        raise UnsupportedError(
            f"the certified gap {certificate.gap:.1e} is too large to say which blocks are zero at every optimum: it "
            f"determines ||G_k|| to {tolerance:.1e} beta, and {LARGEST_TOLERANCE:g} beta is the limit; solve with "
            f"gap={needed:.0e}, or give a tolerance"
        )
    return tolerance


def _largest_norm(operator: Operator) -> float:
    """Return max_k ||A_k||, the largest singular value of the matrices n_out x p of all blocks."""
    p = operator.p
    largest, step = 0.0, max(1, CHUNK_ELEMENTS // (operator.N * p))
    for start in range(0, operator.P, step):
        blocks = torch.arange(start, min(start + step, operator.P))
        E = torch.eye(p, dtype=operator.dtype).repeat(len(blocks), 1)[:, :, None]
        images = operator.images(E, blocks.repeat_interleave(p))[:, 0].view(operator.n_out, len(blocks), p)
        largest = max(largest, float(torch.linalg.matrix_norm(images.transpose(0, 1), ord=2).max()))
    return largest


def _constraints(
    problem: Problem, operator: Operator, active: np.ndarray, directions: Float[np.ndarray, "J p"], length: float
) -> Float[np.ndarray, "rows J"]:
    """Return the matrix M such that sizes c and c' >= 0 belong to the same f and R exactly if M c = M c'."""
    images = operator.images(torch.as_tensor(directions)[:, :, None], torch.as_tensor(active))[:, 0].numpy()
    images = images[counted_rows(problem)]
    if problem.output_bias == "free":  # the bias cancels a shift of all predictions
        images = images - images.mean(axis=0)
    return np.vstack([images, np.full((1, len(active)), length)])
