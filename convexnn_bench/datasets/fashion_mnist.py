"""Fashion-MNIST: 70000 grey images of clothes, 28 x 28 pixels in ten classes.

The files are those of its authors.
"""

from convexnn_bench.datasets._images import IdxImages


class FashionMnist(IdxImages):
    __doc__ = IdxImages.__doc__

    name = "fashion_mnist"
    summary = "Fashion-MNIST, 28x28 images of clothes, from files that you have (FashionMNIST/raw)"
    title = "Fashion-MNIST"
    folder = "FashionMNIST/raw"
    files = {
        "train": {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        },
        "test": {
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    }
