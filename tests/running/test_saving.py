"""Saved results and problems load with the same numbers, and errors explain files that cannot be used."""

import ast
import dataclasses
import json
import os
import pickle
import struct
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kept import CASES, MATRIX, bytes_of, check_kept, images, same, solved
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.losses import OutputBias
from convexnn_bench.storage import VERSION


@pytest.mark.parametrize("case", CASES)
def test_a_result_comes_back_from_its_file(case, tmp_path):
    result = solved(case)
    assert result.save(tmp_path / "r.npz") == tmp_path / "r.npz"
    again = cnn.load_result(tmp_path / "r.npz")
    check_kept(result, again)
    assert same(result.certificate.multiplier, again.certificate.multiplier)
    assert again.iterations == result.iterations
    assert bytes_of(result.point.dual) == bytes_of(again.point.dual)  # the point of a file has numpy arrays
    # every attribute of the problem that is not computed anew on first use
    assert set(result.problem.__getstate__()) - {"beta_max"} == set(again.problem.__getstate__()) - {"beta_max"}


def test_a_loaded_result_is_certified_again_to_the_bound_of_an_earlier_point(tmp_path):
    """A solver that is stopped early may have a better bound from a point before its last one."""
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((2, 6, 3, 2))
    model = {"architecture": "attention", "patterns": 4, "beta": 0.3, "output_bias": "free"}
    result = cnn.solve(cnn.Problem(X, Y, sample_weight=np.arange(6), **model), "bm_newton", iterations=3)
    bare = cnn.certify(result.problem, result.factors)
    assert bare.dual < 0.5 * result.certificate.dual  # the last point's own bound
    again = cnn.load_result(result.save(tmp_path / "r.npz"))
    for found in (cnn.certify(result.problem, result), cnn.certify(again.problem, again)):
        assert found.primal == result.objective
        assert found.dual == pytest.approx(result.certificate.dual, rel=1e-9)


@pytest.mark.parametrize("make", [lambda: images("relu", MATRIX), lambda: random_problem(1, patterns="all", d=2)])
def test_a_problem_comes_back_from_its_file(make, tmp_path):
    problem = make()
    again = cnn.load_problem(problem.save(str(tmp_path / "p.npz")))
    assert type(again) is cnn.Problem
    assert repr(again) == repr(problem)
    assert again.pattern_info.summary() == problem.pattern_info.summary()
    assert same(again.architecture, problem.architecture)
    Z = np.random.default_rng(0).standard_normal((problem.P, problem.p, problem.q))
    assert same(again.predict(Z), problem.predict(Z))
    assert again.beta_max == problem.beta_max


