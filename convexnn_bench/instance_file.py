"""An instance as a tree of plain values and arrays, and back.

Architecture, activation and loss are stored as registered names with the arguments of their constructors. The blocks
are stored as they are, so that nothing is sampled or enumerated again.
"""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import scipy.sparse

from convexnn_bench.architectures import WithBias
from convexnn_bench.checks import check_array, check_beta, check_scale
from convexnn_bench.errors import InputError, UnknownNameError
from convexnn_bench.instance import Instance, check_target_rows
from convexnn_bench.labels import Targets
from convexnn_bench.losses import OutputBias, WeightedLoss, with_sample_weight
from convexnn_bench.operator import DataArray, Rows, entries, read_data
from convexnn_bench.patterns import Patterns
from convexnn_bench.plugins import ACTIVATIONS, ARCHITECTURES, LOSSES, Number, Registry, check_names

AnyInstance = TypeVar("AnyInstance", bound=Instance)

PARTS: dict[str, Registry[Any]] = {"architecture": ARCHITECTURES, "activation": ACTIVATIONS, "loss": LOSSES}
# Losses and an architecture that belong to one problem. They have no names of their own: the classes are no plug-ins.
WITH_BIAS, WEIGHTED = "with output bias", "with sample weights"
WITH_HIDDEN_BIASES = "with hidden biases"
# fields of `Patterns` that are neither array nor count
PATTERNS = ("complete", "requested", "duplicates", "zero", "resolved")


def instance_tree(instance: Instance) -> dict[str, Any]:
    """Return what a file holds of an instance.

    Raise InputError where a part is not registered, or does not keep its constructor's arguments as attributes.
    """
    info, held_out = instance.pattern_info, instance.held_out
    return {
        **{name: _described(getattr(instance, name), registry) for name, registry in PARTS.items()},
        "beta": instance.beta,
        "seed": instance.seed,
        "classes": instance.classes,
        "notes": instance.notes,
        "X": _stored(instance.X),
        "Y": instance.Y,
        "masks": instance.masks,
        "gates": instance.gates,
        "held_out": None if held_out is None else {"X": _stored(held_out.X), "Y": held_out.Y},
        "moved": info.moved,
        "copies": info.copies,
        # A count may have thousands of digits, more than Python converts to decimal text.
        "patterns": {
            **{name: getattr(info, name) for name in PATTERNS},
            "merged": info.merged,
            "count": info.count and hex(info.count),
        },
    }


def instance_from(tree: Mapping[str, Any], cls: type[AnyInstance], path: Any) -> AnyInstance:
    """Return the instance of class `cls` that `instance_tree` has described.

    path: the file, for messages.

    Raise InputError where a name is not registered or the arrays do not fit together.
    """
    try:
        state = {name: _made(tree[name], registry) for name, registry in PARTS.items()}
        return _instance(tree, state, cls)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{path}: {error}; a class of your own must be registered before a file that names it is loaded, as by "
            'cnn.LOSSES.add_folder("DIR")'
        ) from error
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        words = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path} holds no problem that can be used: {words}") from error


def _instance(tree: Mapping[str, Any], state: dict[str, Any], cls: type[AnyInstance]) -> AnyInstance:
    # 1. The data and the sizes that follow from them, as in the constructor.
    X = read_data(_data(tree["X"]), state["architecture"], state["activation"].has_cone)
    Y = check_array("Y", tree["Y"])
    state["architecture"].check_data(X)
    check_scale("X", entries(X))
    check_scale("Y", Y)
    rows = Rows(state["architecture"], X)
    check_scale("the first-layer rows Phi made from X", np.array(rows.largest()))
    n_out, c = Y.shape
    with_sample_weight(state["loss"], None, X.shape[0], n_out)  # weights that it has must be as many as the rows
    (N, p), q = rows.shape, state["architecture"].width_out(X, c)
    # 2. The blocks, as they were.
    masks, gates = tree["masks"], tree["gates"]
    if masks.dtype != bool or masks.ndim != 2 or len(masks) != N or masks.shape[1] == 0:
        raise InputError(f"masks must be an N x P bool array with N = {N} rows, got {masks.dtype} {masks.shape}")
    if gates is not None and check_array("gates", gates).shape != (p, masks.shape[1]):
        raise InputError(f"gates must be p x P = {p} x {masks.shape[1]}, got shape {gates.shape}")
    count = tree["patterns"]["count"]
    fields = {name: tree["patterns"][name] for name in PATTERNS}
    fields["merged"] = tree["patterns"].get("merged", True)  # files of older versions do not say
    counted = None if count is None else int(count, 16)
    info = Patterns(masks, gates, **fields, count=counted, moved=tree["moved"], copies=tree["copies"])
    # 3. The instance itself, without its constructor: neither masks nor targets are made anew.
    beta, seed = check_beta(Number().check("beta", tree["beta"])), tree["seed"]
    sizes = {"n_out": n_out, "c": c, "N": N, "p": p, "q": q, "P": masks.shape[1]}
    state |= {"X": X, "Y": Y, "beta": beta, "seed": seed, **sizes, "is_shared": False}
    state |= {"classes": tree["classes"], "notes": tree["notes"], "held_out": None}
    state |= {"pattern_info": info, "masks": masks, "gates": gates}
    instance = cls.__new__(cls)
    instance.__setstate__(state)
    check_target_rows(X, Y, instance.architecture, N, q)
    # Files of earlier versions do not state whether samples are held out.
    held_out = tree.get("held_out")
    if held_out is None:
        return instance
    return instance.with_held_out(_data(held_out["X"]), Targets(held_out["Y"], instance.classes))


