"""Shared by all tests: one thread a process (two processes run side by side), shapes checked, and fixtures."""

import gc

import jaxtyping
import pytest
import shape_checks
import torch

jaxtyping.jaxtyped = shape_checks.jaxtyped  # before the package is imported, whose functions it decorates

from problems import combinations  # noqa: E402

torch.set_num_threads(1)
gc.set_threshold(20_000, 20, 20)  # 700 objects are soon made where every array is one


def pytest_collection_modifyitems(items):
    """Refuse names of tests that differ from process to process, with which pytest-xdist would run no test."""
    moving = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if moving:
        raise pytest.UsageError(f"give these tests ids without addresses: {', '.join(moving)}")


def pytest_collection_finish():
    """Hide modules and tests from the collector, which would look through half a million objects each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=combinations(), ids=lambda pair: "-".join(pair))
def combination(request):
    """(loss, activation)."""
    return request.param


@pytest.fixture
def traffic(monkeypatch):
    """A stand-in for a GPU (tests/support/standin_cuda.py), and its count of transfers between host and device."""
    from standin_cuda import standing_in  # few tests need it

    with standing_in(monkeypatch) as counted:
        yield counted


@pytest.fixture(params=["stand-in", "real"])
def cuda(request):
    """Relative accuracy to ask for of what a solver computes with device="cuda": on a stand-in, and on a GPU."""
    if request.param == "real":
        if not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device on this machine")
        return 1e-6
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device, on which the same test runs")
    request.getfixturevalue("traffic")
    return 1e-9
