"""Plug-ins found by scanning folders: one file, one class, registered under its ``name``.

A new loss, activation, architecture, data set or solver is one new file. A file that does not load is an
error that names the file; it is never passed over.
"""

import difflib
import importlib.util
import inspect
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from convexnn_bench.errors import InputError, RegistryError, UnknownNameError
from convexnn_bench.plugins.specs import parse_spec

_PACKAGE = Path(__file__).parents[1]


def importable(package: str) -> bool:
    """Whether a package can be imported; False too where a finder refuses it, or it is half installed."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


class Registry:
    """Classes of one kind, by name. ``base`` is "module:Class", imported on first use."""

    def __init__(self, kind: str, base: str, folder: Path):
        self.kind = kind
        self._base = base
        self._folders = [folder]
        self._classes: dict[str, Any] | None = None

    @property
    def base(self) -> type:
        module, name = self._base.split(":")
        return getattr(importlib.import_module(module), name)

    @property
    def classes(self) -> dict[str, Any]:
        if self._classes is None:
            found: dict[str, Any] = {}
            for folder in self._folders:
                found.update(self._scan(folder, found))
            self._classes = found
        return self._classes

    def add_folder(self, folder: str | Path) -> None:
        """Scan one more folder; its names must be new. Raises InputError if it is no folder."""
        path = Path(folder).resolve()
        if not path.is_dir():
            raise InputError(f"{self.kind} folder {str(folder)!r} is not a directory")
        if path not in self._folders:
            scanned = self._scan(path, self.classes)
            self._folders.append(path)
            self.classes.update(scanned)

    def _scan(self, folder: Path, known: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(folder.glob("*.py")):
            if path.stem in ("__init__", "base") or path.stem.startswith("_"):
                continue
            cls = self._load(path)
            other = found.get(cls.name) or known.get(cls.name)
            if other is not None:
                raise RegistryError(f"{path}: the {self.kind} name {cls.name!r} is taken by {inspect.getfile(other)}")
            found[cls.name] = cls
        return found

    def _load(self, path: Path) -> Any:
        name = self._module_name(path)
        try:
            if name in sys.modules and path.is_relative_to(_PACKAGE):  # a user's file may have been mended since
                module = sys.modules[name]
            else:
                spec = importlib.util.spec_from_file_location(name, path)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                sys.modules[name] = module
                spec.loader.exec_module(module)
        except Exception as error:
            sys.modules.pop(name, None)
            raise RegistryError(f"{path} does not load: {type(error).__name__}: {error}") from error
        own = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, self.base) and value.__module__ == name
        ]
        if len(own) != 1:
            raise RegistryError(f"{path} must hold exactly one subclass of {self.base.__name__}, found {len(own)}")
        if not isinstance(getattr(own[0], "name", None), str):
            raise RegistryError(f"{path}: class {own[0].__name__} needs a string attribute `name`")
        wrong = own[0].declaration_error() if hasattr(own[0], "declaration_error") else None
        if wrong:
            raise RegistryError(f"{path}: {wrong}")
        return own[0]

    def _module_name(self, path: Path) -> str:
        """The import name inside the package, else a private one, so that no file is loaded twice."""
        if path.is_relative_to(_PACKAGE):
            return ".".join((_PACKAGE.name, *path.relative_to(_PACKAGE).with_suffix("").parts))
        folder = f"{path.parent.name}_{zlib.crc32(str(path.parent).encode()):08x}"  # folders of one name are kept apart
        return f"convexnn_bench_plugins.{self.kind.replace(' ', '_')}.{folder}.{path.stem}"

    def names(self) -> list[str]:
        return sorted(self.classes)

    def get(self, name: str) -> Any:
        """The class registered under ``name``. Raises UnknownNameError with the nearest name."""
        if name in self.classes:
            return self.classes[name]
        near = difflib.get_close_matches(str(name), self.names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownNameError(f"unknown {self.kind} {name!r}: {hint}known: {', '.join(self.names())}")

    def make(self, name_or_instance: Any, **parameters: Any) -> Any:
        """An instance from a name, or the instance itself. Raises InputError for anything else."""
        if isinstance(name_or_instance, self.base):
            if parameters:
                raise InputError(
                    f"this {self.kind} is an instance already: give {', '.join(parameters)} where it is made"
                )
            return name_or_instance
        if inspect.isclass(name_or_instance) and issubclass(name_or_instance, self.base):
            return name_or_instance(**parameters)
        if not isinstance(name_or_instance, str):
            raise InputError(
                f"{self.kind} must be a name or an instance of {self.base.__name__}, "
                f"got {type(name_or_instance).__name__}"
            )
        name, inside = parse_spec(name_or_instance)
        cls, given = self.get(name), {**inside, **parameters}
        allowed = list(getattr(cls, "parameters", inspect.signature(cls).parameters))
        unknown = sorted(set(given) - set(allowed))
        if unknown:
            raise InputError(
                f"{self.kind} {name!r} has no parameter {unknown[0]!r}; it has: {', '.join(allowed) or 'none'}"
            )
        return cls(**given)


@cache
def _solver_folder() -> Path:
    """The checkout's top-level ``solvers``, else the copy installed with the package."""
    checkout = _PACKAGE.parent / "solvers"
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir() else _PACKAGE / "solvers"


LOSSES = Registry("loss", "convexnn_bench.losses.base:BaseLoss", _PACKAGE / "losses")
ARCHITECTURES = Registry(
    "architecture", "convexnn_bench.architectures.base:BaseArchitecture", _PACKAGE / "architectures"
)
ACTIVATIONS = Registry("activation", "convexnn_bench.activations.base:BaseActivation", _PACKAGE / "activations")
DATASETS = Registry("data set", "convexnn_bench.datasets.base:BaseDataset", _PACKAGE / "datasets")
SOLVERS = Registry("solver", "convexnn_bench.solver:BaseSolver", _solver_folder())
EXECUTORS = Registry(
    "executor", "convexnn_bench.harness.executors.base:BaseExecutor", _PACKAGE / "harness" / "executors"
)
