"""Make a proof: an integer multiplier, its witnesses, and the point's objective.

A certificate in float64 is feasible up to its allowance for rounding. The multiplier is shortened by as little as makes
every inequality of the checker true. What the file states is therefore what the checker has found to hold.
"""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates import Certificate, PointLike, as_point, certify
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.formulations import Point
from convexnn_bench.plugins import Whole
from convexnn_bench.problem import Problem
from convexnn_bench.proofs.checker import as_checked, checker
from convexnn_bench.proofs.multiplier import integer_multiplier
from convexnn_bench.proofs.neurons import integer_neurons
from convexnn_bench.proofs.proof import SCHEMA, VERSION, Proof, decimal
from convexnn_bench.proofs.rules import rule_witnesses, scaled
from convexnn_bench.proofs.witnesses import block_witnesses
from convexnn_bench.terminal import progress

KNOWN = {
    "architecture": ("mlp", "cnn", "attention"),
    "activation": ("linear", "gated_relu", "relu"),
    "loss": ("squared", "huber", "squared_hinge", "logistic", "cross_entropy"),
}
PRECISION = 64  # bits of the largest entry of the multiplier
SCALE_BITS = 60  # bits of the factor by which the multiplier is shortened
SHORTER = [2.0**-k for k in range(58, 6, -4)]  # parts by which it is shortened, until every inequality holds
# Parts by which it is lengthened first, where the domain of F* is a cone: the allowances of float64 are of this size.
LONGER, CONICAL = [2.0**-k for k in (36, 40, 44, 48)], ("squared", "squared_hinge")


def prove(problem: Problem, result: PointLike, scope: str | None = None, *, precision: int = PRECISION) -> Proof:
    """Make a proof of a lower bound on the optimum, and of the gap of a point.

    Parameters
    ----------
    problem : Problem
        The training problem, with a registered architecture, activation and loss of this package and dense data.
    result : Result, Point, array, pair of arrays or torch.nn.Module
        A point of the problem, as for `certify`.
    scope : {"sampled", "complete"}, optional
        The program that the bound is about, as for `certify`.
    precision : int
        Bits of the largest entry of the multiplier, at least 20.

    Returns
    -------
    Proof
        The bound, the gap, and all integers that are needed to verify them.

    Raises
    ------
    InputError
        An argument does not fit.
    UnsupportedError
        The checker does not know a part of the problem, or no witness was found for an inequality.

    Notes
    -----
    Weak duality: p* >= -F*(Lambda) for every Lambda with ||G_k^T u|| <= beta ||u||, G_k = A_k^*(Lambda), for all u that
    block k allows. The multiplier is that of the certificate (Sahiner et al., ICLR 2024, section 3).

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
    >>> proof = cnn.prove(problem, cnn.solve(problem, "bm_newton"))
    >>> float(proof.gap) <= 1e-6, proof.scope
    (True, 'complete')
    """
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a Problem, got {type(problem).__name__}")
    Whole(low=20).check("precision", precision)
    check_known(problem)
    point = as_point(problem, result)
    certificate = _certificate(problem, result, point, scope)
    return _Prover(problem, point, certificate, precision).proof()


def prove_network(
    problem: Problem, W1: np.ndarray, W2: np.ndarray, bias: np.ndarray | None, certificate: Certificate
) -> Proof:
    """Make a proof about the network (W1, W2) with its own output bias.

    The multiplier is that of a certificate.
    """
    check_known(problem)
    if certificate.multiplier is None:
        raise UnsupportedError("the certificate of this network has no multiplier")
    return _Prover(problem, Point(network=(W1, W2)), certificate, PRECISION, own=True, bias=bias).proof()


def check_known(problem: Problem) -> None:
    """Raise UnsupportedError for what the checker does not know."""
    if problem.is_sparse:
        raise UnsupportedError("X is sparse, which the checker does not read: state the problem with X.toarray()")
    loss = problem.loss
    while hasattr(loss, "loss"):  # with weights, or an output bias
        loss = loss.loss
    for kind, part in (("architecture", problem.architecture), ("activation", problem.activation), ("loss", loss)):
        if part.name not in KNOWN[kind]:
            raise UnsupportedError(f"the checker knows the {kind}s {', '.join(KNOWN[kind])}, and not {part.name!r}")


def _certificate(problem: Problem, result: Any, point: Point, scope: str | None) -> Certificate:
    """Return the certificate of a result, or certify the point.

    The certificate of a result has to be of this problem and scope.
    """
    own = getattr(result, "certificate", None)
    wanted = scope or point.default_scope(problem)
    known = isinstance(own, Certificate) and getattr(result, "problem", None) is problem and own.scope == wanted
    found = own if known else certify(problem, point, scope)
    assert isinstance(found, Certificate)
    if found.multiplier is None:
        raise UnsupportedError("the certificate of this point has no multiplier")
    return found


