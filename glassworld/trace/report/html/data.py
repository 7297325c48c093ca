"""The data of the HTML page, with labels and families of tags from the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers import blocks, breakdown
from glassworld.trace.analyzers.bottleneck import find_bottleneck
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.analyzers.critical_path import path_tags
from glassworld.trace.analyzers.execution import is_engine_run, slow_parts, tags_explain
from glassworld.trace.analyzers.expected_time import expected_table
from glassworld.trace.analyzers.operator_roofline.by_shape import roofline_by_shape
from glassworld.trace.analyzers.operators import (
    kernel_rows,
    launched_by_operators,
    operator_rows,
)
from glassworld.trace.analyzers.peak_rates import read_peak_rates
from glassworld.trace.analyzers.roofline import roofline_by_tag
from glassworld.trace.analyzers.run_config import late_frame
from glassworld.trace.analyzers.serving_steps import serving_steps
from glassworld.trace.analyzers.torch_compile.fused_kernels import compiled_regions, fused_kernels
from glassworld.trace.report.html.time_trees import default_tree, tag_look, time_trees
from glassworld.trace.report.json_export import rows_json
from glassworld.trace.report.sections import (
    SECTIONS,
    blamed,
    fused_place,
    region_label,
    region_tags,
    shapes_text,
)
from glassworld.trace.rules.rule import advise
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import WHOLE_RUN

MOST_OPERATORS, MOST_HELD = 40, 24
MOST_TABLES, MOST_UNDER_A_TAG, MOST_STEPS = 60, 15, 100


def page_data(analysis: Analysis) -> dict[str, Any]:
    """Return what the page shows, as JSON values; its scripts match no tag names."""
    trace = analysis.trace
    ceilings = read_peak_rates(trace.metadata)
    update, verdict = breakdown.update_cost(analysis), find_bottleneck(analysis)
    speed = blocks.real_time_pace(analysis)
    return {
        "trace": Path(trace.path).name,
        "events": trace.events,
        "windowMs": analysis.duration_ns / 1e6,
        "onGpu": analysis.on_gpu,
        "engine": is_engine_run(analysis),
        "coverage": asdict(analysis.coverage),
        "bound": asdict(verdict) if verdict else None,
        "recorded": late_frame(trace.metadata) is not None,
        "pace": asdict(speed) | {"behind": speed.behind} if speed else None,
        "notes": find_caveats(analysis),
        "findings": [
            {**asdict(finding), "measured": finding.measured} for finding in advise(analysis)
        ],
        "sections": _sections(analysis),
        "families": [family.name for family in tags.FAMILIES],
        "look": {name: tag_look(tag) for name, tag in _LOOKS.items()},
        "stages": _with_looks(rows_json(breakdown.stage_shares(analysis)), "name"),
        "blocks": rows_json(blocks.block_times(analysis)),
        "blockParts": _block_parts(),
        "steps": rows_json(blocks.step_times(analysis)),
        "trainingSteps": rows_json(analysis.training_steps[:MOST_STEPS]),
        "servingSteps": rows_json(serving_steps(analysis)[:MOST_STEPS]),
        "heat": _heat(analysis),
        "transformer": _with_looks(rows_json(breakdown.transformer_shares(analysis)), "name"),
        "layers": rows_json(breakdown.layer_shares(analysis)),
        "decoder": _with_looks(rows_json(breakdown.decoder_shares(analysis)), "name"),
        "update": rows_json(update)[0] if update else None,
        "expected": _expected(analysis),
        "roofline": _with_looks(rows_json(roofline_by_tag(analysis)), "tag"),
        "shapeGroups": _shape_groups(analysis),
        "ceilings": asdict(ceilings) if ceilings else None,
        "trees": (trees := time_trees(analysis)),
        "treeKind": default_tree(analysis, trees),
        "operators": (operators := _by_tag(analysis, operator_rows)),
        "operatorRemarks": {tag: launched_by_operators(analysis, tag or None) for tag in operators},
        "kernels": _by_tag(analysis, kernel_rows) if analysis.on_gpu else {},
        **_compiled(analysis),
        "modelTag": tags.DIFFUSION_FORWARD,
        "tagsExplain": tags_explain(analysis),
        "slowest": rows_json(slow_parts(analysis)[:MOST_UNDER_A_TAG]),
        "criticalPath": _with_looks(rows_json(path_tags(analysis)[:MOST_UNDER_A_TAG]), "tag"),
        "gaps": [{**asdict(gap), "blamed": blamed(gap)} for gap in analysis.gaps[:20]],
        "memoryByTag": not any(row.tag == WHOLE_RUN for row in analysis.memory),
        "memory": _with_looks(rows_json(analysis.memory[:MOST_HELD]), "tag"),
    }


_LOOKS = {"step": tags.DENOISING_STEP, "layer": tags.LAYER, "update": tags.UPDATE_CACHE}


def _compiled(analysis: Analysis) -> dict[str, Any]:
    """Return what `torch.compile` made of the model."""
    return {
        "compiledRegions": [
            {**asdict(region), "label": region_label(region), "tags": region_tags(region)}
            for region in compiled_regions(analysis)[:MOST_OPERATORS]
        ],
        "fusedKernels": [
            {**asdict(kernels), "place": fused_place(kernels)}
            for kernels in fused_kernels(analysis)[:MOST_OPERATORS]
        ],
    }


def _with_looks(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{**row, **tag_look(row[key])} for row in rows]


def _sections(analysis: Analysis) -> dict[str, dict[str, Any]]:
    return {
        section.command: {
            "title": section.title,
            "missing": section.missing,
            "present": bool(section.rows(analysis)),
            "mentioned": section.mentioned(analysis),
            "remarks": section.remarks(analysis),
        }
        for section in SECTIONS
    }


def _block_parts() -> list[dict[str, str]]:
    """Return the fields of a block's parts, with the look of the tag that each is the time of."""
    fields = {
        "steps_ms": tags.DENOISING_STEP,
        "encode_ms": tags.CONDITION_ENCODE,
        "update_ms": tags.UPDATE_CACHE,
        "decode_ms": tags.VAE_DECODE,
    }
    other = {"field": "other_ms", "label": "other", "family": tags.OTHER.name}
    return [*({"field": field, **tag_look(tag)} for field, tag in fields.items()), other]


