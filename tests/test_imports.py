"""The floor plan holds: arrows between rooms point one way, no circles, and every room is entered by its door.

docs/architecture.md draws the rooms. The rules are read from the source by `ast`, so that nothing has to be imported.
"""

import ast
import functools
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "convexnn_bench"

# Ground first. A room may import rooms of earlier lines only; those of one line do not know each other.
ORDER = (
    "errors terminal parallel deadline statuses",
    "plugins storage",
    "checks house_style labels",
    "losses architectures",
    "operator",
    "held_out patterns",
    "activations cones",
    "norms",
    "instance",
    "instance_file formulations",
    "problem",
    "prediction",
    "datasets modules solver",
    "certificates",
    "algorithms proofs",
    "solvers running",
    "optima records",
    "harness layerwise",
    "playground report",
    "regularisation module_reports",
    "cli comparison estimators theorems",
)
LEVEL = {room: level for level, line in enumerate(ORDER) for room in line.split()}
# `rivals` are scripts for other environments and import nothing of ours; `registry` is kept for one release
OUTSIDE_THE_ORDER = {"rivals", "registry", "__main__", ""}
REGISTRY = f"{PACKAGE}.plugins.registry"  # names the base classes of later rooms for type checkers
CORRIDORS = {PACKAGE, f"{PACKAGE}.algorithms"}  # their rooms have doors of their own


class Arrow(NamedTuple):
    """One import of ours: `source` imports the module `target`, or names of it, from the written `address`."""

    source: str
    target: str
    address: str
    inside_function: bool = False


def read_modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the package and of the folder of solvers, by its dotted name."""
    paths = [path for folder in (PACKAGE, "solvers") for path in sorted((root / folder).rglob("*.py"))]
    names = (".".join(path.relative_to(root).with_suffix("").parts) for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


MODULES = read_modules()


@functools.cache
def arrows_of(source: str, text: str) -> list[Arrow]:
    """The imports of our own modules in a source text; an imported submodule is the target itself."""
    arrows: list[Arrow] = []

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if for_types and source == REGISTRY:
                continue
            if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == PACKAGE:
                for alias in child.names:
                    address, submodule = str(child.module), f"{child.module}.{alias.name}"
                    arrows.append(Arrow(source, submodule if submodule in MODULES else address, address, inside))
            elif isinstance(child, ast.Import):
                ours = [alias.name for alias in child.names if alias.name.split(".")[0] == PACKAGE]
                arrows.extend(Arrow(source, name, name, inside) for name in ours)
            visit(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(ast.parse(text), False)
    return arrows


def room_of(module: str) -> str:
    """The name by which ORDER knows a module's room."""
    parts = module.split(".")
    return parts[0] if parts[0] == "solvers" else ".".join(parts[1:2])


def is_package(module: str) -> bool:
    return module in MODULES and MODULES[module].name == "__init__.py"


def door_missed(arrow: Arrow) -> str | None:
    """The door that an import goes past; None where it uses the door, or stays within its own room."""
    source = arrow.source.split(".") if is_package(arrow.source) else arrow.source.split(".")[:-1]
    target = arrow.target.split(".")
    shared = 0
    while shared < min(len(source), len(target)) and source[shared] == target[shared]:
        shared += 1
    length = shared + 1
    while length < len(target) and ".".join(target[:length]) in CORRIDORS:
        length += 1
    door = ".".join(target[:length])
    if door == arrow.target or not is_package(door):
        return None
    return None if arrow.address == door and Arrow(door, arrow.target, door) in arrows_as_they_are() else door


def points_upward(arrow: Arrow) -> bool:
    """Whether an import leads to a room of the same line of ORDER or of a later one."""
    source, target = room_of(arrow.source), room_of(arrow.target)
    if source == target or {source, target} & OUTSIDE_THE_ORDER:
        return False
    return LEVEL[target] >= LEVEL[source]


def circle(arrows: list[Arrow]) -> list[str] | None:
    """The modules of one circle of imports, or None."""
    graph: dict[str, set[str]] = {}
    for arrow in arrows:
        graph.setdefault(arrow.source, set()).add(arrow.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def all_arrows(changed: dict[str, str] | None = None) -> list[Arrow]:
    """The imports of all modules, of some as they would be with another source text."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
    texts.update(changed or {})
    return [arrow for name, text in texts.items() for arrow in arrows_of(name, text)]


@functools.cache
def arrows_as_they_are() -> list[Arrow]:
    """The imports of all modules, read once where a test looks at them."""
    return all_arrows()


def test_every_room_has_its_place_in_the_order():
    assert {room_of(module) for module in MODULES} - OUTSIDE_THE_ORDER == set(LEVEL)


def test_no_arrow_points_upward():
    assert [arrow for arrow in arrows_as_they_are() if points_upward(arrow)] == []


def test_there_is_no_circle_of_modules_or_of_rooms():
    assert circle(arrows_as_they_are()) is None
    rooms = [Arrow(room_of(arrow.source), room_of(arrow.target), "") for arrow in arrows_as_they_are()]
    assert circle([arrow for arrow in rooms if arrow.source != arrow.target]) is None


def test_nothing_of_ours_is_imported_inside_a_function_below_the_command_line():
    assert [
        arrow
        for arrow in arrows_as_they_are()
        if arrow.inside_function and room_of(arrow.source) not in ("cli", "__main__")
    ] == []


def test_nobody_goes_past_a_door():
    assert [(arrow, door) for arrow in arrows_as_they_are() if (door := door_missed(arrow))] == []


def test_the_doors_say_in_a_sentence_what_lives_behind_them():
    doors = [name for name in MODULES if is_package(name)]
    sentences = {name: ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8"))) for name in doors}
    assert [name for name, sentence in sentences.items() if not sentence] == []


def test_no_two_test_files_have_the_same_name():
    """Folders of tests are no packages, so that pytest imports their files by name alone."""
    counts = Counter(path.name for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name, count in counts.items() if count > 1 and name != "conftest.py"] == []


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("convexnn_bench.operator.lifted", "from convexnn_bench.problem import Problem", "upward"),
        ("convexnn_bench.records.fields", "from convexnn_bench.harness import Cell", "upward"),
        ("convexnn_bench.report.make", "from convexnn_bench.cones.all_cones import Cones", "door"),
        ("convexnn_bench.cones.facets", "from convexnn_bench.cones.all_cones import Cones", "circle"),
    ],
)
def test_an_arrow_turned_round_is_found(module, line, broken):
    """The rules above are no formality: each is broken by one added line."""
    arrows = all_arrows({module: f"{line}\n{MODULES[module].read_text(encoding='utf-8')}"})
    found = {
        "upward": any(map(points_upward, arrows)),
        "door": any(map(door_missed, arrows)),
        "circle": circle(arrows) is not None,
    }
    assert found[broken]
