"""Imports point one way: between the parts of the package, and between the rooms of each part."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "glassworld"

FOUNDATION = {"errors", "files", "file_signatures", "specs", "profiling"}
ENGINE = FOUNDATION | {"models", "engine"}
MAY_USE = {
    "errors": set(),
    "files": {"errors"},
    "folder_lock": {"errors", "files"},
    "file_signatures": set(),
    "specs": {"errors"},
    "profiling": {"errors", "files", "profiling"},
    "models": {"errors", "specs", "profiling", "models"},
    "engine": ENGINE,
    "trace": {"errors", "files", "profiling.registry", "trace"},
    "load_flags": {"engine.checkpoint"},
    "play": ENGINE | {"play", "progress", "load_flags"},
    "serve": ENGINE | {"serve", "play", "load_flags"},
    "training": ENGINE | {"training", "folder_lock", "progress", "load_flags"},
    "gym": ENGINE,
    "worlds": ENGINE,
    "bench": ENGINE | {"bench", "play", "trace", "progress", "load_flags"},
    "batch": ENGINE | {"batch", "folder_lock", "load_flags"},
    "progress": ENGINE,
    "generate": ENGINE | {"progress", "trace"},
    "info": {"files", "trace"},
    "cli": {"errors", "load_flags", "engine.checkpoint", "generate", "info", "trace"},
    "__main__": {"cli"},
}
"""By part (a folder or a file of the package): the parts, or single modules, it may import."""

ROOMS = {
    "trace": [
        "inline_html reading",
        "timeline",
        "analyzers",
        "rules",
        "report",
        "writing",
        "mcp_server",
        "cli",
    ],
    "models": ["ops", "transformer vae vision", "kernels"],
    "engine": [
        "runtime networks run_config cuda_graphs sampling",
        "actions arguments",
        "variants",
        "media",
        "conditioning",
        "state",
        "pipeline",
        "overlap rollout",
        "session_file",
        "session",
        "light_session",
        "checkpoint",
        "world",
        "batch acceleration",
        "checkpoint.tiny_decoder",
        "checkpoint.load",
    ],
}
"""By part: its rooms (folders or modules) from the ground up. A room may import those before it,
not those after it; rooms in one string do not import each other."""

TORCH_FREE = {"trace", "errors", "files", "file_signatures", "load_flags", "cli", "__main__"}

MOST_MODULES = 16  # in one folder: more, and a reader no longer takes them in at a glance

FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def _name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in FILES}


def _for_types_only(tree: ast.Module) -> set[ast.AST]:
    """Return the import nodes under `if TYPE_CHECKING:`."""
    guarded = (
        block
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
    )
    return {node for block in guarded for line in block.body for node in ast.walk(line)}


@cache
def _imports(path: Path, for_types: bool = False) -> list[str]:
    """Return every name a file imports anywhere in it, as absolute dotted names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = _for_types_only(tree)
    names: list[str] = []
    for node in ast.walk(tree):
        if (node in guarded) != for_types:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _used_modules(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports at run time."""
    for name in _imports(path):
        module = name if name in MODULES else name.rpartition(".")[0]
        if module in MODULES and module != _name(path):
            yield module


def _room(part: str, module: str) -> int | None:
    """Return the position of a module's room in its part's order, None for the part itself."""
    names = module.removeprefix(f"glassworld.{part}.").split(".")
    for room in (".".join(names[:2]), names[0]):
        for position, rooms in enumerate(ROOMS[part]):
            if room in rooms.split():
                return position
    return None


def test_import_graph_has_no_cycle() -> None:
    graph = {name: set(_used_modules(path)) for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_part_imports_only_what_it_may(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in (*_imports(path), *_imports(path, for_types=True)):
        root, *names = module.split(".")
        if root == "glassworld" and names[0] != "__version__":
            used = {names[0], ".".join(names[:2])}
            assert used & MAY_USE[part], f"{part} must not import {module}"
        elif part in TORCH_FREE:
            assert root != "torch", f"{part} must work without torch"


@pytest.mark.parametrize("part", ROOMS)
def test_room_imports_only_rooms_below_it(part: str) -> None:
    for name, path in MODULES.items():
        if not name.startswith(f"glassworld.{part}."):
            continue
        own = _room(part, name)
        assert own is not None, f"{name}: add its room to ROOMS"
        for used in _used_modules(path):
            if not used.startswith(f"glassworld.{part}."):
                continue
            below = _room(part, used)
            assert below is not None, f"{used}: add its room to ROOMS"
            same = below == own and used.split(".")[2] == name.split(".")[2]
            assert below < own or same, f"{name} must not import {used}: its room comes later"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.name != "__init__.py"],  # a package may export lazily
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_type_checking_imports_are_types(path: Path) -> None:
    for name in _imports(path, for_types=True):
        last = name.rpartition(".")[2]
        assert last[0].isupper(), f"{name} is imported for types only but is no type"


def test_every_part_has_a_rule() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert parts == set(MAY_USE)


def test_folders_are_small() -> None:
    counts: dict[Path, int] = {}
    for path in FILES:
        counts[path.parent] = counts.get(path.parent, 0) + (path.name != "__init__.py")
    crowded = {str(folder): count for folder, count in counts.items() if count > MOST_MODULES}
    assert crowded == {}


def test_public_names_are_unique() -> None:
    homes: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                homes.setdefault(node.name, []).append(name)
    twice = {
        name: where for name, where in homes.items() if len(where) > 1 and not name.startswith("_")
    }
    assert twice == {}


def test_trace_analysis_never_loads_torch() -> None:
    modules = [name for name in MODULES if name.startswith("glassworld.trace")]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
