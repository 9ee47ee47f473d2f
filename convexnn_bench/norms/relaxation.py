"""The doubly non-negative upper bound on max ||G^T u|| over a cone.

The maximum is over F u >= 0, ||u|| <= 1 (Sahiner et al., ICLR 2021).
"""

import numpy as np
from jaxtyping import Float

from convexnn_bench.cones import EPS
from convexnn_bench.deadline import time_is_up

SHARPNESSES = (30.0, 300.0, 3e3, 3e4, 3e5)  # t of the smoothed eigenvalue, one after the other
STEPS = 200  # quasi-Newton steps for each sharpness


def doubly_nonnegative_bound(F: Float[np.ndarray, "f p"], G: Float[np.ndarray, "p q"], steps: int = STEPS) -> float:
    """Return an upper bound on max ||G^T u|| over F u >= 0, ||u|| <= 1.

    For u in the cone and every N >= 0 elementwise, (F u)^T N (F u) >= 0, hence ||G^T u||^2 <= lambda_max(G G^T + F^T N
    F). N is symmetric, with zero diagonal because a diagonal only adds. The eigenvalue is smoothed, log tr exp(t A) / t
    with growing t, and minimised by a bounded quasi-Newton method, until a deadline. The bound at any N is rigorous,
    rounding included. If the cone has at most four facets it is exact, to the accuracy of the minimisation.
    """
    from scipy.optimize import minimize

    f, p = F.shape
    M = G @ G.T
    size = float(np.linalg.eigvalsh(M)[-1])
    plain = np.sqrt(size * (1 + 16 * sum(G.shape) * EPS)) if size > 0 else 0.0
    # With one row N is its diagonal alone, which cannot lower the eigenvalue.
    if f < 2 or not size > 0:
        return float(plain)
    M = M / size
    i, j = np.triu_indices(f, 1)

    def shifted(N: np.ndarray) -> np.ndarray:
        # The entries above the diagonal alone, and the transpose for those below it.
        upper = np.zeros((f, f))
        upper[i, j] = N
        half = F.T @ upper @ F
        return M + half + half.T

    def smoothed(N: np.ndarray, t: float) -> tuple[float, np.ndarray]:
        # log sum exp(t lambda_i) / t lies above lambda_max by at most log(p) / t. Its gradient in A is sum_i w_i v_i
        # v_i^T with softmax weights w; the largest eigenvalue is taken out against overflow.
        values, vectors = np.linalg.eigh(shifted(N))
        weights = np.exp(t * (values - values[-1]))
        total = weights.sum()
        slope = (vectors * (weights / total)) @ vectors.T
        return float(values[-1] + np.log(total) / t), 2.0 * (F @ slope @ F.T)[i, j]

    def stop_in_time(_: np.ndarray) -> None:
        if time_is_up():
            raise StopIteration  # SciPy then returns the last iterate

    N = np.zeros(len(i))
    best, chosen = 1.0, N
    for t in SHARPNESSES:
        if time_is_up():
            break
        found = minimize(
            smoothed,
            N,
            args=(t,),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, None)] * len(i),
            callback=stop_in_time,
            options={"maxiter": steps},
        )
        # The exact eigenvalue at any N >= 0 is a bound, wherever the minimisation ended.
        N = np.maximum(found.x, 0.0)
        value = float(np.linalg.eigvalsh(shifted(N))[-1])
        if value < best:
            best, chosen = value, N
    # The rounding of the sum over N and of the eigenvalue is at most eps times the size of the terms.
    mass = 1.0 + 2.0 * float(chosen.sum())
    raised = max(best, 0.0) + 32 * (p + G.shape[1] + len(i)) * EPS * mass
    return float(min(np.sqrt(size * raised) * (1 + 8 * EPS), plain))
