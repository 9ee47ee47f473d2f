"""skglm (Bertrand et al. 2022), block coordinate descent with working sets and Anderson acceleration."""

from importlib.metadata import version
from typing import Any

import numpy as np
from serve import SetUp, Solve, serve

UNLIMITED = 10**6  # outer iterations and epochs, so that the tolerance alone decides


def load() -> tuple[SetUp, str]:
    """Import skglm and let numba compile it, by a tiny problem with each loss.

    It minimises F(A u) / n + alpha sum_k ||u_k||, A = [D_1 Phi ... D_P Phi], F squared or logistic.
    """
    from skglm.datafits import LogisticGroup, QuadraticGroup
    from skglm.penalties import WeightedGroupL2
    from skglm.solvers import GroupBCD
    from skglm.utils.data import grp_converter
    from skglm.utils.jit_compilation import compiled_clone

    def set_up(data: dict[str, np.ndarray], parameters: dict[str, Any]) -> Solve:
        Phi, y, P = data["Phi"], data["Y"][:, 0], data["masks"].shape[1]
        # skglm divides by the norm of a group, and the blocks of groups without entries are zero
        kept = (data["masks"][:, :, None] & (Phi[:, None, :] != 0)).any(axis=(0, 2))
        masks, (n, p), blocks = data["masks"][:, kept], Phi.shape, np.zeros((P, Phi.shape[1], 1))
        A = np.asfortranarray((masks[:, :, None] * Phi[:, None, :]).reshape(n, -1))
        indices, starts = grp_converter(p, A.shape[1])
        kind = QuadraticGroup if parameters["loss"] == "squared" else LogisticGroup
        penalty = WeightedGroupL2(float(data["beta"]) / n, np.ones(masks.shape[1]), starts, indices)
        fit, penalty = compiled_clone(kind(starts, indices)), compiled_clone(penalty)
        u = np.zeros(A.shape[1])

        def solve(tolerance: float) -> tuple[np.ndarray, str]:
            nonlocal u
            solver = GroupBCD(
                max_iter=UNLIMITED, max_epochs=UNLIMITED, tol=tolerance, fit_intercept=False, ws_strategy="subdiff"
            )
            u = solver.solve(A, y, fit, penalty, u, A @ u)[0]
            blocks[kept] = np.array(u).reshape(-1, p, 1)
            return blocks, f"{int(np.any(blocks, axis=1).sum())} active blocks"

        return solve

    tiny = {"Phi": np.eye(2), "masks": np.ones((2, 1), bool), "Y": np.array([[1.0], [-1.0]]), "beta": np.array(0.1)}
    for loss in ("squared", "logistic"):
        set_up(tiny, {"loss": loss})(1e-3)
    return set_up, version("skglm")


if __name__ == "__main__":
    serve(load)
