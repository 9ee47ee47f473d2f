"""What verified bounds and proofs cost: times, the checker's memory and the size of the file, beside the certificate.

    python benchmarks/proof_cost.py [--repeat 3] [PROBLEM ...]

The sizes (n, features, outputs, blocks) are a spiral with all gates, breast_cancer with 50 sampled ones, a teacher with
500, digits with 20, and a ReLU network for breast_cancer, whose bound holds over all patterns. Times are CPU seconds,
medians of the repetitions. `certify`, `verified` (certify with verified=True) and `prove` run in this process. `check`
is the program verify_proof.py in a process of its own, with its start and the reading of both files.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import convexnn_bench as cnn

CHECKER = Path(__file__).resolve().parents[1] / "verify_proof.py"
PROBLEMS = {
    "(150, 2, 3, 300)": {"name": "spiral", "n": 150, "patterns": "all", "beta_fraction": 0.05},
    "(569, 31, 1, 50)": {"name": "breast_cancer", "patterns": 50, "loss": "logistic", "beta_fraction": 0.02},
    "(2000, 50, 1, 500)": {"name": "teacher", "n": 2000, "d": 50, "patterns": 500, "beta_fraction": 0.1},
    "digits": {"name": "digits", "patterns": 20, "loss": "cross_entropy", "beta_fraction": 0.1},
    "network": {
        "name": "breast_cancer", "activation": "relu", "patterns": 5, "loss": "logistic", "beta_fraction": 0.02,
    },
}  # fmt: skip


def seconds(function, repeat):
    """Return the median CPU time of a function, and its last value."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        value = function()
        times.append(time.process_time() - start)
    return median(times), value


def run_checker(files):
    """Return (CPU seconds, MiB, what it printed) of the checker in a process of its own."""
    # The peak of a process that was forked counts the memory of its parent, but VmHWM begins anew with each program.
    report = (
        "import re, runpy, sys, time; program, *sys.argv[1:] = sys.argv[1:];"
        "runpy.run_path(program, run_name='__main__');"
        "peak = re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1];"
        "print(time.process_time(), int(peak) / 1024, file=sys.stderr)"
    )
    command = [sys.executable, "-I", "-S", "-c", report, str(CHECKER), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds_used, peak = map(float, done.stderr.split())
    return seconds_used, peak, done.stdout


def solved(name, problem):
    """Return a good point of the problem."""
    if name == "network":
        return cnn.solve(problem, "network_lbfgs", iterations=300, time_limit=600)
    return cnn.solve(problem, "bm_newton", gap=1e-10, time_limit=600)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("problems", nargs="*", choices=[[], *PROBLEMS], metavar="PROBLEM", help=", ".join(PROBLEMS))
    chosen = options.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python "
        f"{platform.python_version()}"
    )
    print(f"{'(n, d, c, P)':20}{'certify':>9}{'verified':>9}{'prove':>9}{'check':>9}{'memory':>9}{'size':>9}"
          f"{'float gap':>11}{'verified':>11}{'proven':>11}")  # fmt: skip
    for name in chosen.problems or PROBLEMS:
        problem = cnn.make_problem(**PROBLEMS[name])
        result = solved(name, problem)
        float_time, certificate = seconds(lambda p=problem, r=result: cnn.certify(p, r), chosen.repeat)
        # The verified bound of a ReLU network is that of its proof, and takes as long.
        verified_time, verified = (float("nan"), None) if name == "network" else seconds(
            lambda p=problem, r=result: cnn.certify(p, r, verified=True), chosen.repeat)  # fmt: skip
        prove_time, proof = seconds(lambda p=problem, r=result: cnn.prove(p, r), 1)
        with tempfile.TemporaryDirectory() as folder:
            files = proof.save(Path(folder) / "proof.json.gz"), problem.save(Path(folder) / "problem.npz")
            check_time, memory, printed = run_checker(files)
            size = files[0].stat().st_size
        gaps = certificate.gap, float("nan") if verified is None else verified.gap, float(proof.gap)
        print(f"{name:20}{float_time:9.4f}{verified_time:9.4f}{prove_time:9.2f}{check_time:9.2f}{memory:6.0f}MiB"
              f"{size / 1024:7.0f}kB" + "".join(f"{gap:11.1e}" for gap in gaps), flush=True)  # fmt: skip
        if name == "network":
            print(f"\nWhat the checker prints:\n\n{printed}")


if __name__ == "__main__":
    main()
