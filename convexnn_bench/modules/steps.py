"""The steps of a chain of operations, and the calls in a trace that they are made from."""

from dataclasses import dataclass
from typing import Any

from convexnn_bench.modules.refusals import refuse


@dataclass(frozen=True)
class Step:
    """One operation of a chain.

    kind: "linear", "conv", "pool" (with the layer as `module`), "relu", "reshape", "cast", "identity", or one of the
    functions that a training loss may contain: "sigmoid", "log_softmax", "softmax". size: the size of the result on
    the data, where it is known. name: how a message refers to the operation.
    """

    kind: str
    module: Any = None
    size: tuple[int, ...] | None = None
    name: str = ""


@dataclass(frozen=True)
class Call:
    """One node of the trace: the arguments after the data, and the sizes of the data before and after."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]
    before: tuple[int, ...] | None
    after: tuple[int, ...] | None
    name: str

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        """Return the argument with this name, or at this index after the data."""
        return self.named.get(name, self.arguments[index] if len(self.arguments) > index else default)


def over_classes(kind: str, dim: Any, call: Call) -> Step:
    """Return the step of a (log-)softmax over the last of two axes, which is that of the classes."""
    # torch takes the last of two axes where none is given.
    if call.before is None or len(call.before) != 2 or (dim is not None and dim % 2 != 1):
        raise refuse(f"has {call.name} over axis {dim}, where dim=1 of n x c outputs is expected")
    return Step(kind, None, call.after, call.name)
