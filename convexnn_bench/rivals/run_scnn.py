"""scnn (Mishkin, Sahiner & Pilanci, ICML 2022), R-FISTA for gated ReLU networks; runs in scnn's environment."""

from importlib.metadata import version
from typing import Any

import numpy as np
from serve import SetUp, Solve, serve


def load() -> tuple[SetUp, str]:
    """Import scnn, which minimises 1/(2n) ||sum_k D_k Phi u_k - Y||^2 + (beta / n) sum_k ||u_k||."""
    import lab
    from scnn.metrics import Metrics
    from scnn.models import ConvexGatedReLU
    from scnn.private import interface
    from scnn.private.models import ConvexMLP
    from scnn.regularizers import NeuronGL1
    from scnn.solvers import RFISTA

    def set_up(data: dict[str, np.ndarray], parameters: dict[str, Any]) -> Solve:
        """Take the steps of scnn.optimize.optimize_model, with the masks of the problem in their order.

        scnn itself makes masks from gate vectors, sorts them, and drops repeated and empty ones. R-FISTA does not use
        the gate vectors otherwise.
        """
        (n, p), P = data["Phi"].shape, data["masks"].shape[1]
        logger = interface.get_logger("scnn")
        interface.set_device("cpu", "float64")
        train, test, _ = interface.process_data(data["Phi"], data["Y"], None, None, unitize_data=False)
        # The gate vectors are zeros, because the masks are given and nothing else reads them.
        masks, gates = lab.all_to_tensor((data["masks"].astype(float), np.zeros((p, P))), dtype=lab.get_dtype())
        penalty, metrics = NeuronGL1(float(data["beta"]) / n), Metrics()
        regularizer = interface.build_internal_regularizer(penalty)
        model = ConvexMLP(p, masks, gates, "einsum", regularizer=regularizer, c=1)
        public = ConvexGatedReLU(np.zeros((p, P)))
        optimiser = RFISTA(public, max_iters=parameters["max_iters"])
        procedure = interface.build_optimizer(optimiser, penalty, metrics)

        def solve(tolerance: float) -> tuple[np.ndarray, str]:
            nonlocal model
            # The next call goes on from the last model, with the tolerance alone changed.
            procedure.term_criterion.tol = tolerance  # on the squared norm of the smallest subgradient
            status, model, _ = procedure(
                logger, model, lambda start: start, train, test, interface.build_metrics_tuple(metrics)
            )
            ended = "" if status["success"] else ", short of its tolerance"
            return model.weights[0][:, :, None], f"{status['iterations']} iterations{ended}"

        return solve

    return set_up, version("pyscnn")


if __name__ == "__main__":
    serve(load)
