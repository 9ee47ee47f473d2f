"""Kinds of model files are recognised before torch is imported, and no code in them is run."""

import argparse
import json
import pickle
import subprocess
import sys
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import convexnn_bench as cnn
from convexnn_bench.cli import app
from convexnn_bench.cli.model_file import check_model_file


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def keras(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"x" * 100)


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", b"x" * 100)


def zeros(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\0" * 10_000_000)


def scripted(path):
    torch.jit.save(torch.jit.script(network()), path)


def truncated(path):
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


FILES = {
    "missing": (lambda path: None, "there is no file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "text": (lambda path: path.write_text("1,2,3\n"), "no file of torch.save, or damaged"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50)), "Keras"),
    "keras": (keras, "Keras model. Its biases have no weight decay"),
    "safetensors": (lambda path: path.write_bytes(b"\x40" + bytes(7) + b'{"a": {}}'), "safetensors file"),
    "npy": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(50)), "right order"),
    "npz": (lambda path: np.savez(path.open("wb"), X=np.ones(2)), "MODEL and DATA in the right order"),
    "another zip": (other_zip, "torch.save did not write"),
    "compressed zeros": (zeros, "claims to hold more than its size"),
    "TorchScript": (scripted, "TorchScript archive .*state_dict"),
    "truncated": (truncated, "damaged"),
    "whole module": (lambda path: torch.save(network(), path), "whole module .*Sequential.*state_dict"),
    "legacy module": (
        lambda path: torch.save(network(), path, _use_new_zipfile_serialization=False),
        "whole module .*Sequential",
    ),
    "module in a checkpoint": (lambda path: torch.save({"epoch": 1, "model": network()}, path), "whole module"),
    "arguments beside": (
        lambda path: torch.save({"model": network().state_dict(), "args": argparse.Namespace(lr=0.1)}, path),
        "object of argparse.Namespace",
    ),
    "another pickle": (lambda path: path.write_bytes(pickle.dumps(Fraction(1, 2))), "object of fractions.Fraction"),
    "a list": (lambda path: path.write_bytes(pickle.dumps([1, 2])), "damaged, or no file of torch.save"),
    "damaged pickle": (lambda path: path.write_bytes(b"\x80\x02\xff\xff"), "damaged"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_state_dict_is_refused_with_what_to_do(name, tmp_path):
    write, words = FILES[name]
    write(tmp_path / "model.pt")
    with pytest.raises(cnn.InputError, match=words) as caught:
        check_model_file(str(tmp_path / "model.pt"))
    said = str(caught.value)
    assert "\n" not in said
    # the relayed messages of torch advise this
    assert "weights_only=False" not in said
    assert "add_safe_globals" not in said


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_pass(zipped, protocol, tmp_path):
    content = {"model": network().state_dict(), "accuracy": np.float64(0.5), "epoch": 3}
    path = tmp_path / "model.pt"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    check_model_file(str(path))


@pytest.mark.process
def test_an_unreadable_file_is_refused_before_torch_is_imported(tmp_path):
    torch.save(network(), tmp_path / "model.pt")
    program = (
        "import sys\nfrom convexnn_bench.cli import app\n"
        "try:\n    app()\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )
    arguments = ["certify", str(tmp_path / "model.pt"), "data.npz", "--weight-decay", "0.1"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    assert "whole module" in done.stderr


def certify(*arguments):
    return CliRunner().invoke(app, ["certify", *map(str, arguments), "--weight-decay", "0.1", "--json"])


def test_options_choose_the_network_and_its_first_layer(tmp_path):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((5, 2)), rng.standard_normal((5, 2))
    np.savez(tmp_path / "data.npz", X=X, Y=Y)
    one, other = ({"a.weight": torch.randn(2, 2), "b.weight": torch.randn(2, 2)} for _ in range(2))
    torch.save({"model": one, "ema": other}, tmp_path / "model.pt")
    files = tmp_path / "model.pt", tmp_path / "data.npz"
    refused = certify(*files)
    assert refused.exit_code == 2
    assert "ema, model; name one of them with --key" in refused.stderr
    refused = certify(*files, "--key", "ema")
    assert refused.exit_code == 2
    assert "--first-layer" in refused.stderr
    answer = json.loads(certify(*files, "--key", "ema", "--first-layer", "b").output)
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    module.load_state_dict({"0.weight": other["b.weight"], "2.weight": other["a.weight"]})
    expected = cnn.certify_module(module, X, Y, weight_decay=0.1)
    assert (answer["primal"], answer["dual"]) == (expected.primal, expected.dual)


WORDS = "x,z,kind\n1,2,cat\n3,1,dog\n0,5,dog\n2,2,cat\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model of two inputs, a table of words and one of numbers with an id."""
    monkeypatch.chdir(tmp_path)
    torch.save(network().state_dict(), "model.pt")
    (tmp_path / "words.csv").write_text(WORDS)
    (tmp_path / "ids.csv").write_text("id,x,z,y\na7,1,2,1.5\na8,3,1,2.5\nb1,0,5,0.5\n")
    return tmp_path


def said(*arguments):
    answer = certify(*arguments)
    assert answer.exit_code == 2
    return answer.stderr


@pytest.mark.parametrize("data", ["words.csv", "file[path=ids.csv,drop=id]", "missing.csv", "arrays.npz"])
def test_arguments_in_the_wrong_order_are_recognised(folder, data):
    assert said(data, "model.pt") == (
        f"error: MODEL and DATA are in the wrong order: convexnn-bench certify model.pt {data}\n"
    )


def test_missing_files_and_other_suffixes_are_named_by_their_argument(folder):
    assert "error: DATA: there is no file 'missing.csv' (looked in " in said("model.pt", "missing.csv")
    assert "error: MODEL: there is no file 'missing.pt'" in said("missing.pt", "words.csv")
    (folder / "table.xlsx").write_bytes(b"PK")
    assert "error: DATA must end in .csv, .data" in said("model.pt", "table.xlsx")
    assert "no file of torch.save, or damaged" in said("words.csv", "ids.csv")


def test_words_under_a_loss_of_numbers_are_explained_in_flags(folder):
    text = said("model.pt", "words.csv")
    assert "the targets in DATA are words, such as 'cat', and --loss squared takes numbers" in text
    assert "--loss cross_entropy, or --loss logistic" in text
    assert "get_dummies" not in text
    assert "--loss huber takes numbers" in said("model.pt", "words.csv", "--loss", "huber[delta=0.5]")
    assert certify("model.pt", "words.csv", "--loss", "logistic").exit_code == 0


@pytest.mark.parametrize("drop", ["id", "[id]", "0", "'id'"])
def test_a_column_is_left_out(folder, drop):
    answer = certify("model.pt", f"file[path=ids.csv,drop={drop}]")
    assert answer.exit_code == 0, answer.stderr
    assert "Left out, as drop says: column 'id'." in answer.output
    assert "column 'id' holds words" in said("model.pt", "ids.csv")


def test_data_of_another_width_name_the_layer(folder):
    (folder / "wide.csv").write_text("x,z,w,y\n1,2,3,1.5\n3,1,4,2.5\n")
    assert "in_features=2" in said("model.pt", "wide.csv")
