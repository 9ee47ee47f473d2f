"""adelie (Yang & Hastie 2024), block coordinate descent for the group lasso; runs in adelie's environment."""

from importlib.metadata import version
from typing import Any

import numpy as np
from serve import SetUp, Solve, serve

UNLIMITED = 10**12  # coordinate descents, so that the tolerance alone decides


def load() -> tuple[SetUp, str]:
    """Import adelie, which minimises F(sum_k D_k Phi u_k) / n + (beta / n) sum_k ||u_k||, F squared or logistic."""
    import adelie as ad

    def set_up(data: dict[str, np.ndarray], parameters: dict[str, Any]) -> Solve:
        Phi, masks = np.asfortranarray(data["Phi"]), np.asfortranarray(data["masks"])
        y, (n, p), P, threads = data["Y"][:, 0], data["Phi"].shape, data["masks"].shape[1], parameters["threads"]
        matrix = ad.matrix.convex_relu(Phi, masks, gated=True, n_threads=threads)
        # our labels are -1 and 1, adelie's 0 and 1
        glm = ad.glm.gaussian(y) if parameters["loss"] == "squared" else ad.glm.binomial((y + 1) / 2)
        # The penalty of a group is one, as in our program: adelie's own default is the square root of the group's size.
        options = {
            "groups": np.arange(0, P * p, p),
            "penalty": np.ones(P),
            # The free output bias is not sent back, because the loss of the problem computes the best one.
            "intercept": parameters["intercept"],
            "early_exit": False,  # True stops once 90 % of the deviance is explained
            "max_iters": UNLIMITED,
            "n_threads": threads,
            "progress_bar": False,
        }
        # the first solve follows a path of betas from beta_max, which is adelie's usual way
        path, state = np.geomspace(parameters["highest"], float(data["beta"]), parameters["lambdas"]) / n, None

        def solve(tolerance: float) -> tuple[np.ndarray, str]:
            nonlocal path, state
            # adelie only refers to Phi and masks: this use keeps them alive in the closure
            assert Phi.shape[0] == masks.shape[0]
            state = ad.grpnet(
                matrix, glm, lmda_path=path, tol=tolerance, irls_tol=tolerance, warm_start=state, **options
            )
            if state.betas.shape[0] < len(path):
                raise RuntimeError(f"no solution: {state.error or 'the path was left early'}")
            # Later solves start at the last point, so that only the final beta is left of the path.
            path = path[-1:]
            return state.betas[-1].toarray().reshape(P, p, 1), f"{state.active_set_size} blocks in its active set"

        return solve

    return set_up, version("adelie")


if __name__ == "__main__":
    serve(load)
