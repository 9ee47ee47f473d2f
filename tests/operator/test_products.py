"""Every way of forming products against its dense twin, the (n_out c) x (P p q) matrix of A: one suite for all."""

import numpy as np
import pytest
import scipy.sparse
import torch

import convexnn_bench as cnn
from convexnn_bench.operator import chunks, compact, data
from convexnn_bench.operator.lifted import Operator
from convexnn_bench.operator.products.hidden_units import HiddenUnits
from convexnn_bench.operator.products.linear_map import LinearMap
from convexnn_bench.operator.products.mask_matrix import MaskMatrix
from convexnn_bench.operator.products.pooled import PooledRows


def dense_twin(problem) -> torch.Tensor:
    """A by its definition: C(D_k Phi E) for every matrix unit E of every block."""
    X, Phi = torch.as_tensor(problem.X), torch.as_tensor(np.asarray(problem.Phi))
    columns = []
    for mask in torch.as_tensor(problem.masks).T:
        for unit in torch.eye(problem.p * problem.q, dtype=torch.float64):
            M = mask[:, None] * (Phi @ unit.view(problem.p, problem.q))
            columns.append(problem.architecture.second_layer(M, X, problem.c).reshape(-1))
    return torch.stack(columns, dim=1)


def close(one, other):
    torch.testing.assert_close(one, other.reshape(one.shape), rtol=1e-11, atol=1e-11)


