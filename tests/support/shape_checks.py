"""Shapes of arguments and results, each combination checked once.

pytest's plugin of jaxtyping decorates every function of the package. To check every call would take half of the suite's
time, but what a check says depends on types, dtypes and shapes alone. So a call is checked only where those of its
arguments and its result were not seen together before. Each annotation is checked by itself: to compile a checker for
each function would take longer than the checks.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import torch
from shapes import Signature, has_shape

ARRAYS = (np.ndarray, torch.Tensor)
CONTAINERS = (tuple, list, set, frozenset)
READERS: dict[type, Callable[[Any], Any] | None] = {}  # what tells the kind of a value of a type; None: the type alone


def kind(value: Any) -> Any:
    """All that a check can depend on: the type, of arrays the dtype and shape too, and the same of what is inside."""
    cls = type(value)
    try:
        read = READERS[cls]
    except KeyError:
        read = READERS[cls] = reader(cls)
    return cls if read is None else read(value)


def reader(cls: type) -> Callable[[Any], Any] | None:
    """Return the function that tells the kind of values of this type, or None where the type is all."""
    if issubclass(cls, ARRAYS):
        return lambda value: (cls, value.dtype, tuple(value.shape))
    if cls in CONTAINERS:
        return lambda value: (cls, tuple([kind(content) for content in value]))
    if cls is dict:
        return lambda value: (cls, tuple([(kind(key), kind(content)) for key, content in value.items()]))
    return None


def jaxtyped(decorated: Any = None, *, typechecker: Callable[[Any, Any], bool]) -> Any:
    """In the place of jaxtyping.jaxtyped, as its import hook calls it, before any other decorator of a function."""
    if decorated is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(decorated):
        if dataclasses.is_dataclass(decorated) and isinstance(vars(decorated).get("__init__"), FunctionType):
            decorated.__init__ = once_for_each_kind(decorated.__init__, typechecker)
        return decorated
    if not isinstance(decorated, FunctionType):
        raise TypeError(f"shapes of {decorated!r} cannot be checked: it is no function")
    states_shapes = any(map(may_have_shape, decorated.__annotations__.values()))
    return once_for_each_kind(decorated, typechecker) if states_shapes else decorated


def may_have_shape(hint: Any) -> bool:
    """Return True where an annotation has a shape; one that is written as a string has none without brackets."""
    return "[" in hint if isinstance(hint, str) else has_shape(hint)


def once_for_each_kind(function: FunctionType, typechecker: Callable[[Any, Any], bool]) -> Any:
    """The function, with its arguments and its result checked where their kinds were not seen together before."""
    kinds: dict[Any, set[Any]] = {}
    is_exporting = torch.compiler.is_exporting

    @functools.cache
    def signature() -> Signature:
        return Signature(function, typechecker)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if is_exporting():  # sizes are symbols, which no check understands
            return function(*args, **kwargs)
        before = kind(args), kind(kwargs) if kwargs else None
        seen = kinds.get(before)
        if seen is None:
            signature().check_arguments(args, kwargs)
            seen = kinds[before] = set()
        result = function(*args, **kwargs)
        after = kind(result)
        if after not in seen:
            signature().check_result(args, kwargs, result)
            seen.add(after)
        return result

    return wrapper
