"""Files that an attacker has made by hand: every one that is not what it seems is refused."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest

import convexnn_bench as cnn


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Return the members of a problem file and the content of its proof."""
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    problem = cnn.Problem(X, Y, beta=0.3, patterns=3, sample_weight=rng.uniform(1, 2, 6))
    proof = cnn.prove(problem, cnn.solve(problem, "bm_newton", iterations=20))
    file = problem.save(tmp_path_factory.mktemp("honest") / "problem.npz")
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}, proof.content


def npy(values, **options):
    raw = io.BytesIO()
    np.lib.format.write_array(raw, np.asarray(values), **options)
    return raw.getvalue()


def header(members, **changes):
    """Return the header of a problem file with some fields changed."""
    stated = json.loads(str(np.load(io.BytesIO(members["header.npy"]))))
    return npy(np.array(json.dumps({**stated, **changes})))


def loss_with(weights=None, **parameters):
    inner = {"name": "squared", "parameters": parameters}
    return {"name": "with sample weights", "parameters": {"loss": inner, "weights": weights}}


def refusal(tmp_path, members, content):
    """Write both files, and return why the checker refuses them."""
    with zipfile.ZipFile(tmp_path / "problem.npz", "w") as archive:
        for name, raw in members if isinstance(members, list) else members.items():
            archive.writestr(name, raw)
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "proof.json.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(cnn.ProofError) as refused:
        cnn.check_proof(tmp_path / "proof.json.gz", tmp_path / "problem.npz")
    return str(refused.value)


def test_the_honest_files_pass(honest, tmp_path):
    members, content = honest
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refusal(tmp_path, members, content)


X = np.random.default_rng(4).standard_normal((6, 2))
MEMBERS = {
    "entries in another order": ({"X.npy": npy(np.asfortranarray(X))}, "C order"),
    "numbers of another type": ({"X.npy": npy(X.astype(">f8"))}, "f8"),
    "integers": ({"Y.npy": npy(np.ones((6, 2), dtype=np.int64))}, "i8"),
    "an array that is longer than its shape": ({"X.npy": npy(X) + b"\0" * 8}, "C order"),
    "not a number": ({"X.npy": npy(np.full((6, 2), np.nan))}, "NaN"),
    "infinity": ({"Y.npy": npy(np.full((6, 2), np.inf))}, "Infinity"),
    "no samples": ({"X.npy": npy(X[:0]), "Y.npy": npy(X[:0])}, ""),
    "fewer rows": ({"X.npy": npy(X[:5])}, "fit together"),
    "a sparse mask": ({"masks.npy": npy(np.ones((6, 3)) * 0.5)}, "masks 0 or 1"),
    "masks of no block": ({"masks.npy": npy(np.ones((6, 0), dtype=bool))}, "these arrays"),
    "a program in the header of an array": ({"X.npy": b"\x93NUMPY\x01\x00\x10\x00__import__('os')"}, "malformed"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_arrays_that_are_not_what_they_seem_are_refused(honest, name, tmp_path):
    changes, message = MEMBERS[name]
    assert message in refusal(tmp_path, {**honest[0], **changes}, honest[1])


def test_names_that_stand_twice_are_refused(honest, tmp_path):
    members, content = honest
    other = npy(np.zeros((6, 2)))
    with pytest.warns(UserWarning, match="Duplicate name"):
        assert "is there once" in refusal(tmp_path, [*members.items(), ("X.npy", other)], content)
    # np.load calls both of them X.
    assert "is there once" in refusal(tmp_path, [*members.items(), ("X", other)], content)


HEADERS = {
    "a negative weight decay": ({"beta": -0.3}, "beta > 0"),
    "no weight decay": ({"beta": 0.0}, "beta > 0"),
    "a weight decay that is no number": ({"beta": float("nan")}, "as Python writes"),
    "an infinite weight decay": ({"beta": float("inf")}, "as Python writes"),
    "a field of a later version": ({"dropout": 0.5}, "fields of the problem"),
    "another version": ({"version": 2}, "PROBLEM is a problem"),
    "a parameter that nobody reads": ({"activation": {"name": "gated_relu", "parameters": {"slope": 0.1}}}, "known"),
    "an unknown activation": ({"activation": {"name": "tanh", "parameters": {}}}, "tanh"),
    "a linear network with masks": ({"activation": {"name": "linear", "parameters": {}}}, "all rows are active"),
    "targets that do not fit the loss": ({"loss": loss_with({"array": "Y"})}, "fit together"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_state_another_problem_are_refused(honest, name, tmp_path):
    members, content = honest
    changes, message = HEADERS[name]
    assert message in refusal(tmp_path, {**members, "header.npy": header(members, **changes)}, content)


def test_negative_weights_are_refused(honest, tmp_path):
    members, content = honest
    (name,) = (name for name in members if "weights" in name)
    assert "weights >= 0" in refusal(tmp_path, {**members, name: npy(-np.ones(6))}, content)


CONTENTS = {
    "an infinite length of the multiplier": lambda c: c["multiplier"].update(scale=float("inf")),
    "a fraction": lambda c: c["multiplier"].update(scale=0.5),
    "text": lambda c: c["multiplier"].update(scale="3"),
    "a negative number of bits": lambda c: c["multiplier"].update(bits=-1),
    "a row too many": lambda c: c["multiplier"]["rows"].append([0, 0]),
    "a column too many": lambda c: [row.append(0) for row in c["multiplier"]["rows"]],
    "a bound that is no number": lambda c: c.update(bound="NaN"),
    "a bound that is a program": lambda c: c.update(bound={"__reduce__": 1}),
    "a gap without an objective": lambda c: c.update(primal=None),
    "neurons in no block": lambda c: c["point"].update(blocks=[99] * len(c["point"]["blocks"])),
    "neurons in blocks from the end": lambda c: c["point"].update(blocks=[-1] * len(c["point"]["blocks"])),
    "fewer neurons than blocks": lambda c: c["point"].update(first=c["point"]["first"][:1]),
    "a bias where there is none": lambda c: c["point"].update(bias=[1, 0]),
    "a bias that is too long": lambda c: c["point"].update(bias=[0, 0, 1]),
    "an argument of a function": lambda c: c["point"].update(every_mask=True),
    "all masks of a gated network": lambda c: c.update(masks="rule"),
    "masks in a list": lambda c: c.update(masks=["listed"]),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_proofs_of_another_form_are_refused(honest, name, tmp_path):
    members, content = honest
    forged = json.loads(json.dumps(content))
    CONTENTS[name](forged)
    assert refusal(tmp_path, members, forged)


def test_of_a_name_that_stands_twice_the_checker_states_what_it_has_checked(honest, tmp_path):
    members, content = honest
    text = json.dumps(content)
    forged = f'{{"bound": "1e9", {text[1:]}'  # a reader sees the first one
    with zipfile.ZipFile(tmp_path / "problem.npz", "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    (tmp_path / "proof.json.gz").write_bytes(gzip.compress(forged.encode()))
    assert content["bound"] in cnn.check_proof(tmp_path / "proof.json.gz", tmp_path / "problem.npz")


def test_numbers_of_any_size_end_in_an_answer(honest, tmp_path):
    members, content = honest
    text = json.dumps({**content, "gap": "1e-9"}).replace('"1e-9"', '"1e-99999"')
    assert "gap |bound|" in refusal(tmp_path, members, text)
    digits = json.dumps({**content, "bound": "BIG"}).replace('"BIG"', "9" * 5000)
    assert "4300 digits" in refusal(tmp_path, members, digits)
    assert "recursion" in refusal(tmp_path, members, "[" * 100_000)