# -- the parts of an instance -----------------------------------------------------------------------------


def _stored(X: DataArray) -> Any:
    """Return a dense array as it is, or the three arrays and the shape of a sparse one."""
    if not isinstance(X, scipy.sparse.csr_array):
        return X
    return {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": X.shape}


def _data(stored: Any) -> Any:
    """Invert `_stored`."""
    if not isinstance(stored, Mapping):
        return stored
    parts = stored["data"], stored["indices"], stored["indptr"]
    return scipy.sparse.csr_array(parts, shape=stored["shape"])


def _described(part: Any, registry: Registry[Any]) -> dict[str, Any]:
    """Return the registered name of a part and the arguments that make an equal one."""
    cls, kind = type(part), registry.kind
    if cls is OutputBias:
        return {"name": WITH_BIAS, "parameters": {"loss": _described(part.loss, LOSSES), "beta": part.beta}}
    if cls is WeightedLoss:
        return {"name": WEIGHTED, "parameters": {"loss": _described(part.loss, LOSSES), "weights": part.weights}}
    if cls is WithBias:
        own = {name: getattr(part, name) for name in ("shift", "size", "radius")}
        return {"name": WITH_HIDDEN_BIASES, "parameters": {"inner": _described(part.inner, ARCHITECTURES), **own}}
    plural = {"loss": "LOSSES", "architecture": "ARCHITECTURES", "activation": "ACTIVATIONS"}[kind]
    if registry.classes.get(cls.name) is not cls:
        raise InputError(
            f"the {kind} {cls.__name__} cannot be saved, because it is not registered: a file states its name, under "
            f"which it is found again. Move the class into a file of a folder and call cnn.{plural}.add_folder"
        )
    parameters = {name: getattr(part, name) for name in inspect.signature(cls).parameters if hasattr(part, name)}
    lost = _lost(cls, parameters)
    if lost is not None:
        raise InputError(
            f"the {kind} {cls.name!r} cannot be saved: it does not keep the argument {lost!r} of its constructor in an "
            "attribute of that name, from which it could be made again"
        )
    return {"name": cls.name, "parameters": parameters}


def _lost(cls: type, parameters: Mapping[str, Any]) -> str | None:
    """Return an argument that the attributes of an object do not give back, or None."""
    names = list(inspect.signature(cls).parameters)
    absent = [name for name in names if name not in parameters]
    if absent:
        return absent[0]
    again = cls(**parameters)
    return next((name for name in names if not np.array_equal(getattr(again, name), parameters[name])), None)


def _made(described: Mapping[str, Any], registry: Registry[Any]) -> Any:
    """Return the part that `_described` has described."""
    name, parameters = described["name"], described["parameters"]
    if registry is LOSSES and name == WITH_BIAS:
        beta = Number(optional=True).check("beta of the output bias", parameters["beta"])
        return OutputBias(_made(parameters["loss"], LOSSES), beta)
    if registry is LOSSES and name == WEIGHTED:
        weights = parameters["weights"]
        return with_sample_weight(_made(parameters["loss"], LOSSES), weights, len(weights), len(weights))
    if registry is ARCHITECTURES and name == WITH_HIDDEN_BIASES:
        own = {key: parameters[key] for key in ("shift", "size", "radius")}
        return WithBias(_made(parameters["inner"], ARCHITECTURES), **own)
    cls = registry.get(name)
    check_names(f"{registry.kind} {name!r}", parameters, inspect.signature(cls).parameters)
    return cls(**parameters)
