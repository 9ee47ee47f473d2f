"""An instance of the training problem, with the instances that are made from it.

They have another beta, held-out samples, units of the data, or coordinates.
"""

import copy
import math
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from convexnn_bench.architectures import MLP
from convexnn_bench.checks import Array, aligned_copy, plain_number
from convexnn_bench.errors import InputError
from convexnn_bench.held_out import read_held_out
from convexnn_bench.instance.checks import check_one_beta
from convexnn_bench.instance.core import InstanceCore
from convexnn_bench.labels import Targets
from convexnn_bench.losses import OutputBias
from convexnn_bench.operator import Rows, entries, with_entries

AnyInstance = TypeVar("AnyInstance", bound="Instance")


class Instance(InstanceCore):
    """An instance of the training problem, and the instances that are made from it.

    The arguments are those of `Problem`, which documents them.
    """

    def shared(self: AnyInstance) -> AnyInstance:
        """Return this problem with products that the processes of torchrun share.

        Each operator becomes a `SharedOperator`, and the arrays are the same ones. Every process has to use the shared
        problem in the same way. This problem itself stays local to its process.
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
        check_one_beta(beta, fraction, "fraction")
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
        """Return this problem on X / unit_of_X and Y / unit_of_Y.

        Loss and beta are those that keep the problem the same. The units are powers of two, so that no digit changes.
        A unit other than one needs an architecture with a degree, a loss that can be rescaled, or sample weights.
        Masks, gates and cones are those of this problem, since they do not depend on the units. `running.scaling`
        chooses the units and maps points back.
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
        """Return this problem in N coordinates of the row space, with their basis Q.

        If N >= p, return the problem itself and None.

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
