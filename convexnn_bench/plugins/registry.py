"""Plug-ins found by scanning folders: one file, one class, registered under its ``name``.

A new loss, activation, architecture, data set or solver is one new file. A file that does not load is an error, which
names the file.
"""

import difflib
import importlib.util
import inspect
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from convexnn_bench.errors import InputError, RegistryError, UnknownNameError
from convexnn_bench.plugins.parameters import check_names
from convexnn_bench.plugins.specs import parse_spec

if TYPE_CHECKING:  # the classes are imported when a registry is first used, so that listing names stays cheap
    from convexnn_bench.activations.base import BaseActivation
    from convexnn_bench.architectures.base import BaseArchitecture
    from convexnn_bench.datasets.base import BaseDataset
    from convexnn_bench.harness.executors.base import BaseExecutor
    from convexnn_bench.losses.base import BaseLoss
    from convexnn_bench.solver import BaseSolver

T = TypeVar("T")
_PACKAGE = Path(__file__).parents[1]


def importable(package: str) -> bool:
    """Return True where a package can be imported; False also where a finder refuses it, or it is half installed."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


class Registry(Generic[T]):
    """Classes of one kind, by name: a mapping that scans its folders on first use.

    Parameters
    ----------
    kind : str
        What the classes are, as messages call them ("loss").
    base : str
        "module:Class" of their base class, which is imported on first use.
    folder : Path
        Where the files are.

    Examples
    --------
    >>> from convexnn_bench.plugins.registry import LOSSES
    >>> LOSSES.names()
    ['cross_entropy', 'huber', 'logistic', 'squared', 'squared_hinge']
    >>> LOSSES.make("huber[delta=0.5]")
    Huber(delta=0.5)
    """

    def __init__(self, kind: str, base: str, folder: Path):
        self.kind = kind
        self._base = base
        self._folders = [folder]
        self._classes: dict[str, type[T]] | None = None

    @property
    def base(self) -> type[T]:
        """The base class."""
        module, name = self._base.split(":")
        base: type[T] = getattr(importlib.import_module(module), name)
        return base

    @property
    def folders(self) -> list[Path]:
        """The folders that are scanned."""
        return list(self._folders)

    @property
    def classes(self) -> dict[str, type[T]]:
        """{name: class}. The first access loads every file of the folders."""
        if self._classes is None:
            found: dict[str, type[T]] = {}
            for folder in self._folders:
                found.update(self._scan(folder, found))
            self._classes = found
        return self._classes

    def add_folder(self, folder: str | Path) -> None:
        """Scan one more folder.

        Raises
        ------
        InputError
            `folder` is not a directory.
        RegistryError
            A file does not load, holds no class of this kind or several, or its name is taken.
        """
        path = Path(folder).resolve()
        if not path.is_dir():
            raise InputError(f"{self.kind} folder {str(folder)!r} is not a directory")
        if path not in self._folders:
            # The folder is scanned before anything is stored, so that a faulty file leaves the registry as it was.
            scanned = self._scan(path, self.classes)
            self._folders.append(path)
            self.classes.update(scanned)

    def _scan(self, folder: Path, known: dict[str, type[T]]) -> dict[str, type[T]]:
        found: dict[str, type[T]] = {}
        for path in _files(folder):
            cls = self._load(path)
            name = cls.name
            other = found.get(name) or known.get(name)
            if other is not None:
                raise RegistryError(f"{path}: the {self.kind} name {name!r} is taken by {inspect.getfile(other)}")
            found[name] = cls
        return found

    def _load(self, path: Path) -> Any:
        # 1. Import the file. A file inside the package is a module, which is loaded once. The base class is loaded
        # first: its package may import the file too, and a file that is only partly loaded has no class yet.
        base, name = self.base, self._module_name(path)
        try:
            if path.is_relative_to(_PACKAGE):
                # This loads the package of the file first, which may import the file too.
                module = importlib.import_module(name)
            else:  # load it anew, since a user's file may have changed
                spec = importlib.util.spec_from_file_location(name, path)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                # Dataclasses and pickle look a module up by its name while the file still runs.
                sys.modules[name] = module
                spec.loader.exec_module(module)
        except Exception as error:
            # A module that is half loaded must not be what the next import finds.
            sys.modules.pop(name, None)
            raise RegistryError(f"{path} does not load: {type(error).__name__}: {error}") from error
        # 2. It must define exactly one class of this kind, with a name and without an error in its declaration.
        # Classes that the file imports, such as the base class, name another module as theirs.
        own: list[Any] = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, base) and value.__module__ == name
        ]
        if len(own) != 1:
            raise RegistryError(f"{path} must hold exactly one subclass of {base.__name__}, found {len(own)}")
        if not isinstance(getattr(own[0], "name", None), str):
            raise RegistryError(f"{path}: class {own[0].__name__} needs a string attribute `name`")
        wrong = own[0].declaration_error() if hasattr(own[0], "declaration_error") else None
        if wrong:
            raise RegistryError(f"{path}: {wrong}")
        return own[0]

    def _module_name(self, path: Path) -> str:
        """Return the import name inside the package, else a private one."""
        if path.is_relative_to(_PACKAGE):
            return ".".join((_PACKAGE.name, *path.relative_to(_PACKAGE).with_suffix("").parts))
        folder = (
            f"{path.parent.name}_{zlib.crc32(str(path.parent).encode()):08x}"  # tells folders of the same name apart
        )
        return f"convexnn_bench_plugins.{self.kind.replace(' ', '_')}.{folder}.{path.stem}"

    def names(self) -> list[str]:
        """Return the registered names in alphabetical order."""
        return sorted(self.classes)

    def get(self, name: str) -> type[T]:
        """Return the class registered as `name`, else raise UnknownNameError."""
        if name in self.classes:
            return self.classes[name]
        near = difflib.get_close_matches(str(name), self.names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownNameError(f"unknown {self.kind} {name!r}: {hint}known: {', '.join(self.names())}")

    def make(self, name_or_instance: str | T | type[T], **parameters: Any) -> T:
        """Return an instance from a name, from a class, or the instance itself.

        Parameters
        ----------
        name_or_instance : str, class or instance
            A name, with parameters in brackets if wanted: "huber[delta=0.5]".
        **parameters
            Further parameters, unless the argument is an instance already.

        Raises
        ------
        UnknownNameError
            The name is not registered; the message suggests the nearest one.
        InputError
            A parameter is unknown or not allowed, or the argument is neither a name nor of this kind.
        """
        # 1. An instance is taken as it is. Parameters beside it could only contradict its own.
        if isinstance(name_or_instance, self.base):
            if parameters:
                raise InputError(
                    f"this {self.kind} is an instance already: pass {', '.join(parameters)} to its constructor"
                )
            return name_or_instance
        # 2. A class is constructed. It checks its parameters itself.
        if isinstance(name_or_instance, type) and issubclass(name_or_instance, self.base):
            return name_or_instance(**parameters)
        if not isinstance(name_or_instance, str):
            advice: Any = getattr(self.base, "advice", lambda value: "")
            raise InputError(
                f"{self.kind} must be a name or an instance of {self.base.__name__}, "
                f"got {type(name_or_instance).__name__}{advice(name_or_instance)}"
            )
        # 3. A name is looked up. Keyword arguments win over those in the brackets.
        name, inside = parse_spec(name_or_instance)
        cls, given = self.get(name), {**inside, **parameters}
        check_names(f"{self.kind} {name!r}", given, getattr(cls, "parameters", inspect.signature(cls).parameters))
        return cls(**given)


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold a plug-in each."""
    # base.py and files with a leading underscore support plug-ins, and are not plug-ins themselves.
    return [path for path in sorted(folder.glob("*.py")) if path.stem != "base" and not path.stem.startswith("_")]


