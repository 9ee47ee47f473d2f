"""The errors that say why a torch module is not read as a two-layer network."""

from convexnn_bench.errors import UnsupportedError

SUPPORTED = (
    "supported are [Flatten,] Linear, [ReLU,] Linear; Conv2d, [ReLU,] [a linear pooling,] Flatten, Linear; and "
    "convexnn_bench.AttentionBlock"
)
ACTIVATIONS = ("tanh", "gelu", "elu", "selu", "silu", "mish", "leaky_relu", "softplus", "hardtanh", "relu6", "celu")
# Reasons by the file of torch.nn.modules that a layer comes from.
WHY_NOT = {
    "activation": "an activation with which the network has no convex program of this kind; ReLU or none has",
    "pooling": "a pooling that is not linear, or not over two axes; AvgPool2d and AdaptiveAvgPool2d are read",
    "rnn": "a recurrent layer, whose weights act more than once",
    "sparse": "an embedding; give one-hot rows to a Linear layer without bias instead",
}


def refuse(what: str) -> UnsupportedError:
    """Return the error that says what the module is or has, and which modules are read."""
    return UnsupportedError(f"the module {what}; {SUPPORTED}")


def normalised(where: str) -> UnsupportedError:
    """Return the error for a normalisation of each sample."""
    return refuse(
        f"has {where}, a normalisation of each sample (such as LayerNorm), with which the outputs of the hidden "
        "neurons are no function of this kind"
    )


def batch_normalised(where: str) -> UnsupportedError:
    """Return the error for a batch normalisation."""
    return refuse(
        f"has {where}, a batch normalisation (BatchNorm): it rescales while the network is trained, so that "
        "weight decay acts on other weights than those that predict, which is no problem of this kind. Folded into its "
        "Linear layer (fold_batch_norm=True, or torch.nn.utils.fusion.fuse_linear_bn_eval) the network can be "
        "certified, but by the objective with decay on the folded weights, on which it was not trained"
    )


def random_objective(where: str) -> UnsupportedError:
    """Return the error for dropout."""
    return refuse(
        f"has {where}: with dropout it was trained on another, random objective. To judge its "
        "weights by the objective without dropout all the same, set p = 0"
    )
