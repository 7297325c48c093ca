"""The events of a trace as tables of Arrow, for queries and Parquet files.

Times are nanoseconds from the trace's first event. `id` counts the tags; `parent` and the `tag` of
a GPU operation name one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glassworld.errors import MissingExtraError
from glassworld.files import replacing, writable_folder
from glassworld.trace.reading.columns import EventTable
from glassworld.trace.timeline.analysis import Analysis

KINDS = ("kernel", "copy", "fill", "collective")

Columns = dict[str, Any]


def trace_tables(analysis: Analysis) -> dict[str, Any]:
    """Return the Arrow tables of an analysis in memory, by name.

    Raises `MissingExtraError` without pyarrow.
    """
    try:
        import pyarrow as arrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "sql") from error
    names = analysis.trace.names
    trace = analysis.trace
    tables = {
        "tags": _tags(analysis),
        "gpu_operations": _gpu_operations(analysis),
        "operators": _ranges(analysis, trace.ops),
        "launches": _ranges(analysis, trace.launch_rows),
        "python_functions": _ranges(analysis, trace.python),
        "memory": _memory(analysis),
    }
    return {
        table: arrow.table({name: _array(column, names) for name, column in columns.items()})
        for table, columns in tables.items()
    }


def write_parquet(folder: Path, analysis: Analysis) -> list[Path]:
    """Write one Parquet file per table into a folder; return their paths."""
    tables = trace_tables(analysis)
    import pyarrow.parquet as parquet

    paths = []
    for name, table in tables.items():
        paths.append(writable_folder(folder) / f"{name}.parquet")
        with replacing(paths[-1]) as partial:
            parquet.write_table(table, partial)
    return paths


class _Texts:
    """A column of texts: for each row, an index into them; -1 for none."""

    def __init__(self, indices: npt.NDArray[Any], texts: list[str] | None = None) -> None:
        self.indices, self.texts = indices, texts


def _array(column: Any, names: list[str]) -> Any:
    """Return a column as an Arrow array; without `texts`, its texts are the trace's names."""
    import pyarrow as arrow

    if not isinstance(column, _Texts):
        return arrow.array(column)
    indices = arrow.array(column.indices.astype(np.int32), mask=column.indices < 0)
    texts = names if column.texts is None else column.texts
    return arrow.DictionaryArray.from_arrays(indices, arrow.array(texts, arrow.string()))


def _optional(numbers: npt.NDArray[Any]) -> Any:
    """Return numbers of which negative ones stand for none."""
    import pyarrow as arrow

    return arrow.array(numbers, mask=numbers < 0)


def _threads(analysis: Analysis, thread: npt.NDArray[Any]) -> Columns:
    identities = analysis.trace.threads
    return {
        "process": _Texts(thread, [str(pid) for pid, _ in identities]),
        "thread": _Texts(thread, [str(tid) for _, tid in identities]),
    }


def _tags(analysis: Analysis) -> Columns:
    tree, rows = analysis.tree, analysis.tree.rows
    groups = range(len(tree.by_name))
    paths = [" > ".join(tree.by_name.path(group, tree.names)) for group in groups]
    return {
        "id": np.arange(len(tree)),
        "parent": _optional(tree.forest.parent),
        "depth": tree.forest.depth,
        "name": _Texts(rows["name"]),
        "pattern": _Texts(tree.pattern, tree.patterns),
        "path": _Texts(tree.by_name.of, paths),
        "start_ns": rows["start"] - analysis.trace.start,
        "cpu_ns": tree.cpu_ns,
        "self_cpu_ns": tree.self_ns,
        "gpu_busy_ns": analysis.device.busy,
        "gpu_self_ns": analysis.device.self_busy,
        "gpu_operations": analysis.device.kernels,
    } | _threads(analysis, rows["thread"])


def _gpu_operations(analysis: Analysis) -> Columns:
    ops = analysis.ops
    return {
        "name": _Texts(ops.rows["name"]),
        "kind": _Texts(ops.rows["kind"], list(KINDS)),
        "start_ns": ops.rows["start"] - analysis.trace.start,
        "dur_ns": ops.rows["dur"],
        "added_busy_ns": ops.exclusive,
        "device": ops.rows["device"],
        "stream": ops.rows["stream"],
        "bytes": ops.rows["bytes"],
        "correlation": _optional(ops.rows["correlation"]),
        "tag": _optional(ops.tag),
        "queued_ns": _optional(ops.delay),
    }


def _ranges(analysis: Analysis, table: EventTable) -> Columns:
    rows = table.to_array()
    columns: Columns = {
        "name": _Texts(rows["name"]),
        "start_ns": rows["start"] - analysis.trace.start,
        "dur_ns": rows["dur"],
    }
    if "correlation" in (rows.dtype.names or ()):
        columns["correlation"] = _optional(rows["correlation"])
    return columns | _threads(analysis, rows["thread"])


def _memory(analysis: Analysis) -> Columns:
    rows = analysis.trace.memory.to_array()
    return {
        "at_ns": rows["at"] - analysis.trace.start,
        "device": rows["device"],
        "allocated_bytes": rows["total"],
    } | _threads(analysis, rows["thread"])
