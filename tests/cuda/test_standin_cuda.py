"""The stand-in for a GPU: it refuses what CUDA refuses, counts what waits, and computes what the CPU does."""

import copy

import numpy as np
import pytest
import torch
from problems import random_problem
from standin_tensor import StandIn

HOST = torch.arange(6.0, dtype=torch.float64).view(2, 3)


@pytest.fixture
def device(traffic):
    """HOST on the device."""
    made = HOST.to("cuda")
    traffic.notes.clear()
    return made


MIXED = {
    "add": lambda x: x + HOST,
    "add on the host": lambda x: HOST + x,
    "matmul": lambda x: x @ HOST.T,
    "in place": lambda x: x.add_(HOST),
    "in place on the host": lambda x: HOST.clone().add_(x),
    "a device number in place on the host": lambda x: HOST.clone().mul_(x[0, 0]),
    "a device number with a host matrix": lambda x: x.sum() * HOST,
    "where": lambda x: torch.where(x > 0, x, HOST),
    "cat": lambda x: torch.cat([x, HOST]),
    "stack of a number": lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
    "addmm": lambda x: x.T.contiguous().addmm_(HOST.T, x.new_zeros(2, 2)),
    "index of the host": lambda x: HOST[x[0].long() % 2],
    "out": lambda x: torch.add(x, x, out=torch.zeros(2, 3, dtype=x.dtype)),
    "vjp": lambda x: torch.func.vjp(lambda at: at * HOST, x),
}


@pytest.mark.parametrize("what", MIXED)
def test_host_and_device_do_not_mix(device, what):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        MIXED[what](device)


def test_what_cuda_lets_through(device, traffic):
    """Numbers, host tensors of one number, and host indices."""
    assert torch.equal((device * torch.tensor(2.0) + 1).cpu(), HOST * 2 + 1)
    assert torch.equal(device[torch.tensor([1, 0])].cpu(), HOST[[1, 0]])
    device[0, 1] = 7.0
    device[torch.tensor([1])] = -1.0
    assert device.tolist() == [[0, 7, 2], [-1, -1, -1]]
    assert traffic.count("to_device") == 2


@pytest.mark.parametrize("call", [np.asarray, lambda x: x.numpy(), lambda x: x.detach().numpy()])
def test_no_numpy(device, call):
    with pytest.raises(TypeError, match=r"can't convert cuda:0 device type tensor to numpy"):
        call(device)


def test_what_only_a_cpu_can(device):
    generator = torch.Generator().manual_seed(0)
    for draw in (
        lambda: torch.randn(3, generator=generator, device="cuda"),
        lambda: device.normal_(generator=generator),
    ):
        with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
            draw()
    with pytest.raises(RuntimeError, match="not implemented"):
        device.long() @ device.long().T
    with pytest.raises(RuntimeError, match="gels"):
        torch.linalg.lstsq(device, device, driver="gelsd")


COUNTED = {
    "item": (lambda x: x.sum().item(), {"wait": 1}),
    "float": (lambda x: float(x.sum()), {"wait": 1}),
    "bool": (lambda x: bool((x > 0).all()), {"wait": 1}),
    "branch": (lambda x: 1 if x.sum() > 0 else 0, {"wait": 1}),
    "tolist": (lambda x: x.tolist(), {"wait": 1}),
    "equal": (lambda x: torch.equal(x, x + 1), {"wait": 1}),
    "nonzero": (lambda x: torch.nonzero(x), {"wait": 1}),
    "unique": (lambda x: torch.unique(x), {"wait": 1}),
    "mask as index": (lambda x: x[x > 0], {"wait": 1}),
    "mask assigned by": (lambda x: x.__setitem__(x > 0, x[0, 0].expand(5)), {"wait": 1}),
    "eigh": (lambda x: torch.linalg.eigh(x @ x.T), {"wait": 1}),
    "svdvals": (lambda x: torch.linalg.svdvals(x), {"wait": 1}),
    "solve": (lambda x: torch.linalg.solve(x[:, :2], x), {"wait": 1}),
    "cholesky_ex": (lambda x: torch.linalg.cholesky_ex(x @ x.T), {}),
    "cpu": (lambda x: x.cpu(), {"to_host": 1}),
    "to": (lambda x: x.to("cpu", torch.float32), {"to_host": 1}),
    "copied to the host": (lambda x: torch.zeros(2, 3).copy_(x), {"to_host": 1}),
    "copied from the host": (lambda x: x.copy_(HOST), {"to_device": 1}),
    "made of numbers": (lambda x: torch.tensor([1.0], device="cuda"), {"to_device": 1}),
    "made of an array": (lambda x: torch.as_tensor(np.ones(2), device=x.device), {"to_device": 1}),
    "moved": (lambda x: HOST.to(x), {"to_device": 1}),
    "there already": (lambda x: torch.as_tensor(x, device="cuda").to("cuda"), {}),
    "zeros": (lambda x: torch.zeros(2, device="cuda") + x.new_ones(2) + torch.zeros_like(x)[:, :2], {}),
    "arithmetic": (lambda x: (2 * x @ x.T).clamp_min(0).sum().sqrt(), {}),
    "any order": (lambda x: x.index_add_(0, x[0].long() % 2, x.new_ones(3, 3)), {"any_order": 1}),
    "synchronize": (lambda x: torch.cuda.synchronize(), {"synchronize": 1}),
}


