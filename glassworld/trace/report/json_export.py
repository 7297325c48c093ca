"""Write the analysis as one JSON document: the contract for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from glassworld.files import replacing
from glassworld.trace.analyzers import blocks, breakdown
from glassworld.trace.analyzers.bottleneck import find_bottleneck, gpu_use
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.analyzers.critical_path import reported_path
from glassworld.trace.analyzers.execution import slow_parts
from glassworld.trace.analyzers.expected_time import expected_table
from glassworld.trace.analyzers.operator_roofline.by_shape import roofline_by_shape
from glassworld.trace.analyzers.operators import model_kernels, model_operators
from glassworld.trace.analyzers.roofline import roofline_by_tag
from glassworld.trace.analyzers.serving_steps import serving_steps
from glassworld.trace.analyzers.torch_compile.fused_kernels import compiled_regions, fused_kernels
from glassworld.trace.reading.columns import Ints
from glassworld.trace.rules.rule import advise
from glassworld.trace.timeline.analysis import Analysis

FORMAT = 1
_AT_ONCE = 10_000


def write_json(path: Path, analysis: Analysis) -> None:
    """Write the whole analysis to `path`; the file appears whole or not at all.

    Times are milliseconds from the trace's first event. Instances are written in pieces, because
    there may be half a million of them.
    """
    encode = msgspec.json.encode
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(encode(_sections_json(analysis))[:-1] + b',"tags":[')
        for i, (tag, members) in enumerate(_tag_members(analysis)):
            file.write((b"," if i else b"") + encode(tag)[:-1] + b',"instances_detail":')
            _write_rows(file, analysis, members)
            file.write(b"}")
        file.write(b'],"instances_detail":')
        _write_rows(file, analysis, np.arange(len(analysis.tree)))
        file.write(b"}")


def _tag_members(analysis: Analysis) -> Iterator[tuple[dict[str, Any], Ints]]:
    """Yield one object per path of names, with the instances that it stands for."""
    groups, names = analysis.tree.by_name, analysis.tree.names
    order = np.argsort(groups.of, kind="stable")
    bounds = np.searchsorted(groups.of[order], np.arange(len(groups) + 1))
    number = {groups.path(g, names): g for g in range(len(groups))}
    for tag in analysis.iter_tags():
        g = number.get(tag.path)
        members = order[:0] if g is None else order[bounds[g] : bounds[g + 1]]
        yield _rounded(vars(tag)), members


def _instance_rows(analysis: Analysis, instances: Ints) -> list[dict[str, Any]]:
    """Return one object per tag instance; milliseconds."""
    tree, device = analysis.tree, analysis.device
    columns = zip(
        tree.rows["name"][instances].tolist(),
        ((tree.rows["start"][instances] - analysis.origin_ns) / 1e6).tolist(),
        (tree.cpu_ns[instances] / 1e6).tolist(),
        (device.busy[instances] / 1e6).tolist(),
        device.kernels[instances].tolist(),
        strict=True,
    )
    return [
        {
            "name": tree.names[name],
            "start_ms": start,
            "cpu_ms": cpu,
            "gpu_busy_ms": busy,
            "gpu_kernels": kernels,
        }
        for name, start, cpu, busy, kernels in columns
    ]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _round(value) for key, value in row.items()}


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return _rounded(value)
    if isinstance(value, list):
        return [_round(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


def _sections_json(analysis: Analysis) -> dict[str, Any]:
    """Return the analysis without its tags."""
    trace = analysis.trace
    update, verdict = breakdown.update_cost(analysis), find_bottleneck(analysis)
    use, path = gpu_use(analysis), reported_path(analysis)
    by_shape = roofline_by_shape(analysis)
    return {
        "format": FORMAT,
        "trace": trace.path,
        "events": trace.events,
        "window_ms": analysis.duration_ns / 1e6,
        "time": "gpu" if analysis.on_gpu else "cpu",
        "losses": trace.losses,
        "coverage": asdict(analysis.coverage),
        "stages": rows_json(breakdown.stage_shares(analysis)),
        "slowest": rows_json(slow_parts(analysis)),
        "gpu": asdict(use) if use else None,
        "bound": asdict(verdict) if verdict else None,
        "blocks": rows_json(blocks.block_times(analysis)),
        "drift": blocks.block_drift(analysis),
        "steps": rows_json(blocks.step_times(analysis)),
        "first_steps": rows_json(blocks.first_step_comparisons(analysis)),
        "training_steps": rows_json(analysis.training_steps),
        "serving_steps": rows_json(serving_steps(analysis)),
        "transformer": rows_json(breakdown.transformer_shares(analysis)),
        "layers": rows_json(breakdown.layer_shares(analysis)),
        "operators": rows_json(model_operators(analysis)),
        "kernels": rows_json(model_kernels(analysis)),
        "compiled_regions": rows_json(compiled_regions(analysis)),
        "fused_kernels": rows_json(fused_kernels(analysis)),
        "decoder": rows_json(breakdown.decoder_shares(analysis)),
        "update": rows_json(update)[0] if update else None,
        "expected": rows_json(expected_table(analysis)),
        "roofline": rows_json(roofline_by_tag(analysis)),
        "roofline_by_shape": rows_json([by_shape])[0] if by_shape.groups else None,
        "critical_path": rows_json([path])[0] if path else None,
        "gaps": rows_json(analysis.gaps),
        "memory": rows_json(analysis.memory),
        "advice": rows_json(advise(analysis)),
        "notes": find_caveats(analysis),
    }


def rows_json(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return result rows (dataclasses) as JSON objects."""
    return [_rounded(asdict(row)) for row in rows]


def _write_rows(file: BinaryIO, analysis: Analysis, instances: Ints) -> None:
    file.write(b"[")
    for at in range(0, len(instances), _AT_ONCE):
        rows = msgspec.json.encode(_instance_rows(analysis, instances[at : at + _AT_ONCE]))
        file.write((b"," if at else b"") + rows[1:-1])
    file.write(b"]")
