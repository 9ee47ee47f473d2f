"""One instance of the training problem: data, architecture, activation, loss, beta, and the blocks they define.

An instance knows its operator A, its cones and the norms of its blocks. It evaluates no objective: the three
formulations (`convexnn_bench.formulations`) are functions of an instance, and `Problem` adds them to it.
"""

import copy
import math
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float

from convexnn_bench.activations import BaseActivation
from convexnn_bench.architectures import MLP, BaseArchitecture
from convexnn_bench.checks import (
    Array,
    aligned_copy,
    check_array,
    check_beta,
    check_patterns,
    check_scale,
    pairing_notes,
    plain_number,
)
from convexnn_bench.cones import Cones, unattained
from convexnn_bench.deadline import no_deadline
from convexnn_bench.errors import InputError
from convexnn_bench.held_out import HeldOut, read_held_out
from convexnn_bench.labels import Targets
from convexnn_bench.losses import (
    BaseLoss,
    OutputBias,
    WeightedLoss,
    read_targets,
    weighted_part,
    with_output_bias,
    with_sample_weight,
)
from convexnn_bench.norms import CompleteNorm, FreeBiasNorm, max_dual_norm
from convexnn_bench.operator import (
    Operator,
    Rows,
    SharedOperator,
    aligned_data,
    data_matrix,
    entries,
    read_data,
    with_entries,
)
from convexnn_bench.patterns import Patterns
from convexnn_bench.plugins import ACTIVATIONS, ARCHITECTURES, LOSSES, Number, Whole

AnyInstance = TypeVar("AnyInstance", bound="Instance")

FITTED_BY_BIAS = 1e-14  # relative size of the gradient below which the output bias alone counts as fitting the targets

# Attributes that are computed again on first use. Operators hold functions of torch, which cannot be pickled.
REBUILT = ("_rows", "_operators", "cones", "closed_cones", "all_patterns")


