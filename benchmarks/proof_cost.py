"""What a proof costs: time to make and to check it, and its size, beside the float64 certificate of the same point.

    python benchmarks/proof_cost.py [--repeat 3]

The sizes (n, features, outputs, blocks) are a spiral with all gates, breast_cancer with 50 sampled ones, and a
teacher with 500. Every figure is the median of the repetitions, in CPU seconds of one process. The checker runs in this
process, reading the problem file included.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import convexnn_bench as cnn

PROBLEMS = {
    "(150, 2, 3, 300)": {"name": "spiral", "n": 150, "patterns": "all", "beta_fraction": 0.05},
    "(569, 31, 1, 50)": {"name": "breast_cancer", "patterns": 50, "loss": "logistic", "beta_fraction": 0.02},
    "(2000, 50, 1, 500)": {"name": "teacher", "n": 2000, "d": 50, "patterns": 500, "beta_fraction": 0.1},
}


def seconds(function, repeat):
    """Return the median CPU time of a function, and its last value."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        value = function()
        times.append(time.process_time() - start)
    return median(times), value


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeat", type=int, default=3)
    repeat = options.parse_args().repeat
    print(f"{'(n, d, c, P)':20}{'certify':>9}{'prove':>9}{'check':>9}{'size':>9}{'float gap':>11}{'proven gap':>11}")
    for name, arguments in PROBLEMS.items():
        problem = cnn.make_problem(**arguments)
        result = cnn.solve(problem, "bm_newton", gap=1e-10, time_limit=60)
        float_time, certificate = seconds(lambda p=problem, r=result: cnn.certify(p, r), repeat)
        prove_time, proof = seconds(lambda p=problem, r=result: cnn.prove(p, r), repeat)
        with tempfile.TemporaryDirectory() as folder:
            files = proof.save(Path(folder) / "proof.json.gz"), problem.save(Path(folder) / "problem.npz")
            check_time, _ = seconds(lambda f=files: cnn.check_proof(*f), repeat)
            size = files[0].stat().st_size
        print(
            f"{name:20}{float_time:9.3f}{prove_time:9.3f}{check_time:9.3f}{size / 1024:7.0f}kB"
            f"{certificate.gap:11.1e}{float(proof.gap):11.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
