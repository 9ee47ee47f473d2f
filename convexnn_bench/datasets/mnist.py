"""MNIST: 70000 handwritten digits of 28 x 28 pixels, from the files of its authors."""

from convexnn_bench.datasets._images import IdxImages


class Mnist(IdxImages):
    __doc__ = IdxImages.__doc__

    name = "mnist"
    summary = "MNIST, all 70000 digits, from files that you have (MNIST/raw); mnist5k ships with a package"
    title = "MNIST"
    folder = "MNIST/raw"
    files = {
        "train": {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        },
        "test": {
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    }
