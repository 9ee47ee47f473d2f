"""The type checker of the test run: beartype, for the annotations that state a shape, and for no others.

Plain types are mypy's. Functions of the public interface annotate what they accept and refuse everything else with a
message of their own, which a second check in front of them would hide.
"""

from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def has_shape(hint: Any) -> bool:
    """Return True where an annotation is, or contains, an array type with a shape."""
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(has_shape, get_args(hint)))


def checked(function: Any) -> Any:
    """Return the function that jaxtyping generated for a signature, with its shapes checked."""
    shapes = {name: hint for name, hint in function.__annotations__.items() if has_shape(hint)}
    if not shapes:
        return function
    function.__annotations__ = shapes
    return beartype(function)
