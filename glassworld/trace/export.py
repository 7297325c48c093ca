"""The analysis as one JSON document: the contract for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glassworld.files import replacing
from glassworld.trace import blocks, questions
from glassworld.trace.advice import advise
from glassworld.trace.analysis import Analysis
from glassworld.trace.bound import bound
from glassworld.trace.expected import expected_table
from glassworld.trace.notes import notes
from glassworld.trace.optable import model_kernels, model_operators
from glassworld.trace.roofline import roofline

FORMAT = 1


def tags_json(analysis: Analysis, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One object per path of names, its instances of `instance_rows` under `instances_detail`."""
    groups, names = analysis.tree.by_name, analysis.tree.names
    order = np.argsort(groups.of, kind="stable")
    bounds = np.searchsorted(groups.of[order], np.arange(len(groups) + 1))
    details = {
        groups.path(g, names): [rows[i] for i in order[bounds[g] : bounds[g + 1]]]
        for g in range(len(groups))
    }
    return [
        {**_rounded(asdict(tag)), "instances_detail": details.get(tag.path, [])}
        for tag in analysis.tags
    ]


def instance_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """One object per tag instance, in the order of the trace file; milliseconds."""
    tree, device = analysis.tree, analysis.device
    start = ((tree.rows["start"] - analysis.origin_ns) / 1e6).tolist()
    cpu = (tree.cpu_ns / 1e6).tolist()
    busy = (device.busy / 1e6).tolist()
    kernels = device.kernels.tolist()
    names = tree.rows["name"].tolist()
    return [
        {
            "name": tree.names[names[i]],
            "start_ms": start[i],
            "cpu_ms": cpu[i],
            "gpu_busy_ms": busy[i],
            "gpu_kernels": kernels[i],
        }
        for i in range(len(tree))
    ]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}


def analysis_json(analysis: Analysis) -> dict[str, Any]:
    """The whole analysis; times in milliseconds from the trace's first event."""
    trace, instances = analysis.trace, instance_rows(analysis)
    update, verdict = questions.update_cost(analysis), bound(analysis)
    return {
        "format": FORMAT,
        "trace": trace.path,
        "events": trace.events,
        "window_ms": analysis.window_ns / 1e6,
        "time": "gpu" if analysis.on_gpu else "cpu",
        "losses": trace.losses,
        "coverage": asdict(analysis.coverage),
        "tags": tags_json(analysis, instances),
        "instances_detail": instances,
        "stages": rows_json(questions.stages(analysis)),
        "bound": asdict(verdict) if verdict else None,
        "blocks": rows_json(blocks.blocks(analysis)),
        "drift": blocks.drift(analysis),
        "steps": rows_json(blocks.steps(analysis)),
        "first_steps": rows_json(blocks.first_steps(analysis)),
        "transformer": rows_json(questions.transformer(analysis)),
        "layers": rows_json(questions.layers(analysis)),
        "operators": rows_json(model_operators(analysis)),
        "kernels": rows_json(model_kernels(analysis)),
        "decoder": rows_json(questions.decoder(analysis)),
        "update": rows_json(update)[0] if update else None,
        "expected": rows_json(expected_table(analysis)),
        "roofline": rows_json(roofline(analysis)),
        "gaps": rows_json(analysis.gaps),
        "memory": rows_json(analysis.held),
        "advice": rows_json(advise(analysis)),
        "notes": notes(analysis),
    }


def rows_json(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Result rows (dataclasses) as JSON objects."""
    return [_rounded(asdict(row)) for row in rows]


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write `document`; the file appears whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(msgspec.json.encode(document))
