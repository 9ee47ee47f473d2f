"""The training problem: an instance with its objectives.

Three formulations of one problem (Sahiner et al., ICLR 2024), all sums over samples, never means:

    convex           min_Z     F(A(Z)) + beta sum_k ||Z_k||_k                                (eqs. 2, 3, 6)
    Burer-Monteiro   min_{U,V} F(A(U V^T)) + beta/2 sum_k (||U_k||_F^2 + ||V_k||_F^2)        (eqs. 19-21)
    network          min_W     F(C(phi(Phi W1) W2^T)) + beta/2 (||W1||_F^2 + ||W2||_F^2)     (eq. 1)
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from convexnn_bench.checks import Array
from convexnn_bench.formulations import burer_monteiro, convex, network
from convexnn_bench.instance import Instance
from convexnn_bench.instance_file import instance_from, instance_tree
from convexnn_bench.storage import read_archive, write_archive

BlockArray = Array | Sequence[Array]


class Problem(Instance):
    """Train a two-layer network with weight decay, with its activation patterns fixed.

    Parameters
    ----------
    X : array
        Data: n x d for the MLP, n x channels x h x w for the CNN, n x tokens x features for attention. The data are
        copied as float64 and are not normalised. For the MLP with linear or gated activation, sparse matrices of SciPy
        stay sparse, and float32 arrays of more than 2^24 numbers stay float32.
    Y : array
        Targets: n or n x c, also n x tokens x c for attention. Squared and Huber loss take numbers. One column under
        cross-entropy, logistic and squared hinge loss holds labels of any kind: words, booleans, whole numbers.
    architecture, activation, loss : str or instance
        A registered name, or an instance such as ``cnn.Huber(delta=0.5)``.
    beta : float, optional
        Weight decay > 0. It multiplies half the squared norms of the weights (or the sum of block norms).
    patterns : "all", int, bool array (N x P) or the result of `sample_patterns` or `enumerate_patterns`
        Every attainable pattern, a number of unique patterns of Gaussian gates, or the patterns themselves, which are
        kept as they are and in their order. With ReLU, each must be the pattern of some vector.
    seed : int
        Seed of the sampled gates.
    beta_fraction : float, optional
        Weight decay as a fraction of ``beta_max``. Give exactly one of `beta` and `beta_fraction`.
    sample_weight : array of n numbers, optional
        Non-negative weights of the samples' terms of the loss. A whole number w counts a sample w times. A sample of
        weight zero is left out of the loss, and still has predictions and a row in the masks; with ReLU its row also
        stays in the cones of the blocks, which matters for sampled patterns only.
    output_bias : {None, "free", "penalised"}
        The bias b in R^c of the outputs, over which every objective is minimised: None for no bias, "free" for a bias
        without weight decay, "penalised" for a bias with the term beta/2 ||b||^2.

    Attributes
    ----------
    classes : tuple or None
        The labels in the order of the outputs; with one output that of -1, then that of +1. None where Y were numbers.
    notes : tuple of str
        What was decided when the data were read, one sentence each.
    held_out : HeldOut or None
        Samples that are only used to score results, see `with_held_out`.

    Raises
    ------
    AttributeError
        `beta` or another attribute that defines the problem is set: see `with_beta`.
    InputError
        An argument is not usable. The message names it, its value and what is allowed.
    PatternBudgetError
        A complete enumeration does not fit into time or memory.

    Notes
    -----
    All objectives are sums over samples, never means. The lifted program is that of Sahiner et al., ICLR 2024.

    With weights w the loss is F_w(z) = sum_i w_i f(z_i, y_i), and with an output bias it is min_b F(z + 1 b^T), plus
    beta/2 ||b||^2 if b is penalised. If first-layer biases have no weight decay, neurons can become constant at no
    cost, so that the infimum is the one with a free output bias: for such networks use output_bias="free".

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
    >>> problem.masks.shape
    (3, 5)
    """

    def predict(self, Z: BlockArray) -> Float[np.ndarray, "n_out c"]:
        """Return the predictions A(Z) + 1 b^T at blocks Z, n_out x c.

        Z is an array P x p x q or a list of P matrices p x q. b is the best output bias at Z, `output_bias_at(A(Z))`,
        or zero without one.
        """
        predictions = self.operator().apply(convex.check_blocks(self, Z)).numpy()
        with_bias: np.ndarray = predictions + self.output_bias_at(predictions)
        return with_bias

    def objective(self, Z: BlockArray) -> float:
        """Return F(A(Z)) + beta sum_k ||Z_k||_k.

        Parameters
        ----------
        Z : array P x p x q or list of P arrays p x q
            The blocks.

        Raises
        ------
        InputError
            Z has another shape, or a ReLU block is no sum of products u v^T with u in its cone.
        UnsupportedError
            The norm of a vector-output ReLU block could not be evaluated. It is NP-hard in general.
        """
        return convex.objective(self, convex.check_blocks(self, Z))

    def factored_objective(self, U: Array, V: Array) -> float:
        """Return F(A(U V^T)) + beta/2 sum_k (||U_k||^2 + ||V_k||^2).

        The cones are not checked.

        Parameters
        ----------
        U, V : arrays P x p x m and P x q x m
            The factors.

        Raises
        ------
        InputError
            The factors have other shapes, or entries that are not finite.
        """
        return burer_monteiro.objective(self, *burer_monteiro.check_factors(self, U, V))

    def network_objective(self, W1: Array, W2: Array) -> float:
        """Return F(C(phi(Phi W1) W2^T)) + beta/2 (||W1||^2 + ||W2||^2).

        Parameters
        ----------
        W1, W2 : arrays p x M and q x M
            The weights of M neurons.

        Raises
        ------
        InputError
            The weights have other shapes, or entries that are not finite.
        """
        return network.objective(self, *network.check_weights(self, W1, W2))

    def save(self, path: str | Path) -> Path:
        """Save the problem to one .npz file, from which `load_problem` makes an equal one.

        Parameters
        ----------
        path : str or Path
            The file. It is written in one step, and replaced if it exists.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        InputError
            The architecture, the activation or the loss is not registered, so that a file cannot name it.
        OSError
            The file cannot be written.

        Notes
        -----
        The file holds arrays (X, Y, the masks and their gates) and a text member `header` in JSON. It holds no pickle.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> import convexnn_bench as cnn
        >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = problem.save(pathlib.Path(folder) / "problem.npz")
        ...     cnn.load_problem(file).beta_max == problem.beta_max
        True
        """
        return write_archive(path, "problem", instance_tree(self))


def load_problem(path: str | Path) -> Problem:
    """Load a problem that `Problem.save` has written.

    Nothing in the file is run as code.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Problem
        It has the same data and blocks, and so the same objectives and certificates.

    Raises
    ------
    InputError
        The file holds no problem, is damaged, or is of a later version of the package.
    UnknownNameError
        The file names an architecture, an activation or a loss that is not registered here.
    OSError
        The file cannot be opened.

    Notes
    -----
    A complete set of patterns is not enumerated again: that the masks are complete is believed, like the data.
    """
    return instance_from(read_archive(path, "problem"), Problem, path)
