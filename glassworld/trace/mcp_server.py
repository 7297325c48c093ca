"""Offer the analysis of traces to agents, as tools of the Model Context Protocol.

Every answer is bounded: a number of rows, of characters in a text, and it says what it left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

from glassworld.errors import InputError, MissingExtraError, TraceError
from glassworld.trace.analyzers.bottleneck import find_bottleneck, gpu_use
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.analyzers.compare import compare_runs
from glassworld.trace.analyzers.critical_path import PathFinder, parse_factor
from glassworld.trace.analyzers.operator_roofline.by_shape import roofline_by_shape, shape_remarks
from glassworld.trace.analyzers.operators import kernel_rows, operator_rows
from glassworld.trace.analyzers.ranks import report_ranks
from glassworld.trace.analyzers.structure.structural_diff import compare_structure
from glassworld.trace.report.json_export import rows_json
from glassworld.trace.report.sections import SECTIONS, SLOWEST, section
from glassworld.trace.rules.rule import advise
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.merged import analyze, analyze_at_once
from glassworld.trace.writing.sql import query_trace

ROWS, MOST_ROWS = 25, 200
MOST_CHARACTERS = 300
_KEPT_ANALYSES = 4
_INSTRUCTIONS = (
    "Answers questions about where the time of a recorded run went: traces of torch.profiler, "
    "Nsight Systems, rocprofv3, JAX and Perfetto. Call summary first: it names what limits the "
    "run, the findings, and the sections that the trace can fill. Times are milliseconds unless a "
    "name says otherwise. Where a trace has GPU work, times are GPU busy time."
)

Answer = dict[str, Any]


def summary(trace: str) -> Answer:
    """Say what limits a run, what to change, which sections the trace fills, and what it lacks."""
    analysis = _analysis(trace)
    use, verdict = gpu_use(analysis), find_bottleneck(analysis)
    filled = [s.command for s in SECTIONS if s.rows(analysis)]
    return {
        "window_ms": round(analysis.duration_ns / 1e6, 6),
        "gpu": _short(asdict(use)) if use else None,
        "limited_by": verdict.sentence if verdict else None,
        "slowest_tags": _answer(SLOWEST.rows(analysis), 10),
        "findings": _answer(advise(analysis), 10),
        "notes": _short(find_caveats(analysis)[:MOST_ROWS]),
        "sections": filled,
        "cannot_answer": {s.command: s.missing for s in SECTIONS if s.command not in filled},
    }


def report_section(trace: str, name: str, limit: int = ROWS) -> Answer:
    """Return the rows of one section of the report; summary lists the sections."""
    known = [s.command for s in SECTIONS]
    if name not in known:
        raise TraceError(f"{name}: no such section; choose one of {', '.join(known)}")
    analysis, chosen = _analysis(trace), section(name)
    answer = _answer(chosen.rows(analysis), limit)
    if not answer["total"]:
        answer["missing"] = chosen.missing
    return answer | {"remarks": _short(chosen.remarks(analysis))}


def operators(trace: str, tag: str | None = None, limit: int = ROWS) -> Answer:
    """Return the operators that a tag calls, or those of the whole trace."""
    return _answer(operator_rows(_analysis(trace), tag), limit)


def kernels(trace: str, tag: str | None = None, limit: int = ROWS) -> Answer:
    """Return the kernels, copies and fills that a tag runs, or those of the whole trace."""
    return _answer(kernel_rows(_analysis(trace), tag), limit)


def compare_traces(before: str, after: str, limit: int = ROWS) -> Answer:
    """Say which tags became slower or faster between two runs, beyond the noise."""
    return _answer(compare_runs(_analysis(before), _analysis(after)).changes, limit)


def structure_changes(before: str, after: str, limit: int = ROWS) -> Answer:
    """Align two runs with other names, hardware or versions, and say what changed, largest first.

    Parts are tags, modules or operators; pairs of numbers are of the first and the second run.
    """
    diff = compare_structure(_analysis(before), _analysis(after))
    answer: Answer = _short(rows_json([replace(diff, changes=[])])[0])
    return answer | {"changes": _answer(diff.changes, limit)}


def ranks(traces: list[str], limit: int = ROWS) -> Answer:
    """Say how the ranks of a run wait for each other: waits, bandwidths and stragglers.

    Give one trace per rank, rank 0 first.
    """
    report = report_ranks([Path(_version(trace)[0]) for trace in traces])
    return {name: _answer(rows, limit) for name, rows in vars(report).items()}


def operator_roofline(trace: str, limit: int = ROWS) -> Answer:
    """Return FLOP/s, bytes per second and share of the peak of operators, by their inputs' shapes.

    Needs a torch trace with recorded shapes.
    """
    analysis = _analysis(trace)
    roofline = roofline_by_shape(analysis)
    answer: Answer = rows_json([replace(roofline, groups=[])])[0]
    answer["groups"] = _answer(roofline.groups, limit)
    if roofline.groups:
        return answer | {"remarks": _short(shape_remarks(analysis))}
    return answer | {"missing": section("roofline --by-shape").missing}


def sql(trace: str, query: str, limit: int = ROWS) -> Answer:
    """Answer SQL (DuckDB) over tags, gpu_operations, operators, launches, python_functions, memory.

    Times are nanoseconds from the first event; `DESCRIBE tags` lists columns.
    """
    answer = query_trace(_whole(*_version(trace)), query, _bounded(limit))
    rows = [dict(zip(answer.columns, _short(list(row)), strict=True)) for row in answer.rows]
    return {"rows": rows, "shown": len(rows), "more": answer.more}


def critical_path(trace: str, faster: dict[str, float] | None = None, limit: int = ROWS) -> Answer:
    """Return the chain of CPU work, launches, GPU work and waits that bounds a run.

    `faster` maps tags to factors of their time, such as 0.5: `what_if` says how long the run would
    take with each.
    """
    finder = PathFinder(_whole(*_version(trace)))
    factors = [parse_factor(f"{tag}={factor}") for tag, factor in (faster or {}).items()]
    path = finder.critical_path(factors[:MOST_ROWS])
    answer: Answer = _short(asdict(replace(path, tags=[])))
    return answer | {"tags": _answer(path.tags, limit)}


TOOLS = (
    *(summary, report_section, operators, kernels, operator_roofline, critical_path),
    *(compare_traces, structure_changes, ranks, sql),
)


def build_server() -> Any:
    """Return the server with all tools. Raises `MissingExtraError` without the package mcp."""
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as error:
        raise MissingExtraError("mcp", "mcp") from error
    server = MCPServer("glassworld-trace", instructions=_INSTRUCTIONS)

    def offered(function: Callable[..., Answer]) -> Callable[..., Answer]:
        @wraps(function)
        def tool(*args: Any, **options: Any) -> Answer:
            try:
                return function(*args, **options)
            except InputError as error:
                raise ToolError(str(error)) from error

        return tool

    for function in TOOLS:
        server.tool()(offered(function))
    return server


def _version(trace: str) -> tuple[str, int, int]:
    """Return a path with what changes when its file does."""
    path = Path(trace).expanduser()
    if not path.is_file():
        raise TraceError(f"{trace}: no such trace; give the path of a trace file")
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


@lru_cache(_KEPT_ANALYSES)
def _analyzed(path: str, modified_ns: int, size: int) -> Analysis:
    return analyze(path)


@lru_cache(1)
def _whole(path: str, modified_ns: int, size: int) -> Analysis:
    return analyze_at_once(path)


def _analysis(trace: str) -> Analysis:
    return _analyzed(*_version(trace))


def _bounded(limit: int) -> int:
    return max(1, min(limit, MOST_ROWS))


def _answer(rows: Sequence[Any], limit: int) -> Answer:
    """Return the first rows, and how many there are."""
    shown = rows_json(list(rows[: _bounded(limit)]))
    return {"rows": _short(shown), "shown": len(shown), "total": len(rows)}


def _short(value: Any) -> Any:
    """Return a JSON value with its long texts and lists cut."""
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_short(inner) for inner in value[:MOST_ROWS]]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."
