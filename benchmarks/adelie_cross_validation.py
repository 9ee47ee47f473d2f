"""adelie's cv_grpnet on a gated network, in adelie's environment: benchmarks/cross_validation.py starts this script.

It reads X, y, X_test, gates, folds, penalties and seed from the first file (.npz), and writes the test scores, the
chosen penalty and the processor seconds of the cross-validation and the last fit into the second.
"""

import sys
import time

import adelie as ad
import numpy as np


def main(source: str, target: str) -> None:
    given = np.load(source)
    gates, width = given["gates"], len(given["gates"])

    def lifted(samples: np.ndarray) -> np.ndarray:
        """Return the rows of a gated network: the features of each open gate, side by side."""
        return np.asfortranarray(((samples @ gates >= 0)[:, :, None] * samples[:, None, :]).reshape(len(samples), -1))

    started = time.process_time()
    X, glm = lifted(given["X"]), ad.glm.binomial(y=given["y"])
    options = {
        "groups": np.arange(0, X.shape[1], width),
        "progress_bar": False,
        "lmda_path_size": int(given["penalties"]),
        "min_ratio": 1e-3,
    }
    curve = ad.cv.cv_grpnet(X=X, glm=glm, n_folds=int(given["folds"]), seed=int(given["seed"]), **options)
    state = curve.fit(X=X, glm=glm, **{key: value for key, value in options.items() if key != "min_ratio"})
    seconds = time.process_time() - started
    scores = lifted(given["X_test"]) @ np.ravel(state.betas[-1].toarray()) + float(state.intercepts[-1])
    np.savez(target, scores=scores, chosen=curve.lmdas[curve.best_idx], seconds=seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
