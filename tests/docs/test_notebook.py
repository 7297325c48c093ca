"""The notebook runs from top to bottom, and its results show themselves."""

from __future__ import annotations

import ast
import base64
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import pytest

from glassworld.trace import analyze
from glassworld.trace.inline_html import IcicleBox, icicle_html
from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
VIDEO = re.compile(r'src="data:video/mp4;base64,([^"]+)"')


def _cells() -> list[str]:
    """Return the code of the notebook's cells."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _execute(cells: list[str]) -> list[Any]:
    """Run cells in one namespace, as Jupyter does; return the value of each last expression."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    values = []
    for cell in cells:
        *lines, last = ast.parse(cell).body
        value = None
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(lines, []), "cell", "exec"), namespace)
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
        else:
            exec(compile(cell, "cell", "exec"), namespace)
        values.append(value)
    return values


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_results() -> None:
    values = _execute(_cells())
    world, rollout, shapes, same = values[0], values[1], values[2], values[-1]
    assert "gta_drive: forward, back; mouse" in world._repr_html_()
    assert rollout.frames.shape == (45, 64, 96, 3)
    assert shapes == [(1, 64, 96, 3), (4, 64, 96, 3), (4, 64, 96, 3)]
    found = VIDEO.search(rollout._repr_html_())
    assert found is not None
    with av.open(BytesIO(base64.b64decode(found[1]))) as video:
        assert sum(1 for _ in video.decode(video=0)) == 45
        assert video.streams.video[0].average_rate == 12
    shown = values[4]._repr_html_()
    assert shown.startswith("<table>")
    assert "<svg" in shown
    assert "self_attention" in shown.lower()
    assert same is True


def test_the_notebook_holds_no_results_and_no_errors() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_icicle_boxes_lie_side_by_side_below_their_parents() -> None:
    boxes = [
        IcicleBox("run", -1, 100, "#111111"),
        IcicleBox("<first>", 0, 25, "#222222"),
        IcicleBox("second", 0, 50, "#333333"),
        IcicleBox("inside", 2, 50, "#444444"),
    ]
    chart = icicle_html(boxes)
    sizes = re.findall(r'<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)"', chart)
    numbers = [tuple(map(float, size)) for size in sizes]
    assert numbers == [(0, 0, 760), (0, 22, 190), (190, 22, 380), (190, 44, 380)]
    assert "&lt;first&gt;" in chart
    assert "<first>" not in chart


def test_icicle_without_time_is_empty() -> None:
    assert icicle_html([]) == ""
    assert icicle_html([IcicleBox("run", -1, 0, "#111111")]) == ""


def test_an_analysis_shows_the_slowest_tag_first(tmp_path: Path) -> None:
    events = [
        {
            "ph": "X",
            "cat": "user_annotation",
            "name": name,
            "pid": 1,
            "tid": 1,
            "ts": ts,
            "dur": dur,
        }
        for name, ts, dur in (("outer", 0, 1000), ("fast", 0, 200), ("slow <&>", 300, 600))
    ]
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    shown = analyze(trace)._repr_html_()
    names = re.findall('<tr><td style="text-align: left">([^<]*)</td>', shown)
    assert names == ["slow &lt;&amp;&gt;", "outer", "fast"]
    assert "60.0%" in shown
