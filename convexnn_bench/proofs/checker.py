"""The checker verify_proof.py as a module, and the check of a proof in this process.

The checker is one file without imports of ours. It stands at the top of a checkout, and is installed into this room.
"""

import gzip
import importlib.util
import json
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from convexnn_bench.errors import InputError, ProofError
from convexnn_bench.problem import Problem
from convexnn_bench.proofs.proof import Proof

ROOM = Path(__file__).resolve().parent
DAMAGED = (gzip.BadGzipFile, zlib.error, EOFError, ValueError, RecursionError)


def checker_path() -> Path:
    """Return the file of the checker: the checkout's own, else the copy that is installed with the package."""
    checkout = ROOM.parents[1] / "verify_proof.py"
    return checkout if checkout.is_file() else ROOM / "verify_proof.py"


@cache
def checker() -> ModuleType:
    """Return the checker as a module."""
    spec = importlib.util.spec_from_file_location("verify_proof", checker_path())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_checked(problem: Problem) -> Any:
    """Return the problem as the checker reads it from a file."""
    with tempfile.TemporaryDirectory() as folder:
        return checker().Problem(problem.save(Path(folder) / "problem.npz"), None)


def verify_files(proof: str | Path, problem: str | Path) -> str:
    """Return the statement of a proof file about a problem file, once the checker has verified it.

    Raises
    ------
    ProofError
        The proof does not hold.
    OSError
        A file cannot be opened.
    """
    with open(problem, "rb"):  # a file that cannot be opened is no proof that does not hold
        return _verified(_read(proof), lambda stated: checker().Problem(problem, stated))


def check_proof(path: str | Path | Proof, problem: Problem | str | Path) -> str:
    """Verify a proof in exact arithmetic, and return its statement in words.

    Parameters
    ----------
    path : str, Path or Proof
        The proof, or the file to which `Proof.save` has written it.
    problem : Problem, str or Path
        The problem, or the file to which `Problem.save` has written it, or a CSV file of its data (docs/proofs.md).

    Returns
    -------
    str
        What was verified.

    Raises
    ------
    ProofError
        The proof does not hold. The message names the first statement that is false.
    InputError
        An argument is of another type.
    OSError
        A file cannot be opened.

    Notes
    -----
    This runs the program verify_proof.py, which stands beside the package and imports nothing but Python's standard
    library. Anybody can run it without this package: ``python verify_proof.py PROOF.json.gz PROBLEM.npz``.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
    >>> proof = cnn.prove(problem, cnn.solve(problem, "bm_newton"))
    >>> print(cnn.check_proof(proof, problem).split(":")[0])
    VERIFIED
    """
    content = _reread(path) if isinstance(path, Proof) else _read(path)
    if isinstance(problem, Problem):
        return _verified(content, lambda stated: as_checked(problem))
    if not isinstance(problem, str | Path):
        raise InputError(f"problem must be a Problem or a file, got {type(problem).__name__}")
    with open(problem, "rb"):
        return _verified(content, lambda stated: checker().Problem(problem, stated))


def _read(path: Any) -> dict[str, Any]:
    if not isinstance(path, str | Path):
        raise InputError(f"path must be a proof or its file, got {type(path).__name__}")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            return _parsed(stream.read())
    except DAMAGED as error:
        raise ProofError(f"{path} is not a proof: {error}") from error


def _reread(proof: Proof) -> dict[str, Any]:
    """Return the content of a proof as its file would give it."""
    try:
        return _parsed(proof.to_text())
    except (TypeError, ValueError) as error:
        raise ProofError(f"the proof cannot be written as JSON: {error}") from error


def _parsed(text: str) -> dict[str, Any]:
    """Return the content of a proof. It holds no number that is not an integer: others stay text."""
    return dict(json.loads(text, parse_float=str, parse_constant=str))


def _verified(content: dict[str, Any], problem: Callable[[Any], Any]) -> str:
    """Return the statement about the problem that a function makes of the one that the proof states."""
    try:
        return str(checker().verify(content, problem(content["problem"])))
    except Exception as error:
        # whatever stops the checker, the statement is not verified
        raise ProofError(f"this does not hold: {error or type(error).__name__}") from error