@cache
def _solver_folder() -> Path:
    """Return the checkout's folder `solvers`, else that of the installed package."""
    # A checkout's solvers are files that its user edits, so that they come before an installed copy.
    checkout = _PACKAGE.parent / "solvers"
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir() else _PACKAGE / "solvers"


LOSSES: "Registry[BaseLoss]" = Registry("loss", "convexnn_bench.losses.base:BaseLoss", _PACKAGE / "losses")
ARCHITECTURES: "Registry[BaseArchitecture]" = Registry(
    "architecture", "convexnn_bench.architectures.base:BaseArchitecture", _PACKAGE / "architectures"
)
ACTIVATIONS: "Registry[BaseActivation]" = Registry(
    "activation", "convexnn_bench.activations.base:BaseActivation", _PACKAGE / "activations"
)
DATASETS: "Registry[BaseDataset]" = Registry(
    "data set", "convexnn_bench.datasets.base:BaseDataset", _PACKAGE / "datasets"
)
SOLVERS: "Registry[BaseSolver]" = Registry("solver", "convexnn_bench.solver:BaseSolver", _solver_folder())
EXECUTORS: "Registry[BaseExecutor]" = Registry(
    "executor", "convexnn_bench.harness.executors.base:BaseExecutor", _PACKAGE / "harness" / "executors"
)

# The subfolders of a folder with plug-ins of several kinds.
KINDS: dict[str, Registry[Any]] = {
    "solvers": SOLVERS,
    "datasets": DATASETS,
    "losses": LOSSES,
    "activations": ACTIVATIONS,
    "architectures": ARCHITECTURES,
}


def add_plugins(solvers_dir: str | Path | None = None, plugins_dir: str | Path | None = None) -> None:
    """Register the user's plug-ins: those of a folder of solvers, and those of a folder with a subfolder for each kind.

    Raises
    ------
    InputError
        A folder is not a directory, has none of the subfolders, or has code outside them.
    RegistryError
        A file does not load, does not have exactly one class of its kind, or has a name that is registered already.
    """
    if solvers_dir is not None:
        SOLVERS.add_folder(solvers_dir)
    for kind, folder in plugin_folders(plugins_dir).items():
        KINDS[kind].add_folder(folder)


def plugin_folders(plugins_dir: str | Path | None) -> dict[str, Path]:
    """Return {kind: subfolder} of a folder with plug-ins, or nothing for None. Raise InputError as `add_plugins`."""
    if plugins_dir is None:
        return {}
    path, allowed = Path(plugins_dir), ", ".join(KINDS)
    if not path.is_dir():
        raise InputError(f"plugins folder {str(plugins_dir)!r} is not a directory")
    found = {kind: path / kind for kind in KINDS if (path / kind).is_dir()}
    # A misspelt subfolder, or a file beside the subfolders, would be ignored silently.
    for other in sorted(path.iterdir()):
        code = other.suffix == ".py" or (other.is_dir() and any(other.glob("*.py")))
        if code and other.name not in KINDS and not other.name.startswith(("_", ".")):
            raise InputError(f"plugins folder {str(plugins_dir)!r}: {other.name!r} is none of its subfolders {allowed}")
    if not found:
        raise InputError(f"plugins folder {str(plugins_dir)!r} has none of the subfolders {allowed}")
    return found


def plugin_files(solvers_dir: str | Path | None, plugins_dir: str | Path | None) -> list[Path]:
    """Return the files that `add_plugins` would import, without importing them. Raise InputError as it does."""
    folders = [Path(solvers_dir)] if solvers_dir is not None else []
    folders += plugin_folders(plugins_dir).values()
    return [file for folder in folders for file in _files(folder)]