class ProductsSuite:
    """What holds for every way; a subclass names the way and a problem that takes it."""

    way: type

    def make(self, rng) -> cnn.Problem:
        raise TypeError("a suite names its problem")

    @pytest.fixture
    def problem(self):
        return self.make(np.random.default_rng(0))

    @pytest.fixture
    def operator(self, problem):
        return Operator(problem.architecture, problem.X, problem.Y, problem.masks)

    @pytest.fixture
    def twin(self, problem):
        return dense_twin(problem)

    @staticmethod
    def drawn(*shape):
        return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)

    def test_the_problem_takes_this_way(self, operator):
        assert type(operator.products) is self.way

    @pytest.mark.parametrize("numbers", [16, chunks.CHUNK_ELEMENTS])
    def test_products_with_blocks(self, operator, twin, monkeypatch, numbers):
        monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", numbers)
        Z, L = self.drawn(operator.P, operator.p, operator.q), self.drawn(operator.n_out, operator.c)
        close(operator.apply(Z), twin @ Z.reshape(-1))
        close(operator.adjoint(L), twin.T @ L.reshape(-1))

    @pytest.mark.parametrize("numbers", [16, chunks.CHUNK_ELEMENTS])
    @pytest.mark.parametrize("through_blocks", [None, True, False])
    @pytest.mark.parametrize("m", [1, 2, 7])
    def test_factored_form(self, operator, twin, monkeypatch, m, through_blocks, numbers):
        monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", numbers)
        monkeypatch.setattr(chunks, "SMALLEST_PART", 3)
        monkeypatch.setattr(chunks, "PART_ELEMENTS", numbers)
        for way in (HiddenUnits, MaskMatrix, PooledRows) if through_blocks is not None else ():
            monkeypatch.setattr(way, "through_blocks", lambda *_: through_blocks)
        U, V = self.drawn(operator.P, operator.p, m), self.drawn(operator.P, operator.q, m)
        L = self.drawn(operator.n_out, operator.c)
        expected, G = twin @ (U @ V.mT).reshape(-1), (twin.T @ L.reshape(-1)).view(operator.P, operator.p, operator.q)
        z, pullback = operator.factored(U, V)
        left, right = pullback(L)
        H = operator.hidden(U)
        for found in (z, operator.apply_factors(U, V), operator.combine(H, V)):
            close(found, expected)
        for found in ((left, right), operator.factor_gradients(H, L, V)):
            close(found[0], G @ V)
            close(found[1], G.mT @ U)

    def test_images(self, operator, twin):
        owner = torch.tensor([operator.P - 1, 0, operator.P // 2, 0])
        E = self.drawn(4, operator.p, operator.q)
        parts = twin.view(-1, operator.P, operator.p * operator.q)[:, owner]  # rows x r x pq
        close(operator.images(E, owner), torch.einsum("irs,rs->ir", parts, E.flatten(1)))

    def test_some_blocks(self, operator, twin):
        blocks = torch.tensor([operator.P - 1, 0, 0])
        part, L = operator.on_blocks(blocks), self.drawn(operator.n_out, operator.c)
        Z = self.drawn(3, operator.p, operator.q)
        columns = twin.view(len(twin), operator.P, -1)[:, blocks].flatten(1)
        close(part.apply(Z), columns @ Z.reshape(-1))
        close(part.adjoint(L), columns.T @ L.reshape(-1))

    def test_some_samples(self, problem, operator, twin):
        n = problem.X.shape[0]
        few = n // 2
        part = operator.restricted(*(slice(0, rows // n * few) for rows in (n, operator.N, operator.n_out)))
        Z = self.drawn(operator.P, operator.p, operator.q)
        close(part.apply(Z), (twin @ Z.reshape(-1))[: len(twin) // n * few])


class TestMaskMatrix(ProductsSuite):
    way = MaskMatrix

    def make(self, rng):
        return cnn.Problem(rng.standard_normal((11, 4)), rng.standard_normal((11, 2)), beta=0.1, patterns=6)


class TestMaskMatrixBehindASecondLayer(ProductsSuite):
    way = MaskMatrix

    def make(self, rng):
        X, Y = rng.standard_normal((6, 2, 3, 3)), rng.standard_normal((6, 2))
        return cnn.Problem(X, Y, cnn.CNN(patch=2, pool="identity", bias=True), beta=0.1, patterns=4)


class TestHiddenUnits(ProductsSuite):
    way = HiddenUnits

    def make(self, rng):
        X, Y = rng.standard_normal((6, 3, 2)), rng.standard_normal((6, 3, 2))
        return cnn.Problem(X, Y, cnn.Attention(), beta=0.1, patterns=4)


class TestHiddenUnitsWithoutMasks(ProductsSuite):
    way = HiddenUnits

    def make(self, rng):
        return cnn.Problem(rng.standard_normal((11, 4)), rng.standard_normal((11, 2)), activation="linear", beta=0.1)


class TestHiddenUnitsOfSparseData(ProductsSuite):
    way = HiddenUnits

    def make(self, rng):
        X = scipy.sparse.random_array((11, 4), density=0.4, rng=rng, data_sampler=rng.standard_normal)
        return cnn.Problem(X, rng.standard_normal((11, 2)), beta=0.1, patterns=6)

    @pytest.fixture
    def twin(self, problem):
        dense = cnn.Problem(problem.X.toarray(), problem.Y, beta=0.1, patterns=problem.masks)
        return dense_twin(dense)


class TestHiddenUnitsOfFloat32Data(ProductsSuite):
    way = HiddenUnits

    @pytest.fixture(autouse=True)
    def _large(self, monkeypatch):
        """Let the data count as large, and convert two rows at a time."""
        monkeypatch.setattr(data, "fits", lambda numbers: False)
        monkeypatch.setattr(compact, "PART_NUMBERS", 8)

    def make(self, rng):
        X = rng.standard_normal((11, 4)).astype(np.float32)
        return cnn.Problem(X, rng.standard_normal((11, 2)), beta=0.1, patterns=6)

    @pytest.fixture
    def twin(self, problem):
        dense = cnn.Problem(problem.X.astype(np.float64), problem.Y, beta=0.1, patterns=problem.masks)
        return dense_twin(dense)


class TestPooledRows(ProductsSuite):
    way = PooledRows

    def make(self, rng):
        X, Y = rng.standard_normal((6, 1, 5, 5)), rng.standard_normal((6, 3))
        return cnn.Problem(X, Y, cnn.CNN(patch=2, pool=2), beta=0.1, patterns=4)


class TestLinearMap(ProductsSuite):
    way = LinearMap

    def make(self, rng):
        X, Y = rng.standard_normal((6, 3, 2)), rng.standard_normal((6, 3, 2))
        return cnn.Problem(X, Y, cnn.Attention(), "linear", beta=0.1)


class TestLinearMapThatPools(ProductsSuite):
    way = LinearMap

    def make(self, rng):
        X, Y = rng.standard_normal((6, 1, 4, 4)), rng.standard_normal((6, 3))
        return cnn.Problem(X, Y, cnn.CNN(patch=2, pool="global"), "linear", beta=0.1)
