"""CIFAR-10, MNIST and Fashion-MNIST from tiny files in the exact formats: found, verified, read, refused."""

import gzip
import hashlib
import io
import os
import pickle
import struct

import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.datasets._image_files import read_batch, read_idx
from convexnn_bench.datasets.cifar10 import Cifar10
from convexnn_bench.layerwise.experiment import load_split
from convexnn_bench.plugins.registry import DATASETS

IDX = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder for data; the user's cache is another empty one."""
    monkeypatch.setenv("CONVEXNN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def idx(array):
    """An IDX file of unsigned bytes (magic number 0, 0, 8, dimensions; sizes; numbers, all big-endian)."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder, counts=(12, 6), packed=True):
    """The four files of an MNIST; returns {split: (images, labels)}."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, made = np.random.default_rng(0), {}
    for split, prefix, count in (("train", "train", counts[0]), ("test", "t10k", counts[1])):
        images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        made[split] = images, labels
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name, content = f"{prefix}-{kind}-ubyte", idx(array)
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return made


class Python2(pickle._Pickler):
    """Writes all strings as Python 2 did: opcodes U (one byte of length) and T (four)."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin1")
        short = len(data) < 256
        self.write(b"U" + struct.pack("<B", len(data)) if short else b"T" + struct.pack("<i", len(data)))
        self.write(data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def pickled(content):
    """Protocol 2, with numpy's module under the name that it had then."""
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_cifar(root, per_batch=4):
    """Six batches as the authors have them: rows of 3072 numbers, a list of labels."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    draw, made = np.random.default_rng(1), {}
    for name in Cifar10.names():
        pixels = draw.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        labels = [int(label) for label in draw.integers(0, 10, per_batch)]
        made[name] = pixels, labels
        content = {b"batch_label": b"a batch", b"labels": labels, b"data": pixels, b"filenames": [b"x.png"] * per_batch}
        (folder / name).write_bytes(pickled(content))
    return made


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", IDX)
def test_idx_images_and_labels(root, name, packed):
    made = write_idx(root / IDX[name], packed=packed)
    for split, (images, labels) in made.items():
        data = DATASETS.get(name)(split=split, verify=False).data()
        np.testing.assert_array_equal(data.X, images.reshape(len(images), -1) / 255.0)
        np.testing.assert_array_equal(data.Y.argmax(axis=1), labels)
    image = DATASETS.get(name)(layout="image", pool=2, classes=3, verify=False).data()
    kept = made["train"][1] < 3
    expected = made["train"][0][kept].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255.0
    np.testing.assert_allclose(image.X, expected[:, None], rtol=1e-14)


def test_cifar_batches(root):
    made = write_cifar(root)
    data = DATASETS.get("cifar10")(layout="image", verify=False).data()
    pixels = np.concatenate([made[name][0] for name in Cifar10.names()[:5]])
    labels = np.concatenate([made[name][1] for name in Cifar10.names()[:5]])
    np.testing.assert_array_equal(data.X, pixels.reshape(-1, 3, 32, 32) / 255.0)  # red, green, blue planes
    np.testing.assert_array_equal(data.Y.argmax(axis=1), labels)
    test = DATASETS.get("cifar10")(split="test", verify=False).data()
    np.testing.assert_array_equal(test.X, made["test_batch"][0] / 255.0)
    pooled = DATASETS.get("cifar10")(split="test", layout="image", pool=4, verify=False).data().X
    expected = made["test_batch"][0].reshape(-1, 3, 8, 4, 8, 4).mean(axis=(3, 5)) / 255.0
    np.testing.assert_allclose(pooled, expected, rtol=1e-14)


def test_a_problem_is_made_and_solved_from_such_files(root):
    write_cifar(root)
    problem = cnn.make_problem("cifar10[split=test,pool=8,classes=10,verify=false]", patterns=3, beta_fraction=0.3)
    assert (problem.X.shape, problem.loss.name) == ((4, 48), "cross_entropy")
    assert cnn.solve(problem, "bm_newton", gap=1e-4, time_limit=600).certificate.gap <= 1e-4


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist"])
def test_absent_files_are_named_with_the_place_to_put_them(root, name):
    reason = DATASETS.get(name).unavailable()
    folder = IDX.get(name, "cifar-10-batches-py")
    assert str(root / folder) in reason
    assert str(root.parent / "cache" / "convexnn-bench" / folder) in reason
    for file in DATASETS.get(name).names():
        assert file in reason
    with pytest.raises(cnn.InputError, match="is not available: needs the files of"):
        cnn.make_problem(name)


def test_the_user_s_cache_is_looked_in_too(root, monkeypatch):
    write_idx(root.parent / "cache" / "convexnn-bench" / "MNIST" / "raw")
    assert DATASETS.get("mnist").unavailable() is None
    monkeypatch.delenv("CONVEXNN_DATA")
    assert DATASETS.get("mnist")(verify=False).data().X.shape == (12, 784)


def test_files_that_were_not_published_are_refused_by_their_checksum(root, monkeypatch):
    write_cifar(root)
    with pytest.raises(cnn.InputError, match=r"data_batch_1 is not the file that was published: its md5 is .*verify"):
        DATASETS.get("cifar10")().data()
    actual = {}
    for name in Cifar10.names():
        actual[name] = hashlib.md5((root / "cifar-10-batches-py" / name).read_bytes()).hexdigest()
    own = {split: {name: actual[name] for name in names} for split, names in Cifar10.files.items()}
    monkeypatch.setattr(Cifar10, "files", own)
    assert DATASETS.get("cifar10")().data().X.shape == (20, 3072)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_nothing_in_a_pickle_is_run(root, monkeypatch):
    monkeypatch.chdir(root)
    write_cifar(root)
    path = root / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickled({b"data": Evil(), b"labels": [0]}))
    with pytest.raises(cnn.InputError, match=r"is not a CIFAR-10 batch: it holds \w+.system, and only numpy arrays"):
        DATASETS.get("cifar10")(split="test", verify=False).data()
    assert not (root / "pwned").exists()


def big_memo(index):
    """A pickle that asks for a memo of 2^32 entries, and one that takes from an empty stack."""
    return b"\x80\x02}r" + struct.pack("<I", index) + b"."


def test_damaged_batches_are_refused(root):
    write_cifar(root)
    path = root / "cifar-10-batches-py" / "test_batch"
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    damaged = [b"", b"0.", b"\x80\x02.", b"\x80\x02h\x07.", big_memo(2**32 - 1), whole[:-100], whole[:40]]
    for _ in range(60):  # the opcodes stand before and after the pixels
        content = bytearray(whole)
        for place in draw.integers(0, 200, 3):
            content[place] = draw.integers(256)
        damaged.append(bytes(content))
    changed = {b"data": np.zeros((2, 3072), dtype=np.uint8), b"labels": [3, 10]}
    for content in (changed, {**changed, b"labels": [0]}, {**changed, b"data": np.zeros((2, 3072))}, [1, 2], {}):
        damaged.append(pickled(content))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            images, labels = read_batch(path)
        except cnn.InputError:
            refused += 1
        else:  # a byte of a pixel or of a name
            assert images.shape == (4, 3, 32, 32)
            assert labels.max() < 10
    assert refused >= 30


@pytest.mark.parametrize(
    "content",
    [b"", b"no", idx(np.zeros((3, 28, 28)))[:-1], b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00\x00\x00\x00", b"\x01" * 40],
)
def test_what_is_no_idx_file_is_refused(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(cnn.InputError, match="is not an IDX file"):
        read_idx(path)
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress(idx(np.zeros((2, 2))))[:-6])
    with pytest.raises(cnn.InputError, match="is not an IDX file"):
        read_idx(packed)


def test_labels_that_do_not_go_with_the_images(root):
    write_idx(root / "MNIST" / "raw")
    (root / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(5))))
    with pytest.raises(cnn.InputError, match=r"images of shape \(12, 28, 28\) do not go with \(5,\) labels"):
        DATASETS.get("mnist")(verify=False).data()


def test_records_know_when_the_files_change(root):
    write_idx(root / "MNIST" / "raw")
    before = DATASETS.get("mnist")().fingerprint()
    write_idx(root / "MNIST" / "raw", counts=(13, 6))
    assert before is not None
    assert DATASETS.get("mnist")().fingerprint() != before


def test_files_that_are_lacking_beside_others_are_named(root):
    folder = root / IDX["mnist"]
    write_idx(folder)
    assert DATASETS.get("mnist").unavailable() is None
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    words = DATASETS.get("mnist").unavailable()
    assert words == f"needs t10k-images-idx3-ubyte.gz of MNIST beside the files that are in {folder} already"


def test_layerwise_training_takes_some_training_images_and_the_whole_test_part(root):
    made = write_idx(root / IDX["mnist"], counts=(30, 6))
    (X, Y), (test_X, test_Y) = load_split("mnist[n=25,verify=false]")
    assert (X.shape, Y.shape, test_X.shape) == ((25, 1, 28, 28), (25, 10), (6, 1, 28, 28))
    assert (test_Y.argmax(axis=1) == made["test"][1]).all()
    with pytest.raises(cnn.InputError, match="split cannot be chosen here"):
        load_split("mnist[split=test,verify=false]")
