"""The layout of the package: its imports, and the sizes of its parts."""

import ast
import collections
import functools
import graphlib
import typing as t
from pathlib import Path

ROOT = Path(__file__).parents[1] / "target_moengage_cohort"
NAME = ROOT.name
LEVELS = {
    "": 0,  # the package's own __init__
    "core": 0,
    "settings": 1,
    "singer": 2,
    "moengage": 2,
    "ledger": 2,
    "delivery": 3,
    "sync": 4,
    "cli": 5,
    "target": 6,
    "__main__": 6,
}
ENGINES = ("ledger.duckdb", "ledger.postgres")
DELIVERY_DOORS = {"delivery.delivery", "delivery.ports"}

MAX_ENTRIES, MAX_FLOORS = 12, 9
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_ARGUMENTS = 300, 40, 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def _folder(module: str) -> str:
    """Return the folder or module of the root package that a module belongs to."""
    return module.partition(".")[0]


def _imported(module: str, node: ast.AST) -> t.Iterator[str]:
    """Yield the full names that a node imports, attributes of modules among them.

    A string that is a module's full name counts too, for what is imported when it is needed.
    """
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = [NAME, *module.split(".")] if module else [NAME]
            up = node.level - (FILES[module].name == "__init__.py")
            base = ".".join([*package[: len(package) - up], *base.split(".")]).rstrip(".")
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and str(node.value).removeprefix(f"{NAME}.") in FILES:
        yield str(node.value)


@functools.cache
def imports() -> dict[str, set[str]]:
    """Return the modules of this package that each module imports, wherever and whatever for."""
    graph: dict[str, set[str]] = {module: set() for module in FILES}
    for module, tree in TREES.items():
        for name in (name for node in ast.walk(tree) for name in _imported(module, node)):
            head, _, found = name.partition(".")
            while head == NAME and found not in FILES:
                found = found.rpartition(".")[0]
            if head == NAME and found != module and (found or name != NAME):
                graph[module].add(found)
    return graph


def edges() -> list[tuple[str, str]]:
    """Return each import as the importing and the imported module."""
    return sorted((module, other) for module, others in imports().items() for other in others)


def folder_imports() -> dict[str, set[str]]:
    """Return the imports between the folders and modules of the root package."""
    graph: dict[str, set[str]] = {_folder(module): set() for module in FILES}
    for module, other in edges():
        if _folder(module) != _folder(other):
            graph[_folder(module)].add(_folder(other))
    return graph


def functions() -> t.Iterator[tuple[str, Function]]:
    """Yield each function and method of the package, with its module."""
    for module, tree in TREES.items():
        yield from ((module, node) for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Count the lines of a function's body, its docstring aside."""
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Return circles of a graph; each is reported once and then cut open."""
    graph, found = {node: set(others) for node, others in graph.items()}, []
    while True:
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            imported_first = error.args[1][::-1]
            found.append(" -> ".join(imported_first))
            graph[imported_first[0]].discard(imported_first[1])
        else:
            return found


def test_a_folder_imports_only_folders_to_its_left():
    """Imports follow core <- settings <- singer, moengage, ledger <- delivery <- sync <- cli <-
    target, and singer, moengage and ledger do not import each other."""
    offenders = [
        f"{module} imports {other}"
        for module, other in edges()
        if "emulator" not in {_folder(module), _folder(other)}
        and _folder(module) != _folder(other)
        and LEVELS[_folder(module)] <= LEVELS[_folder(other)]
        and other  # the package's own __init__ holds its name and version
    ]
    assert not offenders, "\n".join(offenders)


def test_each_folder_has_its_place_in_the_import_rule():
    """No folder or module of the root package is left out of the import rule."""
    assert {*map(_folder, FILES)} - {"emulator"} <= LEVELS.keys()


def test_the_emulator_stands_alone():
    """The emulator imports nothing of the rest of the package, and only cli imports it."""
    offenders = [
        f"{module} imports {other}"
        for module, other in edges()
        if (_folder(module) == "emulator" and _folder(other) != "emulator")
        or (_folder(other) == "emulator" and _folder(module) not in {"emulator", "cli"})
    ]
    assert not offenders, "\n".join(offenders)


def test_only_the_list_of_engines_names_an_engine():
    """Outside the engine's folder only ledger.engines imports it."""
    offenders = [
        f"{module} imports {other}"
        for module, other in edges()
        if other.startswith(ENGINES) and not module.startswith((*ENGINES, "ledger.engines"))
    ]
    assert not offenders, "\n".join(offenders)


def test_delivery_is_used_through_its_doors():
    """Outside delivery only delivery.delivery and delivery.ports are imported."""
    offenders = [
        f"{module} imports {other}"
        for module, other in edges()
        if _folder(other) == "delivery"
        and _folder(module) != "delivery"
        and other not in DELIVERY_DOORS
    ]
    assert not offenders, "\n".join(offenders)


def test_no_modules_import_each_other_in_a_circle():
    """No modules import each other in a circle, for types either; but the interfaces of a stream's
    ledger and of its cohorts', of which each describes the other."""
    graph = {module: set(others) for module, others in imports().items()}
    graph["ledger.stream_ledger"].remove("ledger.cohort_ledger")
    offenders = circles(graph)
    assert not offenders, "\n".join(offenders)


def test_no_file_is_long():
    """No file of the package has more than 300 lines."""
    paths = (path for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in paths
    }
    offenders = [
        f"{name}: {length} lines"
        for name, length in sorted(lengths.items())
        if length > MAX_FILE_LINES
    ]
    assert not offenders, "\n".join(offenders)


def test_no_function_is_long():
    """No function has more than 40 lines, its docstring aside."""
    offenders = [
        f"{module}.{function.name}: {body_lines(function)} lines"
        for module, function in functions()
        if body_lines(function) > MAX_FUNCTION_LINES
    ]
    assert not offenders, "\n".join(offenders)


def test_no_constructor_takes_many_arguments():
    """No constructor has more than 6 arguments besides self."""
    offenders = []
    for module, function in functions():
        arguments = function.args
        count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]) - 1
        if count > MAX_ARGUMENTS and function.name == "__init__":
            offenders.append(f"{module}, line {function.lineno}: {count} arguments")
    assert not offenders, "\n".join(offenders)


def test_no_two_modules_share_a_name():
    """No two modules have the same name, or the same but for an s."""
    modules = collections.defaultdict(list)
    for module, path in FILES.items():
        if path.stem not in {"__init__", "__main__"}:
            modules[path.stem.removesuffix("s")].append(module)
    offenders = [" and ".join(sorted(same)) for same in modules.values() if len(same) > 1]
    assert not offenders, "\n".join(offenders)


def test_the_root_package_is_small():
    """The root package has at most 12 entries."""
    entries = sorted(path.name for path in ROOT.iterdir() if path.name != "__pycache__")
    assert MAX_ENTRIES >= len(entries), ", ".join(entries)


def test_the_house_is_not_high():
    """No chain of folders and root modules that import each other has more than 9 members."""
    graph = folder_imports()
    offenders = circles(graph)
    assert not offenders, "\n".join(offenders)
    chains: dict[str, list[str]] = {}
    for node in graphlib.TopologicalSorter(graph).static_order():
        below = max((chains[other] for other in graph.get(node, ())), key=len, default=[])
        chains[node] = [*below, node]
    longest = max(chains.values(), key=len)
    assert MAX_FLOORS >= len(longest), " <- ".join(longest)
