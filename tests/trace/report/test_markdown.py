"""Comparisons as Markdown."""

import json
import re

import pytest

from glassworld.trace.report.markdown import MOST_ROWS
from tests.support.traces import CpuTrace, engine_run, invoke, write


def table_cells(text):
    """Return the cells of the rows of the table in a Markdown text, its head left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_structure_markdown_has_the_figures_of_the_json(run, tmp_path):
    events = engine_run(slow=lambda **where: 400.0 if where["layer"] == 1 else 0.0)
    for event in events:
        event["name"] = event["name"].replace("Feed_Forward", "MLP")
    after = write(tmp_path / "after.json", events)
    text = invoke("compare", run(), after, "--structure", "--markdown").output
    diff = json.loads(invoke("compare", run(), after, "--structure", "--json").output)
    changed = [c for c in diff["changes"] if c["kind"] != "same" or c["self_change_ms"]]
    rows = table_cells(text)
    assert len(rows) == len(changed) < len(diff["changes"])
    for (name, kind, _, before, later, change), expected in zip(rows, changed, strict=True):
        assert kind == expected["kind"]
        assert expected["after"]["path"][-1] in name
        for cell, side in ((before, "before"), (later, "after")):
            assert float(cell.replace(",", "")) == pytest.approx(
                expected[side]["self_ms"], abs=5e-4
            )
        assert float(change.replace(",", "")) == pytest.approx(expected["self_change_ms"], abs=5e-4)
    assert "`DiT_Feed_Forward -> DiT_MLP`" in text
    kinds = [c["kind"] for c in diff["changes"]]
    same, renamed = kinds.count("same"), kinds.count("renamed")
    assert same + renamed == len(kinds) > same > 0
    assert f"{same} same, {renamed} renamed, 0 moved, 0 inserted, 0 removed." in text
    windows = " -> ".join(f"{ms:,.3f}" for ms in diff["window_ms"])
    assert f"window {windows}." in text


def test_structure_markdown_of_a_run_with_itself_says_that_nothing_changed(run):
    text = invoke("compare", run(), run(), "--structure", "--markdown").output
    assert "Nothing changed." in text
    assert "|" not in text


def test_structure_markdown_is_short_and_keeps_its_cells(run, tmp_path):
    clock = CpuTrace()
    for i in range(3 * MOST_ROWS):
        with clock.tag("a|b`c" + chr(65 + i % 26) * (1 + i // 26)):
            clock.op("aten::mm", 10 + i)
    text = invoke(
        "compare", run(), write(tmp_path / "b.json", clock.events), "--structure", "--markdown"
    ).output
    rows = table_cells(text)
    assert len(rows) == MOST_ROWS + 1
    assert {len(row) for row in rows} == {6}
    assert re.fullmatch(r"\d+ more", rows[-1][0])