def test_the_file_is_plain_arrays_and_json(tmp_path):
    """Another program can read X, Y, masks and the header without a pickle."""
    problem = random_problem(2, "huber", "relu")
    problem.save(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert {"header", "X", "Y", "masks", "gates"} == set(arrays.files)
        assert same(arrays["X"], problem.X)
        head = json.loads(str(arrays["header"]))
    assert (head["format"], head["version"]) == ("convexnn-bench problem", VERSION)
    assert head["loss"] == {"name": "huber", "parameters": {"delta": 1.0}}
    assert (head["activation"]["name"], head["beta"], head["X"]) == ("relu", problem.beta, {"array": "X"})


def test_the_standard_library_alone_can_read_the_file(tmp_path):
    """A member is a zip entry: a header of Python literals, then the numbers in C order, or column by column."""
    problem = random_problem(2)
    problem.save(tmp_path / "p.npz")
    found = {}
    with zipfile.ZipFile(tmp_path / "p.npz") as archive:
        for name in ("header", "X", "masks"):
            content = archive.read(f"{name}.npy")
            assert content[:6] == b"\x93NUMPY"
            size = int.from_bytes(content[8:10], "little")
            found[name] = ast.literal_eval(content[10 : 10 + size].decode()), content[10 + size :]
    head = json.loads(found["header"][1].decode("utf-32-le"))
    assert head["beta"] == problem.beta
    about, numbers = found["X"]
    assert about == {"descr": "<f8", "fortran_order": False, "shape": problem.X.shape}
    assert struct.unpack(f"<{problem.X.size}d", numbers) == tuple(problem.X.ravel())
    about, bits = found["masks"]
    assert (about["descr"], about["shape"]) == ("|b1", problem.masks.shape)
    order = "F" if about["fortran_order"] else "C"
    assert list(bits) == problem.masks.ravel(order).astype(int).tolist()


CERTIFIES = """
import pickle, sys
import torch
torch.set_num_threads(1)
import convexnn_bench as cnn
for name in sys.argv[1:]:
    result = cnn.load_result(name) if name.endswith(".npz") else pickle.load(open(name, "rb"))
    proven = cnn.certify(result.problem, result)
    print(proven.primal.hex(), proven.dual.hex(), proven.max_dual_norm.hex(), result.problem.beta_max.hex())
"""


@pytest.mark.process
def test_another_process_proves_the_same_numbers(tmp_path):
    """Objective, bound and norms agree in every bit, from the file and from the pickle, for cones and for images."""
    names, expected = [], []
    for case in ("split", "pooled images", "sequences"):
        result = solved(case)
        names += [str(result.save(tmp_path / f"{case}.npz")), str(tmp_path / f"{case}.pickle")]
        (tmp_path / f"{case}.pickle").write_bytes(pickle.dumps(result))
        proven = cnn.certify(result.problem, result)
        numbers = (proven.primal, proven.dual, proven.max_dual_norm, result.problem.beta_max)
        expected += [" ".join(number.hex() for number in numbers)] * 2
    done = subprocess.run([sys.executable, "-c", CERTIFIES, *names], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected


def test_results_without_certificate_and_odd_values(tmp_path):
    skipped = cnn.solve(random_problem(1), "column_generation")
    again = cnn.load_result(skipped.save(tmp_path / "r.npz"))
    assert (again.status, again.reason) == ("skipped", skipped.reason)
    assert again.point is None
    assert again.certificate is None
    assert np.isnan(again.objective)
    assert np.isnan(again.setup_seconds)
    assert again.curve == []
    skipped.parameters = {"m": None, "tolerance": float("inf"), "sizes": (1, [2, "three"]), "tuple": np.float64(0.1)}
    assert cnn.load_result(skipped.save(tmp_path / "r.npz")).parameters == skipped.parameters
    skipped.parameters = {"call": print}
    with pytest.raises(cnn.InputError, match=r"parameters.call cannot be saved.*builtin_function"):
        skipped.save(tmp_path / "r.npz")
    assert cnn.load_result(tmp_path / "r.npz").parameters["m"] is None  # the file is still the one before


@pytest.mark.parametrize("beta", [None, 0.1])
def test_a_loss_with_an_output_bias(beta, tmp_path):
    base = random_problem(1)
    problem = cnn.Problem(base.X, base.Y, loss=OutputBias(cnn.Huber(0.5), beta), beta=0.1, patterns=3)
    again = cnn.load_problem(problem.save(tmp_path / "p.npz"))
    assert (again.loss.name, again.loss.beta, again.loss.loss.delta) == (problem.loss.name, beta, 0.5)
    Z = np.ones((problem.P, problem.p, problem.q))
    assert same(cnn.certify(problem, Z), cnn.certify(again, Z))


@pytest.mark.parametrize("labels", [["cat", "dog", "cat"], [True, False, True], [3, 7, 7], ["é", "", "NaN"]])
def test_classes_and_notes(labels, tmp_path):
    problem = cnn.Problem(np.eye(3), labels, loss="cross_entropy", beta=0.1)
    again = cnn.load_problem(problem.save(tmp_path / "p.npz"))
    assert again.classes == problem.classes
    assert [type(label) for label in again.classes] == [type(label) for label in problem.classes]
    assert again.notes == problem.notes


def test_a_count_of_thousands_of_digits(tmp_path):
    """Python refuses to write so long a number as decimal text."""
    problem = random_problem(1)
    problem.__dict__["pattern_info"] = dataclasses.replace(problem.pattern_info, count=3**20000)
    assert cnn.load_problem(problem.save(tmp_path / "p.npz")).pattern_info.count == 3**20000


# -- classes of the user ----------------------------------------------------------------------------------

LOSS = """
from convexnn_bench.losses import Squared

class Weighted(Squared):
    name = {name!r}

    def __init__(self, factor=1.0, offsets=(0.0,)):
        self.factor, self.offsets = {kept}
"""


@pytest.fixture
def registered(tmp_path):
    """A folder with a loss of the user's, registered for the time of one test."""
    registry, before = cnn.LOSSES, (dict(cnn.LOSSES.classes), list(cnn.LOSSES._folders))

    def add(name, kept="factor, offsets"):
        folder = tmp_path / f"losses_{name}"
        folder.mkdir()
        (folder / f"{name}.py").write_text(LOSS.format(name=name, kept=kept))
        registry.add_folder(folder)

    yield add
    registry._classes, registry._folders = dict(before[0]), list(before[1])


def test_a_loss_of_the_users_own(registered, tmp_path):
    registered("weighted")
    loss = cnn.LOSSES.make("weighted", factor=2.5, offsets=(1.0, 2.0))
    problem = cnn.Problem(np.eye(3), np.ones(3), loss=loss, beta=0.1)
    file = problem.save(tmp_path / "p.npz")
    again = cnn.load_problem(file)
    assert type(again.loss) is type(loss)
    assert (again.loss.factor, again.loss.offsets) == (2.5, (1.0, 2.0))
    cnn.LOSSES.classes.pop("weighted")
    with pytest.raises(cnn.UnknownNameError, match=r"p.npz: unknown loss 'weighted'.*must be registered.*add_folder"):
        cnn.load_problem(file)


def test_parameters_that_a_class_does_not_keep(registered, tmp_path):
    registered("forgetful", "2 * factor, offsets")
    problem = cnn.Problem(np.eye(3), np.ones(3), loss="forgetful", beta=0.1)
    with pytest.raises(
        cnn.InputError, match="the loss 'forgetful' cannot be saved: it does not keep the argument 'fac"
    ):
        problem.save(tmp_path / "p.npz")
    assert os.listdir(tmp_path) == ["losses_forgetful"]


def test_a_class_that_is_not_registered(tmp_path):
    class Mine(cnn.Squared):
        name = "squared"

    class Bags(cnn.MLP):
        name = "my_bags"

    for arguments, words in (
        ({"loss": Mine()}, r"the loss Mine cannot be saved.*not registered.*cnn.LOSSES.add_folder"),
        ({"architecture": Bags()}, r"the architecture Bags cannot be saved.*cnn.ARCHITECTURES.add_folder"),
    ):
        problem = cnn.Problem(np.eye(3), np.ones(3), beta=0.1, **arguments)
        with pytest.raises(cnn.InputError, match=words):
            problem.save(tmp_path / "p.npz")


# -- files that cannot be used ----------------------------------------------------------------------------


def changed(source, target, head=None, **arrays):
    """Write a copy of an archive with other entries of the header and other arrays; None leaves an array out."""
    with np.load(source) as old:
        members = {name: old[name] for name in old.files}
    kept = json.loads(str(members.pop("header"))) | (head or {})
    members = {name: array for name, array in (members | arrays).items() if array is not None}
    np.savez(target, header=np.array(json.dumps(kept)), **members)
    return target


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A problem and a result in files."""
    folder = tmp_path_factory.mktemp("saved")
    problem = random_problem(1)
    cnn.solve(problem, "bm_gd", iterations=1).save(folder / "r.npz")
    problem.save(folder / "p.npz")
    return folder


def test_a_later_version_says_so(saved, tmp_path):
    later = changed(saved / "p.npz", tmp_path / "p.npz", {"version": VERSION + 1})
    with pytest.raises(cnn.InputError, match=rf"later version.*format {VERSION + 1}.*up to {VERSION}\): upgrade"):
        cnn.load_problem(later)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head": {"format": "convexnn-bench sculpture"}}, "holds a sculpture, and no saved problem"),
        ({"X": None}, "it lacks 'X'"),
        ({"X": np.ones((3, 3))}, "no problem that can be used.*masks must be an N x P bool array with N = 3"),
        ({"X": np.full((9, 3), np.nan)}, "27 NaN"),
        ({"X": np.ones(9)}, "X must be a non-empty array of shape n x d"),
        ({"Y": np.ones((8, 2))}, "X has 9 samples but Y has 8 rows"),
        ({"Y": np.ones(9)}, "no problem that can be used"),
        ({"masks": np.ones((9, 4))}, "masks must be an N x P bool array"),
        ({"gates": np.ones((2, 4))}, "gates must be p x P = 3 x 4"),
        ({"head": {"beta": -1.0}}, "beta must be a positive finite number, got -1.0"),
        ({"head": {"loss": {"name": "huber", "parameters": {"delta": -2}}}}, "delta must be .* got -2"),
        ({"head": {"loss": {"name": "huber", "parameters": {"epsilon": 2}}}}, "no parameter 'epsilon'"),
        ({"head": {"loss": {"name": "hubert", "parameters": {}}}}, "did you mean 'huber'"),
        ({"head": {"activation": 3}}, "no problem that can be used"),
    ],
)
def test_contents_that_do_not_fit(change, words, saved, tmp_path):
    with pytest.raises(cnn.InputError, match=words):
        cnn.load_problem(changed(saved / "p.npz", tmp_path / "p.npz", **change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"point.factors.0": np.ones((2, 3, 1))}, None),
        ({"point.factors.0": np.full((4, 3, 2), np.inf)}, "NaN or infinite"),
        ({"curve": np.ones((2, 2))}, "cannot be read as a saved result"),
        ({"head": {"point": {"wings": 2}}}, "cannot be read as a saved result.*wings"),
        ({"head": {"certificate": {"primal": 1.0}}}, "cannot be read as a saved result.*dual"),
        ({"problem.X": None}, "it lacks 'problem.X'"),
        ({"head": {"problem": None}}, "cannot be read as a saved result"),
    ],
)
def test_results_that_do_not_fit(change, words, saved, tmp_path):
    file = changed(saved / "r.npz", tmp_path / "r.npz", **change)
    if words is None:  # factors are checked where they are used
        with pytest.raises(cnn.InputError, match="factors must be U"):
            cnn.certify(cnn.load_result(file).problem, cnn.load_result(file))
        return
    with pytest.raises(cnn.InputError, match=words):
        cnn.load_result(file)


def test_other_and_damaged_files(saved, tmp_path):
    with pytest.raises(cnn.InputError, match=r"r.npz holds a result, and no saved problem"):
        cnn.load_problem(saved / "r.npz")
    with pytest.raises(cnn.InputError, match=r"p.npz holds a problem, and no saved result"):
        cnn.load_result(saved / "p.npz")
    with pytest.raises(FileNotFoundError):
        cnn.load_problem(tmp_path / "nothing.npz")
    plain, text, pickled = tmp_path / "plain.npz", tmp_path / "text.npz", tmp_path / "pickled.npz"
    np.savez(plain, X=np.eye(2), Y=np.ones(2))
    text.write_text("x,y\n1,2\n")
    np.savez(pickled, header=np.array([print], dtype=object))
    whole = (saved / "p.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    for name in ("plain", "text", "pickled", "half", "flipped"):
        with pytest.raises(cnn.InputError, match=rf"{name}.npz cannot be read as a saved problem: "):
            cnn.load_problem(tmp_path / f"{name}.npz")
    with pytest.raises(cnn.InputError, match=r"text.npz .*; problem.save writes such files"):
        cnn.load_problem(text)


def test_an_array_that_claims_to_be_huge_is_not_allocated(saved, tmp_path):
    """A header of some bytes that states 10^15 numbers."""
    target = tmp_path / "p.npz"
    with zipfile.ZipFile(saved / "p.npz") as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "X.npy":
                content = content.replace(b"(9, 3), }" + 15 * b" ", b"(9, 333333333333333), }" + b" ")
                assert b"333333333" in content
            new.writestr(name, content)
    with pytest.raises(cnn.InputError, match=r"X\.npy is no array of the size that it states"):
        cnn.load_problem(target)


def test_two_threads_that_save_to_one_file_leave_a_whole_one(tmp_path):
    """The file is one of the two problems, after every one of several rounds."""
    problems = [random_problem(seed) for seed in (1, 2)]
    gate = threading.Barrier(2)

    def save(problem):
        gate.wait()
        problem.save(tmp_path / "p.npz")

    for _ in range(5):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(save, problems))
        assert cnn.load_problem(tmp_path / "p.npz").beta in [problem.beta for problem in problems]
        assert os.listdir(tmp_path) == ["p.npz"]


def test_a_write_that_fails_leaves_the_file_before_it(saved, tmp_path, monkeypatch):
    target = tmp_path / "p.npz"
    target.write_bytes((saved / "p.npz").read_bytes())
    before = target.read_bytes()

    def full(stream, **arrays):
        stream.write(b"a part of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match=r"No space left on device: .*p\.npz"):
        random_problem(2).save(target)
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["p.npz"]
    with pytest.raises(FileNotFoundError):
        random_problem(2).save(tmp_path / "no" / "such" / "folder.npz")
