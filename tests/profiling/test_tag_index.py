"""The tag index in the docs is true, in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassworld.profiling import tag_index_zh
from glassworld.profiling.registry import REGISTRY
from glassworld.profiling.tag_index import CHINESE_PAGE, PAGE, chinese_tag_index, tag_index

PAGES = [(PAGE, tag_index), (CHINESE_PAGE, chinese_tag_index)]


@pytest.mark.parametrize(("page", "index"), PAGES)
def test_the_page_in_the_docs_is_current(page: Path, index) -> None:
    written = page.read_text(encoding="utf-8")
    assert written == index(), "run python -m glassworld.profiling.tag_index"


def _listed(page: str) -> list[str]:
    """Return the tags of a page's tables, in order."""
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| `")]
    return [row.strip("`") for row in rows]


def test_both_languages_list_the_same_tags() -> None:
    assert _listed(tag_index()) == _listed(chinese_tag_index())
    assert sorted(_listed(tag_index())) == sorted(REGISTRY)


def test_every_tag_has_a_chinese_description() -> None:
    missing = REGISTRY.keys() - tag_index_zh.COVERS.keys()
    assert not missing, f"add {sorted(missing)} to COVERS in glassworld/profiling/tag_index_zh.py"
    assert not tag_index_zh.COVERS.keys() - REGISTRY.keys()
    assert all(any("\u4e00" <= c <= "\u9fff" for c in t) for t in tag_index_zh.COVERS.values())


def test_every_tag_is_opened_somewhere() -> None:
    rows = {
        line.split("|")[1].strip(" `"): line for line in tag_index().splitlines() if "|" in line
    }
    for pattern in REGISTRY:
        assert ".py:" in rows[pattern], f"{pattern} is in the registry but never opened"


@pytest.mark.parametrize("page", [PAGE, CHINESE_PAGE])
def test_the_example_runs_as_it_stands(page: Path) -> None:
    exec(page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0], {})
