"""The tag index in the docs is true."""

from __future__ import annotations

from glassworld.profiling.registry import REGISTRY
from glassworld.profiling.tag_index import PAGE, tag_index


def test_the_page_in_the_docs_is_current() -> None:
    assert PAGE.read_text() == tag_index(), "run python -m glassworld.profiling.tag_index"


def test_every_tag_is_opened_somewhere() -> None:
    rows = {
        line.split("|")[1].strip(" `"): line for line in tag_index().splitlines() if "|" in line
    }
    for pattern in REGISTRY:
        assert ".py:" in rows[pattern], f"{pattern} is in the registry but never opened"


def test_the_example_runs_as_it_stands() -> None:
    exec(PAGE.read_text().split("```python\n")[1].split("```")[0], {})