class _Prover:
    """The steps of one proof."""

    def __init__(
        self,
        problem: Problem,
        point: Point,
        certificate: Certificate,
        precision: int,
        own: bool = False,
        bias: np.ndarray | None = None,
    ):
        self.problem, self.point, self.certificate = problem, point, certificate
        self.precision, self.own, self.bias = precision, own, bias
        self.of = as_checked(problem)

    def proof(self) -> Proof:
        """Return the proof.

        1. Round the multiplier to integers in the domain of F*.
        2. Find witnesses, and shorten the multiplier until every inequality holds exactly.
        3. Bound the objective of the point from above.
        """
        of, problem = self.of, self.problem
        # 1. The multiplier.
        assert self.certificate.multiplier is not None
        M, bits = integer_multiplier(of, self.certificate.multiplier, self.precision)
        # 2. The inequalities.
        masks = self._masks()
        witnesses, scale = self._feasible(masks, M, bits)
        bits += SCALE_BITS
        Lambda = [[Fraction(scale * x, 1 << bits) for x in row] for row in M]
        bound = -checker().total_above(of.conjugate_above(Lambda))
        # 3. The point.
        primal = gap = neurons = None
        if self.certificate.refused is None:
            neurons = integer_neurons(problem, self.point, of, masks != "listed", self.own, self.bias)
        lower = decimal(bound, ROUND_FLOOR)
        if neurons is not None:
            primal = decimal(of.objective_above(**neurons, every_mask=masks != "listed"), ROUND_CEILING)
            gap = self._gap(Fraction(primal), Fraction(lower))
            if gap is None:
                primal = neurons = None
        left_out = 1 if of.loss == "cross_entropy" else 0
        content = {
            "schema": SCHEMA,
            "version": VERSION,
            "bound": lower,
            "primal": primal,
            "gap": gap,
            "problem": of.about,
            "sha256": of.hash(masks == "listed"),
            "masks": masks,
            "multiplier": {"scale": scale, "bits": bits, "rows": [row[: len(row) - left_out] for row in M]},
            "witnesses": witnesses,
            "point": neurons,
        }
        return Proof(content, self.certificate.scope)

    def _gap(self, primal: Fraction, bound: Fraction) -> str | None:
        return None if bound == 0 and primal > 0 else decimal((primal - bound) / (abs(bound) or 1), ROUND_CEILING)

    def _masks(self) -> str:
        """Return how the proof covers the masks.

        They are those of the problem, all of the plane, or all by decision rules.
        """
        if not self.problem.has_cone or self.certificate.scope == "sampled":
            return "listed"
        return "plane" if self.problem.p == 2 else "rule"

    def _feasible(self, masks: str, M: list[list[int]], bits: int) -> tuple[Any, int]:
        """Return witnesses and the largest scale of the multiplier for which they hold.

        The scale is in units of 2^-SCALE_BITS.
        """
        of, unit = self.of, 1 << (bits + SCALE_BITS)
        if masks == "rule":
            planes, square = rule_witnesses(of, M)
            norms = checker().Norms(of, M, unit)
            scale = 1 << SCALE_BITS
            if square > 0:
                scale = min(scale, math.isqrt(int(Fraction(norms.top, norms.low) / square)))
            return scaled(planes, scale), scale
        witnesses: Any = {}
        if masks == "listed" and self.problem.has_cone:
            Lambda = torch.as_tensor(np.array([[float(Fraction(x, 1 << bits)) for x in row] for row in M]))
            G = self.problem.operator().adjoint(Lambda).numpy()
            witnesses = block_witnesses(self.problem, of, unit, G)
        changes = [part for part in LONGER if of.loss in CONICAL] + [-part for part in SHORTER]
        with progress("proving", total=float(len(changes))) as update:
            for done, part in enumerate(changes):
                update(float(done))
                scale = (1 << SCALE_BITS) + round(part * 2**SCALE_BITS)
                norms = checker().Norms(of, [[scale * x for x in row] for row in M], unit)
                if self._holds(norms, masks, witnesses):
                    return witnesses, scale
        raise UnsupportedError(
            "no witness was found for some block: its norm without enumeration exceeds beta. Give scope='sampled', or "
            "a problem with fewer features"
        )

    def _holds(self, norms: Any, masks: str, witnesses: Any) -> bool:
        try:
            if masks == "plane":
                norms.plane()
                return True
            for k in range(self.of.P):
                norms.block(k, self.of.masks[k :: self.of.P], witnesses.get(str(k)))
        except ValueError:
            return False
        return True
