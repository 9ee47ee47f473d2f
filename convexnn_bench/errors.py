"""Errors that a user can act on.

Each message names the argument, the value and what is allowed.
"""


class ConvexNNError(Exception):
    """Base of every error raised on purpose by this package."""


class InputError(ConvexNNError, ValueError):
    """An argument is not usable: wrong shape, type, range or content."""


class NotFiniteError(InputError):
    """The objective of a point, or a part of it, is not a finite number of float64."""


class UnknownNameError(InputError):
    """Nothing is registered under this name.

    The name is that of a solver, data set, loss, activation or architecture.
    """


class PatternBudgetError(InputError):
    """The complete enumeration of activation patterns does not fit in memory or time."""


class RegistryError(ConvexNNError):
    """A plug-in file does not load, or does not hold exactly one class."""


class UnsupportedError(ConvexNNError):
    """A combination that the theory, or this version, does not cover.

    The message says why.
    """


class ProofError(ConvexNNError):
    """A proof does not hold; the message is the first statement that is false."""


class ExecutorError(ConvexNNError, RuntimeError):
    """The machines that run a campaign's cells are gone.

    The records of finished cells are kept.
    """


class DivergedError(Exception):
    """The entries of a solver's point are no longer finite, or are too large.

    A run may end in this way.
    """


class ChangedProblemError(ConvexNNError, RuntimeError):
    """A solver changed the data or the methods of its problem."""
