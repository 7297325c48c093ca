"""The report as one offline HTML page: data, style and script in a single file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glassworld.files import replacing
from glassworld.profiling import registry as tags
from glassworld.trace import blocks, questions
from glassworld.trace.advice import advise
from glassworld.trace.analysis import Analysis
from glassworld.trace.expectation import read_ceilings, run_config
from glassworld.trace.expected import expected_table, guide_note
from glassworld.trace.export import rows_json
from glassworld.trace.memory import held
from glassworld.trace.notes import notes
from glassworld.trace.optable import operator_rows
from glassworld.trace.roofline import roofline

_HERE = Path(__file__).parent
MOST_TAGS = 1500
_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><noscript>This report draws itself with JavaScript, all of it in this file.</noscript>
<main id="report"></main>
<script type="application/json" id="data">{data}</script><script>{script}</script></body></html>
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
        script=(_HERE / "page.js").read_text(),
        data=data,
    )
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def page_data(analysis: Analysis) -> dict[str, Any]:
    """What the page shows."""
    trace = analysis.trace
    config = run_config(trace.metadata)
    ceilings = read_ceilings(config) if config else None
    update = questions.update_cost(analysis)
    return {
        "trace": Path(trace.path).name,
        "events": trace.events,
        "windowMs": analysis.window_ns / 1e6,
        "onGpu": analysis.on_gpu,
        "coverage": rows_json([analysis.coverage])[0],
        "notes": notes(analysis),
        "advice": rows_json(advise(analysis)),
        "stages": rows_json(questions.stages(analysis)),
        "blocks": rows_json(blocks.blocks(analysis)),
        "drift": blocks.drift(analysis),
        "steps": rows_json(blocks.steps(analysis)),
        "heat": _heat(analysis),
        "transformer": rows_json(questions.transformer(analysis)),
        "layers": rows_json(questions.layers(analysis)),
        "decoder": rows_json(questions.decoder(analysis)),
        "update": rows_json(update)[0] if update else None,
        "expected": rows_json(expected_table(analysis)),
        "roofline": rows_json(roofline(analysis)),
        "guideNote": guide_note(analysis),
        "ceilings": rows_json([ceilings])[0] if ceilings else None,
        "tags": _tags(analysis),
        "operators": _operators(analysis),
        "gaps": rows_json(analysis.gaps[:20]),
        "memory": rows_json(held(analysis)[:40]),
    }


def _tags(analysis: Analysis) -> list[list[Any]]:
    """The tree by pattern: parent, name, count, CPU, own CPU, busy, idle ms, kernels."""
    parent = analysis.tree.by_pattern.parent
    return [
        [
            int(parent[g]),
            row.name,
            row.instances,
            round(row.cpu_ms, 3),
            round(row.self_cpu_ms, 3),
            round(row.gpu_busy_ms, 3),
            round(row.gpu_idle_ms, 3),
            row.gpu_kernels,
        ]
        for g, row in enumerate(analysis.patterns[:MOST_TAGS])
    ]


def _operators(analysis: Analysis) -> dict[str, list[dict[str, Any]]]:
    """The operator table of the whole trace and of each kind of tag."""
    made = {"": rows_json(operator_rows(analysis)[:40])}
    if not len(analysis.operators):
        return made
    wanted = [p for p in analysis.tree.patterns if p in tags.REGISTRY] or analysis.tree.patterns
    for pattern in wanted[:60]:
        rows = operator_rows(analysis, pattern)[:15]
        if rows:
            made[pattern] = rows_json(rows)
    return made


def _heat(analysis: Analysis) -> list[list[float]]:
    """Milliseconds by block (rows) and part: each step, the update, the decode."""
    tree = analysis.tree
    found = tree.where(tags.BLOCK)
    row_of = np.full(len(tree) + 1, -1)
    row_of[found] = np.arange(len(found))
    steps = tree.where(tags.DENOISING_STEP)
    width = int(tree.dims["step"][steps].max(initial=-1)) + 1
    heat = np.zeros((len(found), width + 2))
    updates, decodes = tree.where(tags.UPDATE_CACHE), tree.where(tags.VAE_DECODE)
    for instances, column in (
        (steps, tree.dims["step"][steps]),
        (updates, np.full(len(updates), width)),
        (decodes, np.full(len(decodes), width + 1)),
    ):
        row = row_of[tree.ancestor(instances, tags.BLOCK)]
        inside = row >= 0
        np.add.at(heat, (row[inside], column[inside]), analysis.time_ns(instances)[inside] / 1e6)
    return [[round(float(v), 3) for v in row] for row in heat]
