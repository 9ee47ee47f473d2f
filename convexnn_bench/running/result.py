"""The result of a solve: its point, its certificate, its times and its curve."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates import Certificate, certificate_html
from convexnn_bench.checks import Array
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.formulations import FactoredPoint, Point
from convexnn_bench.held_out import HeldOutScore
from convexnn_bench.instance_file import instance_tree
from convexnn_bench.labels import decode_labels
from convexnn_bench.modules import to_torch
from convexnn_bench.prediction import Predictor
from convexnn_bench.problem import Problem
from convexnn_bench.running.result_file import PLAIN, certificate_tree, point_tree
from convexnn_bench.storage import write_archive

# Attributes that are computed on first use, and again in another process.
COMPUTED = ("blocks", "factors", "network", "_predictor", "held_out_score")


@dataclass(repr=False)
class Result:
    """The outcome of one solver on one problem.

    Attributes
    ----------
    problem : Problem
        The problem that was solved.
    solver : str
        The solver's name.
    parameters : dict
        The solver's parameters.
    seed : int
        Seed of the start point.
    device : str
        Device on which the solver ran.
    status : str
        gap_reached, solved, stalled, time_limit, diverged or skipped.
    reason : str
        The status in words.
    setup_seconds : float
        Time to build and compile.
    solve_seconds : float
        Time to solve, without scoring.
    curve : list of (seconds, objective, gap)
        Every point that was scored; seconds as in `solve_seconds`.
    certificate : Certificate or None
        What was proven of the final point; None where there is no point.
    point : Point or None
        The solver's raw parameters.
    iterations : int
        Number of steps that the solver took, counted like `iterations=` of `solve`; at most 1 for a solver that does
        its work in one call.
    """

    problem: Problem
    solver: str
    parameters: dict[str, Any]
    status: str
    reason: str
    seed: int = 0
    device: str = "cpu"
    setup_seconds: float = float("nan")
    solve_seconds: float = float("nan")
    curve: list[tuple[float, float, float]] = field(default_factory=list)
    certificate: Certificate | None = None
    point: Point | None = None
    iterations: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or a deep copy holds.

        That is everything but the arrays that are computed on first use.
        """
        return {name: value for name, value in vars(self).items() if name not in COMPUTED}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}({self.solver}, {self.status}: {self.reason:.200}"]
        if self.certificate is not None:
            lines.append(f"  {self.certificate!r}")
        return "\n".join([*lines, f"  {self.problem!r}, {self._times()})"])

    def _repr_html_(self) -> str:
        title, lines = f"{self.solver}: {self.status}", (f"{self.reason:.400}.", f"{self.problem!r}", self._times())
        if self.certificate is None:
            return certificate_html(title, float("nan"), float("nan"), lines=lines)
        proven = self.certificate
        return certificate_html(title, proven.primal, proven.dual, proven.refused, lines)

    def _times(self) -> str:
        if math.isnan(self.solve_seconds):
            return f"not run on {self.device}, seed {self.seed}"
        return f"set-up {self.setup_seconds:.3g} s, solve {self.solve_seconds:.3g} s on {self.device}, seed {self.seed}"

    @property
    def objective(self) -> float:
        """Certified objective of the final point, a sum over samples.

        It is nan if there is no point.
        """
        return self.certificate.primal if self.certificate is not None else float("nan")

    @property
    def gap(self) -> float:
        """Certified relative gap of the final point; nan where there is none."""
        return self.certificate.gap if self.certificate is not None else float("nan")

    @cached_property
    def blocks(self) -> np.ndarray | None:
        """The point in the convex program, P x p x q; None where there is none.

        A ReLU network that uses activation patterns which are not among the problem's blocks is no point of it.
        """
        return None if self.point is None else _found(self.point.to_blocks, self.problem)

    @cached_property
    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(U, V), P x p x m and P x q x m, for Burer-Monteiro solvers, else None."""
        return _found(self.point.to_factors, self.problem) if isinstance(self.point, FactoredPoint) else None

    @cached_property
    def network(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(W1, W2), p x M and q x M, of a network with this point's predictions, or None.

        No map is known where vector-output ReLU blocks could not be decomposed into neurons.
        """
        return None if self.point is None else _found(self.point.to_network, self.problem)

    @cached_property
    def _predictor(self) -> Predictor:
        """The function x -> f(x) of the final point.

        Raises
        ------
        InputError
            There is no point, since the solver did not run.
        UnsupportedError
            The activation has gates and the problem has masks alone, or no network of a ReLU point is known.
        """
        if self.point is None:
            raise InputError(f"the result has no point with which to predict: {self.solver}: {self.reason}")
        return Predictor(self.problem, self.point)

    def predict(self, X_new: Array) -> np.ndarray:
        """Return the scores of new data.

        Parameters
        ----------
        X_new : array
            Samples of the same shape as those of the problem, one for each index of the first axis.

        Returns
        -------
        array, n_new x c
            The outputs of the network, with the output bias if the problem has one. The shape is n_new x s x c for
            attention with an output for each token.

        Raises
        ------
        InputError
            X_new has samples of another shape, or there is no point.
        UnsupportedError
            The activation has gates and the problem has masks alone, or no network of a ReLU point is known.

        Notes
        -----
        A gated network uses the gates g_k of its training problem, f(x) = C(sum_k 1{phi(x) g_k >= 0} phi(x) Z_k). A
        ReLU point predicts with `network`. On the training data both give the predictions of the certified point.

        Examples
        --------
        >>> import convexnn_bench as cnn
        >>> problem = cnn.Problem([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [0.0, 1.0, 0.0], beta=1e-6)
        >>> cnn.solve(problem, "bm_newton").predict([[1.0, 1.0], [2.0, 1.0]]).round(3)
        array([[1.],
               [0.]])
        """
        return self._predictor(X_new)

    def predict_labels(self, X_new: Array) -> np.ndarray:
        """Return the labels of new data.

        Parameters
        ----------
        X_new : array
            As for `predict`.

        Returns
        -------
        array n_new
            Labels from `problem.classes`: the label of the largest score, the first of equal ones. With one output, a
            positive score gives the second class and any other score the first. The shape is n_new x s for attention
            with an output for each token.

        Raises
        ------
        InputError
            The targets of the problem were numbers, not labels; or as for `predict`.
        UnsupportedError
            As for `predict`.

        Examples
        --------
        >>> import convexnn_bench as cnn
        >>> X, words = [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], ["ham", "spam", "ham"]
        >>> problem = cnn.Problem(X, words, loss="logistic", beta=1e-3)
        >>> cnn.solve(problem, "bm_newton").predict_labels([[1.1, 1.0], [3.0, 1.0]])
        array(['spam', 'ham'], dtype='<U4')
        """
        if self.problem.classes is None:
            raise InputError(
                f"Y of the problem were numbers for the {self.problem.loss.name} loss and not one column of labels, so "
                "that outputs have no names: use predict"
            )
        return decode_labels(self.predict(X_new), self.problem.classes)

    def to_torch(self) -> torch.nn.Module:
        """Return a torch module, in float64, with the predictions of `predict`.

        Returns
        -------
        torch.nn.Module
            Its outputs differ from those of `predict` by rounding only. It contains the active neurons only, and is in
            evaluation mode.

            - ReLU: ``Sequential(Linear, ReLU, Linear)``, ``Sequential(Conv2d, ReLU, pooling, Flatten, Linear)``, or an
              `AttentionBlock`, all of which `certify_module` reads.
            - gated ReLU: `GatedMLP`, `GatedCNN` or `GatedAttention`.
            - linear: one ``Linear`` layer, after a ``Flatten`` for images; an `AttentionBlock` for attention.
            - other architectures and activations: `ArchitectureNetwork`.

            An output bias is the bias of the last layer.

        Raises
        ------
        InputError
            There is no point.
        UnsupportedError
            The activation has gates and the problem has masks alone, or no network of the point is known.

        Notes
        -----
        The gates of a gated network are the fixed directions g_k of the training problem's activation patterns. Block k
        is active on a row x of the first layer if x g_k >= 0, for new data as for the training data. The gates are
        buffers of the module. In float32 (``module.float()``), a sample within rounding of a gate's hyperplane may have
        other active neurons than in float64.

        Examples
        --------
        >>> import torch
        >>> import convexnn_bench as cnn
        >>> problem = cnn.Problem([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [0.0, 1.0, 0.0], activation="relu", beta=1e-3)
        >>> module = cnn.solve(problem, "bm_newton").to_torch()
        >>> [type(layer).__name__ for layer in module]
        ['Linear', 'ReLU', 'Linear']
        >>> bool(abs(module(torch.as_tensor(problem.X)) - torch.as_tensor(problem.Y)).max() < 0.1)
        True
        """
        return to_torch(self._predictor)

    @cached_property
    def held_out_score(self) -> HeldOutScore | None:
        """Scores on the held-out samples of the problem, computed on first use.

        No clock counts their time. None if the problem has no held-out samples, or if there is no point.
        """
        held_out = self.problem.held_out
        if held_out is None or self.point is None:
            return None
        try:
            predictions = self.predict(held_out.X)
        except UnsupportedError as error:
            return HeldOutScore(held_out.X.shape[0], missing=str(error))
        return held_out.score(predictions.reshape(held_out.Y.shape), self.problem.loss)

    def save(self, path: str | Path) -> Path:
        """Save the result with its problem and its certificate to one .npz file.

        Parameters
        ----------
        path : str or Path
            The file. It is written in one step, and replaced if it exists.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        InputError
            The architecture, the activation or the loss is not registered, so that a file cannot name it, or the
            solver has a parameter that is no plain value.
        OSError
            The file cannot be written.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> import convexnn_bench as cnn
        >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
        >>> result = cnn.solve(problem, "bm_newton")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = cnn.load_result(result.save(pathlib.Path(folder) / "result.npz"))
        >>> again.certificate == result.certificate
        True
        """
        content = {
            **{name: getattr(self, name) for name in PLAIN},
            "curve": np.array(self.curve, dtype=np.float64).reshape(-1, 3),
            "problem": instance_tree(self.problem),
            "point": point_tree(self.point),
            "certificate": certificate_tree(self.certificate),
            "iterations": self.iterations,
        }
        return write_archive(path, "result", content)


def _found(convert: Callable[[Problem], Any], problem: Problem) -> Any:
    """Return the arrays of a conversion, or None if the point has no counterpart."""
    try:
        # A missing counterpart is no error of the run: the point itself and its certificate stand.
        arrays = convert(problem)
    except UnsupportedError:
        return None
    return tuple(array.numpy() for array in arrays) if isinstance(arrays, tuple) else arrays.numpy()
