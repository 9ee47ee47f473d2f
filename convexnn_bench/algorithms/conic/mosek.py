"""MOSEK through CVXPY: whether it is available, and a faster interface.

The interface is for matrix variables.
"""

import importlib.util
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

# environment variables that MOSEK reads
SERVER = "MSK_SPAR_REMOTE_OPTSERVER_HOST"
LICENCE = "MOSEKLM_LICENSE_FILE"


def mosek_missing() -> str | None:
    """Return one line about what MOSEK lacks on this machine, or None if a licence can be checked out.

    If the environment variable MSK_SPAR_REMOTE_OPTSERVER_HOST holds the address of a remote server, this machine needs
    no licence.
    """
    if importlib.util.find_spec("mosek") is None:
        return "package mosek is not installed: pip install mosek (a licence is needed too)"
    if os.environ.get(SERVER):
        return None
    home = Path.home() / "mosek" / "mosek.lic"
    if not os.environ.get(LICENCE) and not home.is_file():  # it need not be imported to find out
        return _no_licence("err_missing_license_file", home)
    import mosek

    try:
        with mosek.Env() as environment:
            environment.checkoutlicense(mosek.feature.pton)
    except mosek.Error as error:
        return _no_licence(str(error.errno).removeprefix("rescode."), home)
    return None


def _no_licence(reason: str, home: Path) -> str:
    return (
        f"no MOSEK licence ({reason}): it is looked for in the file or server that {LICENCE} names "
        f"({os.environ.get(LICENCE) or 'not set'}), then in {home} "
        f"({'found' if home.is_file() else 'no such file'}); or name a remote server in {SERVER}"
    )


def mosek_parameters(tolerance: float, time_limit: float | None) -> dict[str, Any]:
    """Return MOSEK's parameters: interior-point tolerances, time limit (seconds) and remote server."""
    names = ("PFEAS", "DFEAS", "REL_GAP")
    parameters: dict[str, Any] = {f"MSK_DPAR_INTPNT_CO_TOL_{name}": tolerance for name in names}
    if time_limit is not None:
        parameters["MSK_DPAR_OPTIMIZER_MAX_TIME"] = float(time_limit)
    if os.environ.get(SERVER):
        parameters[SERVER] = os.environ[SERVER]
    return parameters


def matrix_entries(A: sp.sparray | sp.spmatrix, c: np.ndarray, orders: list[int]) -> tuple[list[Any], list[Any]]:
    """Return the coefficients of matrix variables.

    They are (i, j, (rows, columns, values)) for A, and (j, (...)) for c.

    A has the columns of all lower triangles, column by column: sum of n (n + 1) / 2 over the orders n. The lists equal
    CVXPY's own, but need one pass over the entries of A instead of one sparse slice for every row and variable.
    """
    # A lower triangle column by column is an upper one row by row, with rows and columns exchanged.
    triangles = [np.triu_indices(n) for n in orders]
    lower_row = np.concatenate([right for _, right in triangles]).tolist()
    lower_column = np.concatenate([left for left, _ in triangles]).tolist()

    def triangle(start: int, end: int) -> Any:
        inside = columns[start:end]
        return [lower_row[e] for e in inside], [lower_column[e] for e in inside], values[start:end]

    variable = np.repeat(np.arange(len(orders)), [n * (n + 1) // 2 for n in orders])
    entries = sp.coo_array(A)
    order = np.lexsort((entries.col, variable[entries.col], entries.row))
    row, column, value = entries.row[order], entries.col[order], entries.data[order]
    # Entries are sorted by constraint and matrix variable: a group begins where either of them changes.
    first = np.flatnonzero(np.diff(row, prepend=-1) | np.diff(variable[column], prepend=-1))
    bounds = np.append(first, len(row)).tolist()
    columns, values = column.tolist(), value.tolist()
    A_bar = [
        (int(row[start]), int(variable[column[start]]), triangle(start, end))
        for start, end in itertools.pairwise(bounds)
    ]
    starts = np.cumsum([0, *(n * (n + 1) // 2 for n in orders)]).tolist()
    c_bar = [
        (j, (lower_row[start:end], lower_column[start:end], c[start:end].tolist()))
        for j, (start, end) in enumerate(itertools.pairwise(starts))
    ]
    return A_bar, c_bar


def mosek_backend() -> Any:
    """Return CVXPY's MOSEK interface with `matrix_entries`.

    It replaces the double loop over rows and variables.
    """
    from cvxpy import settings
    from cvxpy.reductions.cone2cone import affine2direct as cones
    from cvxpy.reductions.solvers.conic_solvers.mosek_conif import MOSEK

    class SparseMosek(MOSEK):
        """MOSEK with a task that is assembled entry by entry."""

        def name(self) -> str:
            return "MOSEK_SPARSE"

        def apply(self, problem: Any) -> tuple[Any, Any]:
            # the steps of MOSEK.apply in CVXPY, with A and c split into scalar and matrix variables
            if not problem.formatted:
                problem = self.format_constraints(problem, self.EXP_CONE_ORDER)
            data, inverse = cones.Dualize.apply(problem)
            A, c, orders = data[settings.A], data[settings.C], data["K_dir"][cones.PSD]
            data["A_bar_data"], data["c_bar_data"] = [], []
            if len(orders):
                K = data["K_dir"]
                start = K[cones.FREE] + K[cones.NONNEG] + sum(K[cones.SOC])
                end = start + sum(n * (n + 1) // 2 for n in orders)
                data["A_bar_data"], data["c_bar_data"] = matrix_entries(A[:, start:end], c[start:end], list(orders))
                data[settings.A] = sp.hstack([A[:, :start], A[:, end:]], format="csc")
                data[settings.C] = np.concatenate([c[:start], c[end:]])
            data[settings.PARAM_PROB] = problem
            return data, inverse

    backend = SparseMosek()
    backend.import_solver()
    return backend
