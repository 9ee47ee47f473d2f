"""The type checker of the test run: annotations that state a shape are checked, and no others.

Plain types are mypy's. Functions of the public interface annotate what they accept and refuse everything else with a
message of their own, which a second check in front of them would hide.
"""

import contextlib
import inspect
from collections.abc import Callable, Collection, Mapping
from types import FunctionType, SimpleNamespace, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from jaxtyping import AbstractArray, TypeCheckError, jaxtyped


def has_shape(hint: Any) -> bool:
    """Return True where an annotation is, or contains, an array type with a shape."""
    return is_array(hint) or any(map(has_shape, get_args(hint)))


def is_array(hint: Any) -> bool:
    """Return True for an array type with a shape."""
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def holds(value: Any, hint: Any) -> bool:
    """Return True where a value is as an annotation says, with the axes that were seen in this context before."""
    if is_array(hint):
        return isinstance(value, hint)
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(holds(value, one) for one in inside)
    if not is_instance(value, origin or hint):
        return False
    if origin is tuple and Ellipsis not in inside:
        return len(value) == len(inside) and all(map(holds, value, inside))
    if has_shape(hint) and isinstance(value, Mapping):
        return all(holds(one, inside[0]) and holds(other, inside[1]) for one, other in value.items())
    if has_shape(hint) and isinstance(value, Collection):
        return all(holds(one, inside[0]) for one in value)
    return True  # what an iterator yields, and what a function takes, is not looked at


def is_instance(value: Any, cls: Any) -> bool:
    """Return True where a value is of a class, or where that cannot be told: names, protocols and type variables."""
    if cls is None:
        return value is None
    if cls is Any or not isinstance(cls, type) or getattr(cls, "_is_protocol", False):
        return True
    return isinstance(value, cls)


class Signature:
    """What a function states of shapes. check: whether a value is as an annotation says, such as `holds`."""

    def __init__(self, function: FunctionType, check: Callable[[Any, Any], bool]):
        self.function, self.check = function, check
        self.parameters = inspect.signature(function)
        self.hints = {name: hint for name, hint in resolved(function).items() if has_shape(hint)}

    def check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeCheckError where arguments have other shapes. A call with other names of arguments is let pass."""
        with jaxtyped("context"):
            self._check_arguments(args, kwargs)

    def check_result(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Raise TypeCheckError where the result does not fit to the arguments."""
        if "return" in self.hints:
            with jaxtyped("context"):
                self._check_arguments(args, kwargs)
                self._check("return value", result, self.hints["return"])

    def _check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            given = self.parameters.bind(*args, **kwargs).arguments
        except TypeError:  # the call itself says what is wrong
            return
        for name, value in given.items():
            if name in self.hints:
                kind = self.parameters.parameters[name].kind
                if kind is inspect.Parameter.VAR_POSITIONAL:
                    values = value
                elif kind is inspect.Parameter.VAR_KEYWORD:
                    values = value.values()
                else:
                    values = (value,)
                for one in values:
                    self._check(f"argument {name!r}", one, self.hints[name])

    def _check(self, what: str, value: Any, hint: Any) -> None:
        if not self.check(value, hint):
            shape = f" of shape {tuple(value.shape)} and {value.dtype}" if hasattr(value, "shape") else f" {value!r}"
            raise TypeCheckError(
                f"{what} of {self.function.__module__}.{self.function.__qualname__} must be {hint}, "
                f"got {type(value).__name__}{shape}"
            )


def resolved(function: FunctionType) -> dict[str, Any]:
    """Return the annotations of a function; without those written as strings that cannot be looked up."""
    found: dict[str, Any] = {}
    for name, hint in function.__annotations__.items():
        with contextlib.suppress(NameError):
            alone = SimpleNamespace(__annotations__={name: hint})
            found |= get_type_hints(alone, function.__globals__, include_extras=True)
    return found
