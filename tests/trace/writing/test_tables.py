"""SQL over a trace's tables and its Parquet files give the figures of the analysis."""

import duckdb
import pytest

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.writing.sql import query_trace
from glassworld.trace.writing.tables import write_parquet
from tests.support.other_formats import RUN
from tests.support.traces import write


@pytest.fixture
def analysis(tmp_path):
    return analyze(write(tmp_path / "run.json", RUN, config=None))


@pytest.mark.slow
def test_query_trace_joins_tags_and_gpu_operations(analysis):
    result = query_trace(
        analysis,
        "SELECT t.path, sum(g.added_busy_ns) AS busy FROM gpu_operations g "
        "JOIN tags t ON g.tag = t.id WHERE t.pattern = 'forward' GROUP BY 1 ORDER BY 1",
    )
    assert result.columns == ["path", "busy"]
    assert result.rows == [(f"step_{i} > forward", 50_750 + 1000 * i) for i in range(3)]
    assert not result.more


def test_query_trace_tables_equal_the_analysis(analysis):
    ((busy, own, cpu),) = query_trace(
        analysis, "SELECT sum(gpu_busy_ns), sum(gpu_self_ns), sum(self_cpu_ns) FROM tags"
    ).rows
    assert busy == analysis.device.busy.sum()
    assert own == analysis.gpu.busy_ns
    assert cpu == analysis.tree.self_ns.sum()
    ((count, copies),) = query_trace(
        analysis, "SELECT count(*), count(*) FILTER (kind = 'copy') FROM gpu_operations"
    ).rows
    assert (count, copies) == (12, 3)


def test_query_trace_answers_are_bounded(analysis):
    result = query_trace(analysis, "SELECT * FROM launches", most=4)
    assert len(result.rows) == 4
    assert result.more


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT * FROM read_csv('/etc/hosts')", "Permission"),
        ("COPY tags TO 'copy.parquet'", "Permission"),
        ("SET enable_external_access = true", "locked"),
        ("", "empty"),
    ],
)
def test_query_trace_refused_query_is_one_clear_line(analysis, query, words):
    with pytest.raises(TraceError, match=words) as refused:
        query_trace(analysis, query)
    assert "\n" not in str(refused.value)


def test_write_parquet_files_hold_the_tables(tmp_path, analysis):
    paths = write_parquet(tmp_path / "tables", analysis)
    assert sorted(path.stem for path in paths) == [
        "gpu_operations",
        "launches",
        "memory",
        "operators",
        "python_functions",
        "tags",
    ]
    for path in paths:
        with duckdb.connect() as database:
            found = database.execute(f"SELECT count(*) FROM '{path}'").fetchone()
        assert found == query_trace(analysis, f"SELECT count(*) FROM {path.stem}").rows[0]