class Instance:
    """Data, architecture, activation, loss and beta, with the activation patterns fixed.

    The arguments are those of `Problem`, which documents them.
    """

    # Everything else follows from these, and much of it is computed once, so that they stay as they are.
    DEFINING = (
        "architecture", "activation", "loss", "seed", "X", "Y", "classes", "notes", "n_out", "c", "N", "p", "q", "P",
        "pattern_info", "masks", "gates", "beta", "held_out",
    )  # fmt: skip

    def __init__(
        self,
        X: Array,
        Y: Array | Targets,
        architecture: str | BaseArchitecture = "mlp",
        activation: str | BaseActivation = "gated_relu",
        loss: str | BaseLoss = "squared",
        beta: float | None = None,
        patterns: str | int | Array | Patterns = "all",
        seed: int = 0,
        *,
        beta_fraction: float | None = None,
        sample_weight: Array | None = None,
        output_bias: str | None = None,
    ):
        # 1. The model: what acts on the data, and how its outputs are judged.
        self.architecture: BaseArchitecture = ARCHITECTURES.make(architecture)
        self.activation: BaseActivation = ACTIVATIONS.make(activation)
        made: BaseLoss = LOSSES.make(loss)
        beta, beta_fraction = plain_number(beta), plain_number(beta_fraction)
        self._check_beta(beta, beta_fraction)
        biased = with_output_bias(made, output_bias, beta)  # raises before long work
        self.seed: int = Whole(low=0).check("seed", seed)
        # 2. Read data and targets in the shapes of the architecture and the loss.
        self.X = aligned_data(read_data(X, self.architecture, self.activation.has_cone))  # the caller may change X
        self.architecture.check_data(self.X)
        targets = read_targets(biased, Y, lambda rows: self.architecture.target_rows(rows, self.X))
        self.Y = aligned_copy(targets.rows)
        self.classes: tuple[Any, ...] | None = targets.classes
        self.held_out: HeldOut | None = None  # see `with_held_out`
        self.notes: tuple[str, ...] = (*pairing_notes(X, Y), *targets.notes)
        self.n_out, self.c = self.Y.shape
        # 3. The sizes of the lifted program: Phi is N x p, and a block is p x q.
        self._rows = Rows(self.architecture, self.X)
        self.N, self.p = self._rows.shape
        self.q = self.architecture.width_out(self.X, self.c)
        self._check_outputs()
        weighted = with_sample_weight(made, sample_weight, self.X.shape[0], self.n_out)
        self.loss: BaseLoss = with_output_bias(weighted, output_bias, beta)
        # Products of extreme numbers leave float64, where no bound could be trusted.
        check_scale("X", entries(self.X))
        check_scale("the first-layer rows Phi made from X", np.array(self._rows.largest()))
        check_scale("Y", self.Y)
        # 4. The blocks: one mask D_k for each activation pattern or gate.
        light = self._rows.avoidable and not self.has_cone  # the cones need the entries of Phi
        rows = self._rows if light else self.Phi
        asked = patterns if isinstance(patterns, Patterns) else check_patterns(patterns, self.N)
        self.pattern_info: Patterns = self.activation.blocks(rows, asked, self.seed)
        self.masks = self.pattern_info.masks
        self.gates = self.pattern_info.gates
        self.P = self.masks.shape[1]
        self._check_attained()
        self._operators: dict[tuple[str, torch.dtype], Operator] = {}
        self.is_shared = False  # see `shared`
        # 5. Weight decay. A fraction refers to beta_max, which needs all of the above.
        self.beta = self._chosen_beta(beta, beta_fraction)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.DEFINING and name in self.__dict__:
            way = "problem.with_beta(...) returns" if name == "beta" else "make"
            raise AttributeError(f"{name} of a {type(self).__name__} is read-only: {way} a new one")
        super().__setattr__(name, value)

    # -- checks -----------------------------------------------------------------------------------------

    @staticmethod
    def _check_beta(beta: Any, fraction: Any, name_of_fraction: str = "beta_fraction") -> None:
        if (beta is None) == (fraction is None):
            raise InputError(
                f"give exactly one of beta and {name_of_fraction} (a fraction of beta_max), got beta={beta!r}, "
                f"{name_of_fraction}={fraction!r}"
            )
        name, value = ("beta", beta) if beta is not None else (name_of_fraction, fraction)
        Number().check(name, value)

    def _check_outputs(self) -> None:
        """Raise InputError unless the targets have as many rows as the predictions, counted on one sample."""
        # The outputs of a sample depend on that sample alone, so that one sample shows how many there are.
        samples = self.X.shape[0]
        M = torch.zeros(self.N // samples, self.q, dtype=torch.float64)
        rows = samples * self.architecture.second_layer(M, data_matrix(self.X[:1]), self.c).shape[0]
        if self.n_out != rows:
            outputs = "" if rows == samples else f", {rows} outputs of the {self.architecture.name}"
            raise InputError(f"X has {samples} samples{outputs} but Y has {self.n_out} rows")

    def _check_attained(self) -> None:
        """Raise InputError for a mask of the user's that no vector attains, where blocks have cones."""
        # The vectors in the cone of such a block are zero, or belong to the cone of another pattern.
        k = unattained(self.Phi, self.masks) if self.has_cone and self.gates is None else None
        if k is not None:
            raise InputError(
                f"patterns: block {k} is the pattern 1{{Phi u >= 0}} of no vector u, so that no ReLU neuron belongs to "
                'it; take masks from cnn.sample_patterns or cnn.enumerate_patterns, or activation="gated_relu"'
            )

    def _chosen_beta(self, beta: float | None, fraction: float | None) -> float:
        return check_beta(float(beta) if beta is not None else self._beta_from_fraction(float(fraction or 0.0)))

    def _beta_from_fraction(self, fraction: float) -> float:
        if not self.beta_max > 0:
            raise InputError(
                "beta_fraction cannot be used: beta_max is 0, since the gradient of the loss at the zero network "
                "vanishes (are the targets, or the active rows of X, all zero, or the targets constant under a free "
                "output bias?); give beta itself"
            )
        return fraction * self.beta_max

    # -- sample weights and output bias -------------------------------------------------------------------

    @property
    def sample_weight(self) -> Float[np.ndarray, " n"] | None:
        """The weight of every sample, or None without weights."""
        loss, n = weighted_part(self.loss), self.X.shape[0]
        return loss.weights[:: self.n_out // n].copy() if isinstance(loss, WeightedLoss) else None

    @property
    def output_bias(self) -> str | None:
        """The kind of output bias, "free" or "penalised", or None without one."""
        if not isinstance(self.loss, OutputBias):
            return None
        return "free" if self.loss.beta is None else "penalised"

    def output_bias_at(self, predictions: Array) -> Float[np.ndarray, " c"]:
        """Return the output bias that minimises the loss at predictions without one.

        Parameters
        ----------
        predictions : array n_out x c
            Predictions A(Z) on the problem's data.

        Returns
        -------
        array c
            The best bias b, or zeros for a problem without an output bias.

        Raises
        ------
        InputError
            The predictions have another shape, or entries that are not finite.

        Notes
        -----
        b minimises F(A(Z) + 1 b^T), plus beta/2 ||b||^2 if it is penalised. If a free bias has no minimiser, because it
        separates the classes, a b of nearly the least value is returned.
        """
        z = check_array("predictions", predictions)
        if z.shape != self.Y.shape:
            raise InputError(f"predictions must be n_out x c = {self.n_out} x {self.c}, got shape {z.shape}")
        if not isinstance(self.loss, OutputBias):
            return np.zeros(self.c)
        return self.loss.best_bias(torch.as_tensor(z), self.operator().Y).numpy()

    # -- what follows from the data -----------------------------------------------------------------------

    @property
    def Phi(self) -> Float[np.ndarray, "N p"]:
        """The rows of the first layer, formed on first use."""
        return self._rows.array

    @property
    def is_sparse(self) -> bool:
        """Whether X is a sparse matrix, for which the rows Phi are never formed."""
        return bool(scipy.sparse.issparse(self.X))

    @property
    def has_formed_Phi(self) -> bool:
        """True once the rows Phi have been formed."""
        return self._rows.formed

    @property
    def has_cone(self) -> bool:
        """True where the vectors u of block k are constrained to K_k u >= 0 (ReLU)."""
        return self.activation.has_cone

    @property
    def vector_cone(self) -> bool:
        """True for vector-output ReLU (q > 1), whose block norm and dual norm are NP-hard in general."""
        return self.has_cone and self.q > 1

    @property
    def scope(self) -> str:
        """ "complete" if every attainable pattern is among the blocks, else "sampled"."""
        # If different rows count as one, the blocks of gates between them are missing. With ReLU such a block adds
        # little, which certificates take into account. Rows that are rounded may be equal where the exact ones differ.
        info = self.pattern_info
        resolved = info.resolved and not (info.merged and self.architecture.rounds)
        return "complete" if info.complete and (self.has_cone or resolved) else "sampled"

    @cached_property
    def cones(self) -> Cones | None:
        """The cones K_k u >= 0 of the blocks, or None without a cone."""
        return Cones(self.Phi, self.masks, self.gates) if self.has_cone else None

    @cached_property
    def closed_cones(self) -> Cones | None:
        """The cones without rows that count as copies of others. The cones of all patterns cover the space."""
        copies = self.pattern_info.copies
        return self.cones if self.cones is None or copies is None else self.cones.without(copies)

    @cached_property
    def all_patterns(self) -> CompleteNorm:
        """Bounds on dual norms over every activation pattern of a ReLU network, whatever the problem's blocks are."""
        radius = self.architecture.bias_radius
        return CompleteNorm(self.Phi) if radius is None else FreeBiasNorm(self.Phi, radius)

    def operator(self, device: str = "cpu", dtype: torch.dtype = torch.float64) -> Operator:
        """Return A on a device, built on first use and kept."""
        chosen = torch.device(device)
        if chosen.type == "cuda" and chosen.index is None:  # one operator for "cuda" and "cuda:0"
            chosen = torch.device("cuda", torch.cuda.current_device())
        device = str(chosen)
        key = (device, dtype)
        if key not in self._operators:
            operator = Operator(self.architecture, self.X, self.Y, self.masks, device, dtype)
            if key == ("cpu", torch.float64) and self._rows.formed and operator.has_rows:
                operator.Phi = torch.as_tensor(self.Phi)  # one copy for both
            self._operators[key] = SharedOperator(operator) if self.is_shared else operator
        return self._operators[key]

    def built_operators(self) -> dict[tuple[str, torch.dtype], Operator]:
        """Return the operators that were built so far, by device and dtype."""
        return dict(self._operators)

    def shared(self: AnyInstance) -> AnyInstance:
        """Return this problem with operators whose products the processes of torchrun share, see `SharedOperator`.

        The arrays are the same ones. Every process has to use the shared problem in the same way. This problem itself
        stays local to its process.
        """
        problem = copy.copy(self)
        problem.is_shared, problem._operators = True, {}
        problem.__dict__.pop("beta_max", None)  # all processes must compute it together
        return problem

    def with_beta(self: AnyInstance, beta: float | None = None, *, fraction: float | None = None) -> AnyInstance:
        """Return a new problem with another weight decay, on the same data and masks.

        Parameters
        ----------
        beta : float, optional
            Weight decay > 0.
        fraction : float, optional
            Weight decay as a fraction of ``beta_max``. Give exactly one of `beta` and `fraction`.

        Raises
        ------
        InputError
            A number is not positive, or not exactly one of the two is given.
        """
        beta, fraction = plain_number(beta), plain_number(fraction)
        self._check_beta(beta, fraction, "fraction")
        problem = copy.copy(self)
        # The weight decay of a penalised output bias changes with that of the problem, and with it beta_max.
        penalised = isinstance(self.loss, OutputBias) and self.loss.beta is not None
        if penalised and beta is None:
            raise InputError("fraction: with a penalised output bias beta_max depends on beta; give beta itself")
        problem.__dict__["beta"] = self._chosen_beta(beta, fraction)
        if isinstance(self.loss, OutputBias) and penalised:
            # A bias may have another weight decay than the layers, and the ratio of the two stays.
            problem.__dict__["loss"] = OutputBias(self.loss.loss, problem.beta * (self.loss.penalty / self.beta))
            problem.__dict__.pop("beta_max", None)
        return problem

    def with_held_out(self: AnyInstance, X: Array, Y: Array | Targets) -> AnyInstance:
        """Return this problem with held-out samples, on which its results are scored.

        Parameters
        ----------
        X, Y : array
            Held-out samples and their targets, in the form in which a problem takes them. Labels are those of the
            training samples. Neither the objective nor a bound on it depends on them.

        Raises
        ------
        InputError
            The arrays do not fit those of the problem, or a label is none of its classes.

        Examples
        --------
        >>> import convexnn_bench as cnn
        >>> problem = cnn.Problem([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], ["a", "b", "a"], loss="logistic", beta=1e-3)
        >>> problem = problem.with_held_out([[0.9, 1.0], [3.0, 1.0]], ["b", "b"])
        >>> cnn.solve(problem, "bm_newton").held_out_score.accuracy
        0.5
        """
        problem = copy.copy(self)
        training = self.X, self.Y
        problem.__dict__["held_out"] = read_held_out(self.architecture, self.loss, training, self.classes, X, Y)
        return problem

    def rescaled(self: AnyInstance, unit_of_X: float, unit_of_Y: float, unit_of_weights: float = 1.0) -> AnyInstance:
        """Return this problem on X / unit_of_X and Y / unit_of_Y, with the loss and the beta that keep it the same.

        The units are powers of two, so that no digit changes. A unit other than one needs an architecture with a
        degree, a loss that can be rescaled, or sample weights. Masks, gates and cones are those of this problem, since
        they do not depend on the units. `running.scaling` chooses the units and maps points back.
        """
        degree = self.architecture.degree or 0
        found = self.loss.rescaled(unit_of_Y) if unit_of_Y != 1 else (self.loss, 1.0)
        if found is None or (unit_of_X != 1 and degree == 0):
            raise InputError(
                f"the {self.loss.name} loss or the {self.architecture.name} architecture cannot be measured in units "
                f"of Y = {unit_of_Y:g} and X = {unit_of_X:g}"
            )
        problem = copy.copy(self)
        loss, weight = found
        if unit_of_weights != 1:
            loss, weight = loss.divided(unit_of_weights), weight * unit_of_weights
        X = with_entries(self.X, aligned_copy(np.ldexp(entries(self.X), 1 - math.frexp(unit_of_X)[1])))
        beta = self.beta * (unit_of_Y / unit_of_X**degree / weight)
        # The held-out samples are not copied, since points are scored in the user's units.
        problem.__dict__.update(X=X, Y=self.Y / unit_of_Y, loss=loss, beta=beta, held_out=None)
        problem._rows, problem._operators = Rows(self.architecture, X), {}
        for name in ("beta_max", "all_patterns"):  # they depend on the units
            problem.__dict__.pop(name, None)
        problem.__dict__["cones"] = self.cones
        return problem

    def in_row_space(self: AnyInstance) -> tuple[AnyInstance, Float[np.ndarray, "p N"] | None]:
        """Return this problem in N coordinates of the row space if N < p, with their basis Q; else itself and None.

        Phi = Phi Q Q^T with Q^T Q = I. The problem of an MLP on the rows Phi Q has the objective of the blocks Q Z' at
        Z', and cones with Q u' in cone k. Blocks of this form suffice, since parts at right angles to Q change neither
        predictions nor rows of a cone, and add to the norm. C has to be the identity.
        """
        if self.p <= self.N or not self.architecture.second_layer_is_identity or self.is_sparse:
            return self, None
        Q, triangle = np.linalg.qr(self.Phi.T)  # Phi Q = triangle^T
        problem = copy.copy(self)
        X, gates = aligned_copy(triangle.T), None if self.gates is None else Q.T @ self.gates
        problem.__dict__.update(architecture=MLP(), X=X, p=self.N, gates=gates, held_out=None)
        problem._rows, problem._operators = Rows(problem.architecture, X), {}
        for name in ("beta_max", "cones", "closed_cones", "all_patterns"):
            problem.__dict__.pop(name, None)
        return problem, Q

    @cached_property
    def beta_max(self) -> float:
        """max_k ||A_k^*(grad F(0))||, the dual norm of block k: for beta >= beta_max the optimum is Z = 0."""
        # Z = 0 is optimal if and only if -A_k^*(grad F(0)) lies in beta times the subdifferential of the norm at zero
        # for every block k. That subdifferential is the unit ball of the dual norm.
        operator = self.operator()
        zero = torch.zeros_like(operator.Y)
        gradient = self.loss.gradient(zero, operator.Y)
        # If the output bias alone fits the targets, rounding or a bound on the bias leaves a gradient of this size.
        without_bias = weighted_part(self.loss).gradient(zero, operator.Y)
        if float(gradient.abs().max()) <= FITTED_BY_BIAS * float(without_bias.abs().max()):
            return 0.0
        with no_deadline():  # the value is kept, and beta may be a fraction of it
            value = max_dual_norm(self.cones, operator.adjoint(gradient)).value
        if not np.isfinite(value):
            raise InputError(
                f"the data are too large for float64 products: max |X| = {np.abs(entries(self.X)).max():.3g}, "
                f"max |Y| = {np.abs(self.Y).max():.3g}; rescale them"
            )
        return value

    # -- copies and pickles -------------------------------------------------------------------------------

    def __copy__(self: AnyInstance) -> AnyInstance:
        """Return an instance with the same arrays and operators."""
        other = type(self).__new__(type(self))
        other.__dict__.update(vars(self))
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or a deep copy holds: everything but REBUILT."""
        kept = {name: value for name, value in vars(self).items() if name not in REBUILT}
        return {**kept, "is_shared": False}  # the processes of torchrun do not come along

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"held_out": None, **state, "X": aligned_data(state["X"]), "Y": aligned_copy(state["Y"])})
        self._rows, self._operators = Rows(self.architecture, self.X), {}

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.architecture.name}, {self.activation.name}, {self.loss.name}, "
            f"n={self.X.shape[0]}, p={self.p}, q={self.q}, P={self.P} ({self.scope}), beta={self.beta:.6g})"
        )
