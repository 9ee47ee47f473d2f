"""An instance of the training problem: data, model, loss, beta and blocks.

An instance knows its operator A, its cones and the norms of its blocks. It evaluates no objective: the three
formulations (`convexnn_bench.formulations`) are functions of an instance, and `Problem` adds them to it.
"""

from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float

from convexnn_bench.activations import BaseActivation
from convexnn_bench.architectures import BaseArchitecture
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
from convexnn_bench.cones import Cones
from convexnn_bench.deadline import no_deadline
from convexnn_bench.errors import InputError
from convexnn_bench.held_out import HeldOut
from convexnn_bench.instance.checks import check_attained, check_fraction_has_meaning, check_one_beta, check_target_rows
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
from convexnn_bench.operator import Operator, Rows, SharedOperator, aligned_data, entries, read_data
from convexnn_bench.patterns import Patterns
from convexnn_bench.plugins import ACTIVATIONS, ARCHITECTURES, LOSSES, Whole

AnyInstance = TypeVar("AnyInstance", bound="InstanceCore")
FITTED_BY_BIAS = 1e-14  # relative size of the gradient below which the output bias alone counts as fitting the targets

# Attributes that are computed again on first use. Operators hold functions of torch, which cannot be pickled.
REBUILT = ("_rows", "_operators", "cones", "closed_cones", "all_patterns")


class InstanceCore:
    """Data, architecture, activation, loss and beta, with fixed activation patterns.

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
        check_one_beta(beta, beta_fraction)
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
        check_target_rows(self.X, self.Y, self.architecture, self.N, self.q)
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
        self.masks, self.gates = self.pattern_info.masks, self.pattern_info.gates
        self.P = self.masks.shape[1]
        if self.has_cone and self.gates is None:
            check_attained(self.Phi, self.masks)
        self._operators: dict[tuple[str, torch.dtype], Operator] = {}
        self.is_shared = False  # see `shared`
        # 5. Weight decay. A fraction refers to beta_max, which needs all of the above.
        self.beta = self._chosen_beta(beta, beta_fraction)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.DEFINING and name in self.__dict__:
            way = "problem.with_beta(...) returns" if name == "beta" else "make"
            raise AttributeError(f"{name} of a {type(self).__name__} is read-only: {way} a new one")
        super().__setattr__(name, value)

    def _chosen_beta(self, beta: float | None, fraction: float | None) -> float:
        """Return beta, or a fraction of beta_max."""
        if beta is None:
            check_fraction_has_meaning(self.beta_max)
            beta = float(fraction or 0.0) * self.beta_max
        return check_beta(float(beta))

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
        """True for vector-output ReLU (q > 1), whose norms are NP-hard in general."""
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
        """The cones without rows that count as copies of others.

        The cones of all patterns cover the space.
        """
        copies = self.pattern_info.copies
        return self.cones if self.cones is None or copies is None else self.cones.without(copies)

    @cached_property
    def all_patterns(self) -> CompleteNorm:
        """Bounds on dual norms over every activation pattern of a ReLU network."""
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

    @cached_property
    def beta_max(self) -> float:
        """max_k ||A_k^*(grad F(0))||, from which on the optimum is Z = 0."""
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
