"""Imports point one way; each folder may use only those listed for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "glassworld"

FOUNDATION = {"errors", "files", "specs", "profiling"}
ENGINE = FOUNDATION | {"models", "engine"}
MAY_USE = {
    "errors": set(),
    "files": {"errors"},
    "specs": {"errors"},
    "profiling": {"errors", "files", "profiling"},
    "models": {"errors", "specs", "profiling", "models"},
    "engine": ENGINE,
    "trace": {"errors", "files", "profiling.registry", "trace"},
    "play": ENGINE | {"play", "progress", "load_flags"},
    "training": ENGINE | {"training", "progress", "load_flags"},
    "gym": ENGINE,
    "worlds": ENGINE,
    "bench": ENGINE | {"bench", "play", "trace", "progress", "load_flags"},
    "progress": ENGINE,
    "generate": ENGINE | {"progress", "trace"},
    "load_flags": {"engine.checkpoint"},
    "cli": {
        "errors",
        "engine.checkpoint",
        "generate",
        "load_flags",
        "trace",
        "play",
        "training",
        "bench",
    },
    "__main__": {"cli"},
}
"""By part (a folder or a file of the package): the parts, or single modules, it may import."""

TORCH_FREE = {"trace", "errors", "files", "cli", "load_flags", "__main__"}


def _imports(path: Path) -> Iterator[str]:
    """Every module a file imports anywhere in it, as an absolute dotted name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in _imports(path):
        root, *names = module.split(".")
        if root == "glassworld" and names[0] != "__version__":
            used = {names[0], ".".join(names[:2])}
            assert used & MAY_USE[part], f"{part} must not import {module}"
        elif part in TORCH_FREE:
            assert root != "torch", f"{part} must work without torch"


def test_every_part_has_a_rule() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert parts == set(MAY_USE)


def test_trace_analysis_never_loads_torch() -> None:
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in FILES
        if path.relative_to(PACKAGE).parts[0] == "trace"
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0
