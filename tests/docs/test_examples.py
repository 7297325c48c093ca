"""The examples of the README, of the guides and of the folder run as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from glassworld import Action
from glassworld.trace.rules.rule import RULES
from tests.support.paths import ROOT
from tests.support.traces import CONFIG, engine_run, write

PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS_FILES = re.compile(r"^.*Skywork.*$", re.MULTILINE)  # a line that needs the released files


def _code(page: str) -> str:
    """Return all Python of a page as one program, with a short run instead of a long one."""
    blocks = PYTHON.findall((ROOT / page).read_text(encoding="utf-8"))
    return NEEDS_FILES.sub("", "\n".join(blocks)).replace("1500", "6")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["README.md", "docs/quickstart.md", "docs/embedding.md", "docs/profiling.md"]
)
def test_the_python_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted((ROOT / "glassworld" / "worlds" / "maze" / "pictures").iterdir())
    for name, image in zip(("image.png", "other.png"), images, strict=False):
        shutil.copy(image, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(_code(page), page, "exec"), {})


@pytest.mark.slow
def test_the_python_of_the_guide_to_gymnasium_runs() -> None:
    pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    namespace: dict[str, object] = {}
    exec(compile(_code("docs/gymnasium.md"), "gymnasium.md", "exec"), namespace)
    assert namespace["frame"].shape == (64, 96, 3)  # type: ignore[attr-defined]


def test_the_environment_of_the_example_moves_by_its_keys() -> None:
    pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    mapping = f"gymnasium:Dot-v0@{ROOT / 'examples' / 'own_environment.py'}"
    from glassworld.training.sources import open_source

    source = open_source(mapping, seed=1)
    try:
        first = source.reset()
        assert first.shape == (64, 96, 3)
        source.step(Action((0, 0), (0.0, 0.0)))  # the first block: the start image
        right = source.step(Action((0, 0), (0.0, 0.1)))[-1]
        column = [float(np.nonzero(frame[..., 0] == 250)[1].mean()) for frame in (first, right)]
        assert column[1] > column[0]
    finally:
        source.close()


def test_the_rule_of_the_contributing_guide_finds_what_its_test_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    part = guide.split("## Add an advice rule")[1].split("\n## ")[0]
    code = [dedent(each) for each in re.findall(r"^   ```python\n(.*?)^   ```", part, re.M | re.S)]
    monkeypatch.setattr("glassworld.trace.rules.rule.RULES", RULES.copy())
    namespace: dict[str, Any] = {}
    for block in code:
        exec(compile(block, "CONTRIBUTING.md", "exec"), namespace)

    def run(**options: Any) -> Path:
        return write(tmp_path / "run.json", engine_run(**options), config=CONFIG)

    namespace["test_slow_upsampling_is_found_beside_few_layers"](run)
