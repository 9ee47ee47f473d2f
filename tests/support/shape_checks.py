"""Shapes of arguments and results, each combination checked once.

pytest's plugin of jaxtyping decorates every function of the package. To check every call would take half of the suite's
time, but what a check says depends on types, dtypes and shapes alone. So a call is checked only where those of its
arguments and its result were not seen together before, and the checked function is made at its first call.
"""

import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jaxtyping
import numpy as np
import torch
from shapes import has_shape

check_every_call = jaxtyping.jaxtyped
CONTAINERS = (tuple, list, set, frozenset)


def kind(value: Any) -> Any:
    """All that a check can depend on: the type, of arrays the dtype and shape too, and the same of what is inside."""
    cls = type(value)
    if isinstance(value, np.ndarray | torch.Tensor):
        return cls, value.dtype, tuple(value.shape)
    if cls in CONTAINERS:
        return cls, tuple(map(kind, value))
    if cls is dict:
        return cls, tuple((kind(key), kind(content)) for key, content in value.items())
    return cls


def jaxtyped(decorated: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """In the place of jaxtyping.jaxtyped, as its import hook calls it."""
    if decorated is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(decorated):
        if dataclasses.is_dataclass(decorated) and isinstance(vars(decorated).get("__init__"), FunctionType):
            decorated.__init__ = once_for_each_kind(decorated.__init__, typechecker)
        return decorated
    if not isinstance(decorated, FunctionType):
        return check_every_call(decorated, typechecker=typechecker)
    states_shapes = any(map(may_have_shape, decorated.__annotations__.values()))
    return once_for_each_kind(decorated, typechecker) if states_shapes else decorated


def may_have_shape(hint: Any) -> bool:
    """Return True where an annotation has a shape; one that is written as a string has none without brackets."""
    return "[" in hint if isinstance(hint, str) else has_shape(hint)


def once_for_each_kind(function: Any, typechecker: Callable[..., Any]) -> Any:
    """The function, with its arguments and its result checked where their kinds were not seen together before."""
    results = threading.local()  # what the checked function is to return, where it has been computed already
    kinds: dict[Any, set[Any]] = {}

    def given(*args: Any, **kwargs: Any) -> Any:
        return vars(results).pop("value") if "value" in vars(results) else function(*args, **kwargs)

    @functools.cache
    def checked() -> Any:
        # the annotations of `function` are looked up in the globals of what is decorated
        copy = FunctionType(given.__code__, function.__globals__, function.__name__, None, given.__closure__)
        return check_every_call(functools.wraps(function)(copy), typechecker=typechecker)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if torch.compiler.is_exporting():  # sizes are symbols, which no check understands
            return function(*args, **kwargs)
        before = kind(args), kind(kwargs)
        seen = kinds.get(before)
        if seen is None:
            result = checked()(*args, **kwargs)
            kinds[before] = {kind(result)}
            return result
        result = function(*args, **kwargs)
        after = kind(result)
        if after not in seen:
            results.value = result
            try:
                checked()(*args, **kwargs)
            finally:
                vars(results).clear()
            seen.add(after)
        return result

    return wrapper
