"""Compact matrices against the dense matrices that they stand for: products, derivatives, rows, magnitudes."""

import numpy as np
import pytest
import scipy.sparse
import torch

from convexnn_bench.errors import InputError
from convexnn_bench.operator import compact, data_matrix


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.fixture(params=["sparse", "float32"])
def pair(request, monkeypatch):
    """A compact matrix with an empty row, and the dense one."""
    dense = np.where(np.random.default_rng(0).random((9, 5)) < 0.5, drawn(9, 5).numpy(), 0.0)
    dense[4] = 0.0
    if request.param == "sparse":
        return data_matrix(scipy.sparse.csr_array(dense)), torch.as_tensor(dense)
    monkeypatch.setattr(compact, "PART_NUMBERS", 10)  # two rows at a time
    single = dense.astype(np.float32)
    return data_matrix(single), torch.as_tensor(single).double()


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_products_and_their_derivatives(pair):
    X, dense = pair
    W, B = drawn(5, 3).requires_grad_(), drawn(9, 3).requires_grad_()
    close(X @ W, dense @ W)
    close(X.T @ B, dense.T @ B)
    close(torch.autograd.grad((X @ W * B).sum(), W)[0], dense.T @ B)
    close(torch.autograd.grad((X.T @ B * W).sum(), B)[0], dense @ W)
    # Functional transforms, and second derivatives, which are linear in the direction.
    close(torch.func.vjp(lambda V: X @ V, W.detach())[1](B.detach())[0], (dense.T @ B).detach())
    assert torch.autograd.gradcheck(lambda V: (X @ V).square(), W)
    assert torch.autograd.gradgradcheck(lambda V: (X @ V).square(), W)


def test_strided_factors(pair):
    X, dense = pair
    close(X @ drawn(3, 5).T, dense @ drawn(3, 5).T)
    close(X.T @ drawn(9, 6)[:, ::2], dense.T @ drawn(9, 6)[:, ::2])


@pytest.mark.parametrize("rows", [slice(0, 4), slice(3, 9), slice(6, 40), slice(5, 5), torch.tensor([8, 0, 4, 4])])
def test_rows(pair, rows):
    X, dense = pair
    assert len(X[rows]) == len(dense[rows])
    close(X[rows] @ drawn(5, 2), dense[rows] @ drawn(5, 2))
    close(X[rows].T @ drawn(len(dense[rows]), 2), dense[rows].T @ drawn(len(dense[rows]), 2))


def test_a_slice_of_rows_shares_the_numbers(pair):
    X, _ = pair
    assert np.shares_memory(X[2:7].stored().numpy(), X.stored().numpy())


def test_magnitudes_and_the_weighted_gram_matrix(pair):
    X, dense = pair
    close(X.abs() @ drawn(5, 2), dense.abs() @ drawn(5, 2))
    close(X.abs()[2:].T @ drawn(7, 2), dense.abs()[2:].T @ drawn(7, 2))
    assert float(X.abs().amax()) == float(dense.abs().amax())
    weights = drawn(9).square()
    gram = dense.T @ (weights[:, None] * dense)
    found = X.gram(weights)
    close(found, gram.diagonal() if found.ndim == 1 else gram)


def test_dense_data_of_the_dtype_are_not_copied():
    single = np.ones((3, 2), dtype=np.float32)
    assert np.shares_memory(data_matrix(single, torch.float32).numpy(), single)
    assert np.shares_memory(data_matrix(single).stored().numpy(), single)
    shared = np.ones((3, 2))
    assert np.shares_memory(data_matrix(shared).numpy(), shared)


def test_sparse_data_on_another_device_are_refused():
    with pytest.raises(InputError, match="on the CPU only"):
        data_matrix(scipy.sparse.csr_array(np.eye(2)), device="cuda")
