"""Check that a solver left its problem unchanged.

A solver works with the same arrays that its points are certified with. If it changed them, by mistake or on purpose,
the certificate would be about another problem. So a checksum of every array (zlib.crc32, about 2 GB/s) is taken before
set-up and compared before and after every certificate, off the clock. For tensors of the operators on other devices,
and for tensors that follow from the arrays, torch's own count of in-place changes is compared.

Code in the same process that rewrites this package on purpose cannot be detected from inside.
"""

import zlib
from typing import Any

import numpy as np
import scipy.sparse
import torch

from convexnn_bench.errors import ChangedProblemError
from convexnn_bench.losses import BaseLoss, WeightedLoss, weighted_part
from convexnn_bench.problem import Problem

PARTS = ("architecture", "activation", "loss")


class Untouched:
    """The state of a problem at one moment, which `check` compares with a later one.

    A change that was detected stays in the list, also if the solver undoes it.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.values = _values(problem)
        self.versions: dict[tuple[Any, str], tuple[int, int]] = {}
        self._seen: dict[str, None] = {}
        self._look_at_tensors()

    def check(self, who: str) -> None:
        """Raise ChangedProblemError, which names what changed, where something did."""
        changed = self.changed()
        if changed:
            raise ChangedProblemError(
                f"{who} changed the problem it was given: {', '.join(changed)}; its points are not certified, for a "
                "certificate would be one of another problem (copy arrays before changing them)"
            )

    def changed(self) -> list[str]:
        """Return the attributes of the problem that changed."""
        now = _values(self.problem)
        if "Phi" in now:
            self.values.setdefault("Phi", now["Phi"])  # formed on first use
        names = list(dict.fromkeys([*self.values, *now]))
        found = [f"problem.{name}" for name in names if self.values.get(name) != now.get(name)]
        self._seen.update(dict.fromkeys(found + self._look_at_tensors()))
        return list(self._seen)

    def _look_at_tensors(self) -> list[str]:
        """Return the operators' tensors that changed or were replaced since a first look."""
        found, tensors = [], {}
        for key, operator in self.problem.built_operators().items():
            of = f"of problem.operator({key[0]!r})"
            tensors.update({(key, name): (tensor, of) for name, tensor in operator.tensors().items()})
        loss = weighted_part(self.problem.loss)
        copies = loss.copies() if isinstance(loss, WeightedLoss) else {}
        tensors.update({(key, "weights"): (tensor, "of problem.loss") for key, tensor in copies.items()})
        for (key, name), (tensor, of) in tensors.items():
            if key[1] != torch.float64:
                continue  # certificates are in float64
            # The identity tells a replaced tensor, the version one that was changed in place. Inference tensors have
            # none.
            state = id(tensor), 0 if tensor.is_inference() else tensor._version
            if self.versions.setdefault((key, name), state) != state:
                found.append(f"{name.removeprefix('own ')} {of}")
        return list(dict.fromkeys(found))

    def fingerprint(self) -> int:
        """Return a number below 2^32 that equal problems share, on any machine."""
        # Identities differ from process to process; shapes, kinds and checksums do not.
        arrays = {name: value for name, value in self.values.items() if name in ("X", "Y", "masks", "beta")}
        parts = [(type(getattr(self.problem, name)).__name__, self.values[name][1]) for name in PARTS]
        return zlib.crc32(repr((arrays, parts)).encode())


def _values(problem: Problem) -> dict[str, Any]:
    """Return what determines the objective and the bound.

    It is checksums of the arrays, and numbers and objects.
    """
    found: dict[str, Any] = {"X": _checksum(problem.X), "Y": _checksum(problem.Y), "masks": _checksum(problem.masks)}
    if problem.gates is not None:
        found["gates"] = _checksum(problem.gates)
    if problem.held_out is not None:
        found["held_out"] = _checksum(problem.held_out.X), _checksum(problem.held_out.Y)
    if problem.has_formed_Phi and not np.may_share_memory(problem.Phi, problem.X):
        found["Phi"] = _checksum(problem.Phi)
    found.update({name: getattr(problem, name) for name in ("beta", "N", "p", "q", "P", "c", "n_out")})
    for name in PARTS:
        part = getattr(problem, name)
        found[name] = (id(part), _numbers(part))
    # A method that is set on the instance hides that of its class, and would answer for it in certificates.
    replaced = [name for name in vars(problem) if callable(getattr(type(problem), name, None))]
    return {**found, **{f"{name}()": id(vars(problem)[name]) for name in replaced}}


def _numbers(part: Any) -> dict[str, Any]:
    """Return the plain parameters of a part, and those of a loss inside it.

    A part is a loss, an activation or an architecture.
    """
    found: dict[str, Any] = {}
    for name, value in vars(part).items():
        if isinstance(value, int | float | str | tuple):
            found[name] = value
        elif isinstance(value, np.ndarray):  # sample weights
            found[name] = _checksum(value)
        elif isinstance(value, BaseLoss):
            found[name] = type(value).__name__, _numbers(value)
    return found


def _checksum(array: Any) -> Any:
    """Return shape, kind and checksum of a plain array or sparse matrix.

    For anything else, return type and identity.
    """
    if isinstance(array, scipy.sparse.csr_array):
        return array.shape, tuple(_checksum(part) for part in (array.data, array.indices, array.indptr))
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        return f"{type(array).__name__} at {id(array)}"
    return array.shape, array.dtype.str, zlib.crc32(np.ascontiguousarray(array).data.cast("B"))
