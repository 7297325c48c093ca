"""What a wheel and an sdist hold, and what the project says about itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import PurePosixPath

import pytest
import yaml

from glassworld import __version__
from tests.support.paths import ROOT

CACHES = {"__pycache__", ".git", ".venv", ".hypothesis", ".mypy_cache", ".ruff_cache"}
RESULTS = {"outputs", "runs", "data"}  # of this checkout's runs

FORMATS = ("wheel", "sdist")


def packed(kind: str) -> set[str]:
    """Return the files that a build would put into a wheel or an sdist."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    builder = WheelBuilder(str(ROOT)) if kind == "wheel" else SdistBuilder(str(ROOT))
    paths = (file.distribution_path for file in builder.recurse_included_files())
    return {path.replace("\\", "/") for path in paths}


def written() -> set[str]:
    """Return the files of the package in this checkout."""
    files = (path for path in (ROOT / "glassworld").rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


@pytest.mark.parametrize("kind", FORMATS)
def test_build_holds_every_file_of_the_package(kind: str) -> None:
    files = packed(kind)
    assert {file for file in files if file.startswith("glassworld/")} == written()
    for needed in ("py.typed", "play/static/main.js", "worlds/maze/transformer.safetensors"):
        assert f"glassworld/{needed}" in files


def test_wheel_holds_the_package_alone() -> None:
    assert {PurePosixPath(file).parts[0] for file in packed("wheel")} == {"glassworld"}


def test_sdist_holds_tests_and_docs_and_no_junk() -> None:
    files = packed("sdist")
    assert {"tests/test_packaging.py", "docs/play.md", "README.md", "inference.py"} <= files
    for file in files:
        parts = PurePosixPath(file).parts
        assert not CACHES & set(parts), file
        assert parts[0] not in RESULTS, file
        assert not file.startswith("."), file


def test_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert next(version for version in versions if version != "Unreleased") == __version__


def test_workflows_test_the_versions_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_bytes())
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == named
    assert project["requires-python"] == f">={named[0]}"
    assert f"torch>={matrix['torch'][0]}" in project["dependencies"]
