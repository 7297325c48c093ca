"""The report as one offline HTML page: data, style and script in a single file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glassworld.files import replacing
from glassworld.profiling import registry as tags
from glassworld.trace.advice import advise
from glassworld.trace.analyzers import blocks
from glassworld.trace.analyzers import breakdown as questions
from glassworld.trace.analyzers.bottleneck import bound
from glassworld.trace.analyzers.caveats import notes
from glassworld.trace.analyzers.expected_time import expected_table
from glassworld.trace.analyzers.operators import kernel_rows, operator_rows
from glassworld.trace.analyzers.peak_rates import read_ceilings
from glassworld.trace.analyzers.roofline import roofline
from glassworld.trace.report.json_export import rows_json
from glassworld.trace.report.sections import QUESTIONS, blamed
from glassworld.trace.timeline.analysis import Analysis

_HERE = Path(__file__).parent
_SCRIPTS = ("base.js", "icicle.js", "charts.js", "sections.js")
MOST_TAGS, MOST_OPERATORS, MOST_HELD = 1500, 40, 24
MOST_TABLES, MOST_UNDER_A_TAG, MOST_STEPS = 60, 15, 100
_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><noscript>This report draws itself with JavaScript, all of it in this file.</noscript>
<main id="report"></main>
<script type="application/json" id="data">{data}</script>
<script type="module">{script}</script></body></html>
"""


def page_path(trace: Path) -> Path:
    """Where the report of `trace` goes: beside it, or here where that folder is read-only."""
    name = trace.name.removesuffix(".gz").removesuffix(".json")
    folder = trace.parent if os.access(trace.parent, os.W_OK) else Path()
    return folder / f"{name}_report.html"


def write_page(path: Path, analysis: Analysis) -> None:
    """Write the report; it needs no network and opens from a file."""
    data = msgspec.json.encode(page_data(analysis)).decode().replace("<", "\\u003c")
    page = _TEMPLATE.format(
        title="glassworld trace report",
        style=(_HERE / "page.css").read_text(),
        script="".join((_HERE / name).read_text() for name in _SCRIPTS),
        data=data,
    )
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def page_data(analysis: Analysis) -> dict[str, Any]:
    """What the page shows."""
    trace = analysis.trace
    ceilings = read_ceilings(trace.metadata)
    update, verdict = questions.update_cost(analysis), bound(analysis)
    speed = blocks.pace(analysis)
    return {
        "trace": Path(trace.path).name,
        "events": trace.events,
        "windowMs": analysis.window_ns / 1e6,
        "onGpu": analysis.on_gpu,
        "coverage": asdict(analysis.coverage),
        "bound": asdict(verdict) if verdict else None,
        "pace": asdict(speed) | {"behind": speed.behind} if speed else None,
        "notes": notes(analysis),
        "advice": [{**asdict(found), "measured": found.measured} for found in advise(analysis)],
        "questions": _questions(analysis),
        "stages": rows_json(questions.stages(analysis)),
        "blocks": rows_json(blocks.blocks(analysis)),
        "steps": rows_json(blocks.steps(analysis)),
        "heat": _heat(analysis),
        "transformer": rows_json(questions.transformer(analysis)),
        "layers": rows_json(questions.layers(analysis)),
        "decoder": rows_json(questions.decoder(analysis)),
        "update": rows_json(update)[0] if update else None,
        "expected": rows_json(expected_table(analysis)),
        "roofline": rows_json(roofline(analysis)),
        "ceilings": asdict(ceilings) if ceilings else None,
        "tags": _tags(analysis),
        "operators": _by_tag(analysis, operator_rows),
        "kernels": _by_tag(analysis, kernel_rows) if analysis.on_gpu else {},
        "modelTag": tags.DIFFUSION_FORWARD,
        "gaps": [{**asdict(gap), "blamed": blamed(gap)} for gap in analysis.gaps[:20]],
        "memory": rows_json(analysis.memory[:MOST_HELD]),
    }


def _questions(analysis: Analysis) -> dict[str, dict[str, Any]]:
    return {
        asked.command: {
            "title": asked.title,
            "missing": asked.missing,
            "answered": bool(asked.rows(analysis)),
            "remarks": asked.remarks(analysis),
        }
        for asked in QUESTIONS
    }


def _tags(analysis: Analysis) -> list[list[Any]]:
    """The tree by pattern, parents first; the columns are named in icicle.js."""
    parents = analysis.pattern_parents
    return [
        [
            parents[g],
            row.name,
            row.pattern,
            row.instances,
            round(row.cpu_ms, 3),
            round(row.self_cpu_ms, 3),
            round(row.gpu_busy_ms, 3),
            round(row.gpu_self_ms, 3),
            round(row.gpu_idle_ms, 3),
            row.gpu_kernels,
        ]
        for g, row in enumerate(analysis.patterns[:MOST_TAGS])
    ]


def _by_tag(
    analysis: Analysis, rows_of: Callable[[Analysis, str | None], Sequence[Any]]
) -> dict[str, list[dict[str, Any]]]:
    """A table of operators or kernels of the whole trace ("") and of each kind of tag."""
    patterns = list(dict.fromkeys(row.pattern for row in analysis.patterns))
    wanted = [pattern for pattern in patterns if pattern in tags.REGISTRY] or patterns
    made = {"": rows_json(rows_of(analysis, None)[:MOST_OPERATORS])}
    for pattern in wanted[:MOST_TABLES] if made[""] else []:
        rows = rows_of(analysis, pattern)[:MOST_UNDER_A_TAG]
        if rows:
            made[pattern] = rows_json(rows)
    return made


def _heat(analysis: Analysis) -> list[list[float]]:
    """Milliseconds by block (rows) and part: each step, the encoding, the update, the decode."""
    tree = analysis.tree
    found = tree.where(tags.BLOCK)
    row_of = np.full(len(tree) + 1, -1)
    row_of[found] = np.arange(len(found))
    steps = tree.where(tags.DENOISING_STEP)
    numbers, which = np.unique(tree.dims["step"][steps], return_inverse=True)
    shown = which < MOST_STEPS
    width = min(MOST_STEPS, len(numbers))
    columns = [(steps[shown], which[shown])]
    for pattern in (tags.CONDITION_ENCODE, tags.UPDATE_CACHE, tags.VAE_DECODE):
        parts = tree.where(pattern)
        columns.append((parts, np.full(len(parts), width + len(columns) - 1)))
    heat = np.zeros((len(found), width + 3))
    for instances, column in columns:
        row = row_of[tree.ancestor(instances, tags.BLOCK)]
        inside = row >= 0
        np.add.at(heat, (row[inside], column[inside]), analysis.time_ns(instances)[inside] / 1e6)
    return [[round(float(v), 3) for v in row] for row in heat]
