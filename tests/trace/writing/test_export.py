"""`trace export` and `trace sql` write what they say, or one clear line."""

import json
import sys

import pytest

from glassworld.errors import InputError, MissingExtraError, TraceError
from glassworld.trace import analyze
from glassworld.trace.cli.export import SUFFIXES
from glassworld.trace.writing.sql import query_trace
from tests.support.other_formats import RUN, write_nsight
from tests.support.traces import invoke, write


@pytest.mark.parametrize("format", list(SUFFIXES))
def test_export_writes_beside_the_trace(tmp_path, format):
    path = write(tmp_path / "run.json.gz", RUN, config=None)
    result = invoke("export", path, "--format", format.value)
    assert result.exit_code == 0, result.output
    written = tmp_path / f"run{SUFFIXES[format]}"
    assert written.is_dir() == (format.value == "parquet")
    assert str(written) in result.output


def test_export_never_replaces_its_trace(tmp_path):
    path = write(tmp_path / "run.json", RUN, config=None)
    result = invoke("export", path, "-f", "folded", "-o", path)
    assert isinstance(result.exception, InputError)
    assert json.loads(path.read_bytes())["traceEvents"]


def test_export_of_no_trace_leaves_nothing_behind(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("{}", encoding="utf-8")
    result = invoke("export", path, "-f", "perfetto")
    assert isinstance(result.exception, TraceError)
    assert list(tmp_path.iterdir()) == [path]


def test_sql_prints_a_table_or_json(tmp_path):
    path = write_nsight(tmp_path / "run.sqlite")
    query = (
        "SELECT name, count(*) AS n, NULL AS x FROM gpu_operations GROUP BY 1 ORDER BY 1 LIMIT 1"
    )
    assert json.loads(invoke("sql", path, query, "--json").output) == [
        {"name": "Memcpy HtoD (Pageable -> Device)", "n": 3, "x": None}
    ]
    assert "Memset (Device)" in invoke("sql", path, "SELECT name FROM gpu_operations").output
    assert "more than 2 rows" in invoke("sql", path, "SELECT * FROM tags", "-n", 2).output


def test_sql_without_duckdb_names_the_extra(tmp_path, monkeypatch):
    analysis = analyze(write(tmp_path / "run.json", RUN, config=None))
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"glassworld\[sql\]"):
        query_trace(analysis, "SELECT 1")
