"""Certify a gated network on sparse word counts, and print time and peak memory.

    OMP_NUM_THREADS=1 python benchmarks/sparse_text.py [--solver bm_newton] [--gap 1e-3] [--documents 100000]
        [--words 20000] [--gates 20] [--beta-fraction 0.05]

A seed draws the documents. Each has one of four topics; topics 0 and 3 are one class, and topics 1 and 2 the other. The
frequencies of words follow Zipf's law, and each topic multiplies them by random weights. A document has 20 different
words on average. X is log(1 + count) times the inverse document frequency, with rows of length one. As a dense float64
array it would take 8 n d bytes: 16 GB with 100 000 documents and 20 000 words.
"""

import argparse
import resource
import time

import numpy as np
import scipy.sparse

import convexnn_bench as cnn

DRAWS = 21  # number of words drawn for a document; of 20 000 words about 20 of them are different
TOPIC_STRENGTH = 1.0  # standard deviation of the logarithm of a topic's weights


def documents(n: int, words: int, seed: int) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """Return n documents as an n x words matrix, and their classes as words."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, 4, n)
    zipf = 1 / (10.0 + np.arange(words))
    indices = np.empty((n, DRAWS), dtype=np.int64)
    for topic in range(4):
        weights = zipf * np.exp(TOPIC_STRENGTH * rng.standard_normal(words))
        rows = topics == topic
        indices[rows] = rng.choice(words, size=(int(rows.sum()), DRAWS), p=weights / weights.sum())
    pointers = DRAWS * np.arange(n + 1)
    X = scipy.sparse.csr_array((np.ones(indices.size), indices.ravel(), pointers), shape=(n, words))
    X.sum_duplicates()
    frequency = np.bincount(X.indices, minlength=words)
    X.data = np.log1p(X.data) * np.log(n / np.maximum(frequency, 1))[X.indices]
    X.data /= np.repeat(np.sqrt(X.power(2).sum(axis=1)), np.diff(X.indptr))
    return X, np.where((topics == 0) | (topics == 3), "first", "second")


def peak_gb() -> float:
    """Return the peak of this process's resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--solver", default="bm_newton")
    parser.add_argument("--gap", type=float, default=1e-3)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--gates", type=int, default=20)
    parser.add_argument("--beta-fraction", type=float, default=0.05)
    parser.add_argument("--time-limit", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    X, labels = documents(chosen.documents, chosen.words, chosen.seed)
    filled = X.nnz / (X.shape[0] * X.shape[1])
    print(f"X: {X.shape[0]} x {X.shape[1]}, {X.nnz} numbers ({100 * filled:.3f} % filled); peak {peak_gb():.2f} GiB")
    started = time.perf_counter()
    problem = cnn.Problem(
        X, labels, loss="logistic", patterns=chosen.gates, beta_fraction=chosen.beta_fraction, seed=chosen.seed
    )
    print(f"{problem!r}: {time.perf_counter() - started:.2f} s; peak {peak_gb():.2f} GiB")
    result = cnn.solve(problem, chosen.solver, gap=chosen.gap, time_limit=chosen.time_limit, seed=chosen.seed)
    started = time.perf_counter()
    certificate = cnn.certify(problem, result)
    accuracy = float(np.mean(result.predict_labels(X) == labels))
    print(
        f"{chosen.solver}: {result.status}, set-up {result.setup_seconds:.2f} s, solve {result.solve_seconds:.2f} s, "
        f"one certificate and the predictions {time.perf_counter() - started:.2f} s"
    )
    print(f"objective {certificate.primal:.6f}, lower bound {certificate.dual:.6f}, certified gap {result.gap:.2e}")
    print(f"training accuracy {accuracy:.4f}, peak resident memory {peak_gb():.2f} GiB")


if __name__ == "__main__":
    main()