@pytest.mark.parametrize("what", COUNTED)
def test_counts(device, traffic, what):
    call, expected = COUNTED[what]
    call(device)
    assert {kind: traffic.count(kind) for kind, _, _ in traffic.notes} == expected


def test_a_transfer_is_laid_to_its_line(traffic):
    random_problem().operator("cuda")
    lines = set(traffic.lines("to_device"))
    assert {line.rpartition("/")[0] for line in lines} == {"convexnn_bench/operator"}
    assert len(lines) >= 2  # masks and data
    assert all(line.endswith("as_tensor") for line in lines)


def test_views_share_memory_and_copies_do_not(device):
    view, copied, there = device[1], device.to("cuda", copy=True), device.to("cuda")
    version = device._version
    view.mul_(2)
    assert device._version > version
    assert there is device
    assert device.tolist() == [[0, 1, 2], [6, 8, 10]]
    assert copied.tolist() == HOST.tolist()
    out = torch.zeros_like(device)
    assert torch.add(device, 1, out=out) is out
    assert out.tolist() == [[1, 2, 3], [7, 9, 11]]
    assert HOST[1].tolist() == [3, 4, 5]


def test_everything_says_where_it_is(device):
    made = [device, device[0], device.T @ device, torch.eye(2, device="cuda"), torch.zeros_like(device), device > 0]
    assert all(isinstance(tensor, StandIn) and tensor.is_cuda and str(tensor.device) == "cuda:0" for tensor in made)
    assert device.cpu().device.type == "cpu"
    inside = []
    torch.func.vjp(lambda at: inside.append(at.device.type) or at.sum(), device)
    assert inside == ["cuda"]


def f(x, y):
    """A scalar through views, indices, products and a mask."""
    h = (x @ y).clamp_min(0.3)
    return (h[:, torch.arange(2, device=h.device)] * h.T[0][:, None]).square().sum() + torch.linalg.vector_norm(x)


def test_derivatives(traffic):
    x, y = torch.rand(3, 4, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)
    found = []
    for at in ("cpu", "cuda"):
        own = [tensor.clone().to(at).requires_grad_(True) for tensor in (x, y)]
        first = torch.autograd.grad(f(*own), own)
        f(*own).backward()
        pulled = torch.func.vjp(f, x.to(at), y.to(at))[1](torch.ones((), dtype=torch.float64, device=at))
        jacobian = torch.func.jacrev(lambda x: (x @ x.T).sin().sum(0))(x.to(at))
        mapped = torch.vmap(lambda row: row.outer(row[:2]))(y.T.to(at))
        found.append([*first, *(tensor.grad for tensor in own), *pulled, jacobian, mapped])
    for host, device in zip(*found, strict=True):
        assert device.is_cuda
        assert torch.equal(host, device.cpu())


def test_modules_move_and_are_trained(traffic):
    torch.manual_seed(0)
    host = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).double()
    device = copy.deepcopy(host).to("cuda")
    for module in (host, device):
        optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            module(HOST.to(next(module.parameters()).device)).square().sum().backward()
            optimiser.step()
    assert all(parameter.is_cuda for parameter in device.parameters())
    for own, other in zip(host.parameters(), copy.deepcopy(device).cpu().parameters(), strict=True):
        assert torch.equal(own, other)