def _expected(analysis: Analysis) -> list[dict[str, Any]]:
    """Return the rows of expected times; `whole` marks the loop, which others are parts of."""
    rows = _with_looks(rows_json(expected_table(analysis)), "tag")
    return [{**row, "whole": row["tag"] == tags.PIPELINE_INFERENCE} for row in rows]


def _shape_groups(analysis: Analysis) -> list[dict[str, Any]]:
    groups = roofline_by_shape(analysis).groups[:MOST_OPERATORS]
    texts = map(shapes_text, groups)
    return [{**row, "shapes": text} for row, text in zip(rows_json(groups), texts, strict=True)]


def _by_tag(
    analysis: Analysis, rows_of: Callable[[Analysis, str | None], Sequence[Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Return tables of operators or kernels, of the whole trace ("") and of each kind of tag."""
    patterns = list(dict.fromkeys(row.pattern for row in analysis.patterns))
    wanted = [pattern for pattern in patterns if pattern in tags.REGISTRY] or patterns
    tables = {"": rows_json(rows_of(analysis, None)[:MOST_OPERATORS])}
    for pattern in wanted[:MOST_TABLES] if tables[""] else []:
        rows = rows_of(analysis, pattern)[:MOST_UNDER_A_TAG]
        if rows:
            tables[pattern] = rows_json(rows)
    return tables


def _heat(analysis: Analysis) -> dict[str, Any]:
    """Return milliseconds by block (rows) and part (columns): each step, then the other parts."""
    tree = analysis.tree
    instances = tree.where(tags.BLOCK)
    row_of = np.full(len(tree) + 1, -1)
    row_of[instances] = np.arange(len(instances))
    steps = tree.where(tags.DENOISING_STEP)
    numbers, which = np.unique(tree.dims["step"][steps], return_inverse=True)
    shown = which < MOST_STEPS
    labels = [f"step {number}" for number in numbers[:MOST_STEPS].tolist()]
    columns = [(steps[shown], which[shown])]
    for pattern in tags.child_tags(tags.BLOCK):
        if pattern != tags.DENOISING_STEP:
            parts = tree.where(pattern)
            columns.append((parts, np.full(len(parts), len(labels))))
            labels.append(tags.tag_label(pattern))
    heat = np.zeros((len(instances), len(labels)))
    for parts, column in columns:
        row = row_of[tree.ancestor(parts, tags.BLOCK)]
        inside = row >= 0
        np.add.at(heat, (row[inside], column[inside]), analysis.time_ns(parts)[inside] / 1e6)
    return {"columns": labels, "rows": [[round(float(v), 3) for v in row] for row in heat]}
