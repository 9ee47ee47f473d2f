"""celer (Massias, Gramfort & Salmon 2018), working sets with dual extrapolation for the group lasso."""

from importlib.metadata import version
from typing import Any

import numpy as np
from serve import SetUp, Solve, serve

UNLIMITED = 10**6  # outer iterations and epochs, so that the tolerance alone decides


def load() -> tuple[SetUp, str]:
    """Import celer, which minimises ||A u - y||^2 / (2 n) + alpha sum_k ||u_k||, A = [D_1 Phi ... D_P Phi]."""
    from celer import GroupLasso

    def set_up(data: dict[str, np.ndarray], parameters: dict[str, Any]) -> Solve:
        Phi, masks, y = data["Phi"], data["masks"], data["Y"][:, 0]
        (n, p), P = Phi.shape, masks.shape[1]
        A = np.asfortranarray((masks[:, :, None] * Phi[:, None, :]).reshape(n, P * p))
        model = GroupLasso(
            groups=p, alpha=float(data["beta"]) / n, fit_intercept=False, max_iter=UNLIMITED, max_epochs=UNLIMITED,
            warm_start=True,
        )  # fmt: skip

        def solve(tolerance: float) -> tuple[np.ndarray, str]:
            model.set_params(tol=tolerance).fit(A, y)
            blocks = np.asarray(model.coef_).reshape(P, p, 1)
            return blocks, f"{int(np.any(blocks, axis=1).sum())} active blocks"

        return solve

    return set_up, version("celer")


if __name__ == "__main__":
    serve(load)
