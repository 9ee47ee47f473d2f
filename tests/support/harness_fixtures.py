"""Cells for the tests of the harness; the registry of solvers is put back as it was afterwards."""

import contextlib

import bad_solvers
import worse_solvers

from convexnn_bench.harness.cell import Cell, Limits
from convexnn_bench.harness.cell_run import run_cell
from convexnn_bench.plugins.registry import SOLVERS


@contextlib.contextmanager
def solvers_from(folder, *names):
    """A folder of misbehaving solvers, registered inside the block only."""
    before = dict(SOLVERS.classes), list(SOLVERS._folders)
    bad_solvers.write_solvers(folder, *(name for name in names if name in bad_solvers.BODIES))
    path = worse_solvers.write_worse(folder, *(name for name in names if name not in bad_solvers.BODIES))
    try:
        SOLVERS.add_folder(path)
        yield path
    finally:
        SOLVERS._classes, SOLVERS._folders = before


def killed_while(stage, solver, solvers_dir):
    """(record, deadline) of a cell that is killed in a stage; a busy machine needs a later deadline to come to it."""
    for deadline in (3.0, 15.0, 75.0):
        record = run_cell(spiral_cell(solver, solvers_dir, deadline=deadline))
        if record["reason"].endswith(f"while: {stage}"):
            break
    return record, deadline


def spiral_cell(solver, solvers_dir=None, n=9, **limits):
    """A cell on a tiny spiral."""
    own = {"n": n, "noise": 0.1, "targets": "one_hot", "seed": 0}
    return Cell(
        "spiral",
        own,
        {},
        solver,
        {key: values[0] for key, values in SOLVERS.get(solver).parameters.items()},
        limits=Limits(**{"time_limit": 60.0, "deadline": 300.0, **limits}),
        solvers_dir=solvers_dir,
    )
