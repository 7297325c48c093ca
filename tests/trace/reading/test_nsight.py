"""An Nsight Systems database gives the figures of the torch trace of the same run."""

import gzip
import sqlite3
from contextlib import closing

import pytest

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.analyzers.critical_path import PathFinder
from glassworld.trace.reading.columns import STREAM_SYNC
from glassworld.trace.reading.reader import read_trace
from tests.support.other_formats import RUN, figures, write_nsight
from tests.support.traces import invoke, write


@pytest.fixture
def database(tmp_path):
    return write_nsight(tmp_path / "run.sqlite")


def change(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return path


def test_nsight_figures_equal_those_of_the_torch_trace(tmp_path, database):
    torch_run = analyze(write(tmp_path / "run.json", RUN, config=None))
    analysis = analyze(database)
    assert figures(analysis) == figures(torch_run)
    assert analysis.coverage.gpu_ops == analysis.coverage.attributed == 12
    assert analysis.trace.losses == []
    assert analysis.trace.metadata["deviceProperties"] == [
        {"id": 0, "name": "NVIDIA H100", "totalGlobalMem": 85899345920, "numSms": 132}
    ]


def test_nsight_tags_only_reads_the_tags(database):
    trace = read_trace(database, tags_only=True)
    assert len(trace.tags) == 9
    assert not len(trace.device_ops)


def test_nsight_name_does_not_matter(tmp_path, database):
    renamed = database.rename(tmp_path / "trace.json.gz")
    assert invoke("top", renamed).exit_code == 0


def test_nsight_correlation_ids_of_two_processes_stay_apart(database):
    other = "globalTid + (1 << 24)"
    change(
        database,
        "UPDATE NVTX_EVENTS SET text = 'other' WHERE 0",
        f"INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME SELECT start + 1000, end + 1000, eventClass, "
        f"{other}, correlationId, nameId, 0, NULL FROM CUPTI_ACTIVITY_KIND_RUNTIME",
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL SELECT start + 1000, end + 1000, 1, contextId, "
        "streamId, correlationId, globalPid + (1 << 24), demangledName, shortName, NULL "
        "FROM CUPTI_ACTIVITY_KIND_KERNEL",
    )
    analysis = analyze(database)
    assert analysis.coverage.launched == 18
    assert analysis.coverage.attributed == 12  # the other process has no ranges


@pytest.mark.parametrize(
    "change_of_ids",
    [
        "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN globalPid",
        "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET globalPid = NULL",
    ],
)
def test_nsight_kernels_that_name_no_process_belong_to_the_only_one(database, change_of_ids):
    change(database, change_of_ids)
    assert analyze(database).coverage.attributed == 12
    other = "globalTid + (1 << 24)"
    change(
        database,
        f"INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME SELECT start, end, eventClass, {other}, "
        "correlationId, nameId, 0, NULL FROM CUPTI_ACTIVITY_KIND_RUNTIME",
    )
    assert analyze(database).coverage.launched == 6  # copies and fills, which name theirs


def test_nsight_streams_of_two_processes_stay_apart(database):
    change(
        database,
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL SELECT start + 1, end + 1, deviceId, contextId, "
        "streamId, correlationId, globalPid + (1 << 24), demangledName, shortName, NULL "
        "FROM CUPTI_ACTIVITY_KIND_KERNEL",
    )
    analysis = analyze(database)
    assert analysis.gpu is not None
    assert analysis.gpu.overlap_ns == 0
    assert {thread for thread in analysis.trace.threads if thread[1] == 7} == {
        (0, 7),
        ("GPU 0 of process 78", 7),
    }


def test_nsight_open_ranges_are_left_out_and_counted(database):
    change(database, "UPDATE NVTX_EVENTS SET end = NULL WHERE text IS NULL AND textId = 1")
    losses = read_trace(database).losses
    assert losses == ["1 NVTX ranges that never end, or end on another thread, were left out"]


def test_nsight_ranges_imported_from_a_text_file_are_tags(database):
    tags = len(read_trace(database).tags)
    change(database, "UPDATE NVTX_EVENTS SET eventType = eventType + 11 WHERE eventType = 59")
    assert len(read_trace(database).tags) == tags


def test_nsight_marks_and_names_of_domains_are_no_tags(database):
    change(database, "UPDATE NVTX_EVENTS SET eventType = 75, end = NULL")
    trace = read_trace(database)
    assert (len(trace.tags), trace.losses) == (0, [])


def test_nsight_copies_of_managed_memory_have_the_label_of_the_file(database):
    change(
        database,
        "CREATE TABLE ENUM_CUDA_MEMCPY_OPER (id INTEGER, name TEXT, label TEXT)",
        "INSERT INTO ENUM_CUDA_MEMCPY_OPER VALUES (1, 'HTOD', 'Host-to-Device'), "
        "(11, 'UVM_HTOD', 'Unified Host-to-Device')",
        "UPDATE CUPTI_ACTIVITY_KIND_MEMCPY SET copyKind = 11, srcKind = NULL, dstKind = NULL "
        "WHERE rowid = 1",
    )
    names = read_trace(database).names
    assert "Memcpy Unified Host-to-Device" in names
    assert "Memcpy HtoD (Pageable -> Device)" in names


def test_nsight_calls_with_a_default_stream_per_thread_have_their_usual_names(database):
    change(
        database,
        "UPDATE StringIds SET value = 'cudaMemcpy_ptds_v7000' WHERE value LIKE 'cudaLaunch%'",
        "UPDATE StringIds SET value = 'cudaStreamSynchronize_ptsz_v7000' "
        "WHERE value LIKE 'cudaStreamSync%'",
    )
    assert {"cudaMemcpy", "cudaStreamSynchronize"} <= set(read_trace(database).names)


def test_nsight_waits_for_a_stream_name_it(database):
    change(
        database,
        "CREATE TABLE CUPTI_ACTIVITY_KIND_SYNCHRONIZATION (start INTEGER, end INTEGER, deviceId "
        "INTEGER, contextId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, "
        "syncType INTEGER, eventId INTEGER)",
        "UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET correlationId = 1000 + rowid "
        "WHERE correlationId = 0",
        "INSERT INTO CUPTI_ACTIVITY_KIND_SYNCHRONIZATION SELECT start, end, 0, 1, 7, "
        "correlationId, globalTid & ~0xFFFFFF, column1, 0 FROM CUPTI_ACTIVITY_KIND_RUNTIME, "
        "(VALUES (1), (2), (3), (4)) WHERE correlationId > 1000",
    )
    trace = read_trace(database)
    waits = trace.sync_rows.to_array()
    assert [tuple(w) for w in waits[["stream", "kind"]].tolist()] == [(7, STREAM_SYNC)] * 3
    assert set(waits["correlation"]) <= set(trace.launches["correlation"])
    path = PathFinder(analyze(database)).critical_path()
    assert path.ignored_syncs == 0
    assert path.unexplained_ms == pytest.approx(0)


def test_nsight_graphs_traced_whole_are_gpu_operations(database):
    change(
        database,
        "CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE AS SELECT start, end, deviceId, contextId, "
        "streamId, correlationId, globalPid, 3 AS graphId FROM CUPTI_ACTIVITY_KIND_KERNEL",
        "DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL",
    )
    analysis = analyze(database)
    assert analysis.coverage.attributed == 12
    assert "CUDA graph 3" in analysis.trace.names


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE NVTX_EVENTS SET globalTid = NULL",
        "UPDATE NVTX_EVENTS SET start = 'soon'",
        "UPDATE NVTX_EVENTS SET text = x'ff', textId = NULL",
        "UPDATE StringIds SET value = x'ff'",
        "UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET globalTid = NULL",
        "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 'soon', correlationId = 'none'",
    ],
)
def test_nsight_odd_values_never_end_in_a_traceback(database, statement):
    assert read_trace(change(database, statement)).events == 39


def refused(path):
    result = invoke("top", path)
    assert isinstance(result.exception, TraceError)
    (line,) = str(result.exception).splitlines()
    assert str(path) in line
    return line


def test_nsight_column_of_another_version_is_one_clear_line(database):
    change(database, "ALTER TABLE CUPTI_ACTIVITY_KIND_RUNTIME RENAME COLUMN nameId TO apiName")
    line = refused(database)
    assert "schema 3.11.0 whose CUPTI_ACTIVITY_KIND_RUNTIME has no nameId" in line


def test_nsight_tables_with_a_version_in_their_names_are_read(tmp_path, database):
    expected = figures(analyze(write_nsight(tmp_path / "plain.sqlite")))
    for kind in ("KERNEL", "RUNTIME", "MEMCPY", "MEMSET"):
        table = f"CUPTI_ACTIVITY_KIND_{kind}"
        change(
            database,
            f"ALTER TABLE {table} RENAME TO {table}_V10",
            f"CREATE TABLE {table}_V9 AS SELECT * FROM {table}_V10 LIMIT 1",
        )
    change(database, "CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY2 (start INTEGER)")
    assert figures(analyze(database)) == expected


def test_nsight_database_of_another_program_is_one_clear_line(tmp_path):
    assert "without tables of Nsight Systems" in refused(
        change(tmp_path / "t.sqlite", "CREATE TABLE bookmarks (url TEXT)")
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("META_DATA_EXPORT", "--trace=cuda,nvtx"),
        ("rocpd_kernel_dispatch_0000a1", "rocprofv3 --output-format json"),
    ],
)
def test_nsight_database_without_events_says_how_to_record(tmp_path, table, words):
    assert words in refused(change(tmp_path / "t.sqlite", f"CREATE TABLE {table} (name TEXT)"))


def test_nsight_report_says_how_to_export_it(tmp_path, database):
    path = tmp_path / "run.nsys-rep"
    path.write_bytes(b"\x00report" * 100)
    assert "nsys export --type sqlite run.nsys-rep" in refused(path)
    assert len(read_trace(database.rename(path)).tags) == 9


def test_nsight_empty_tables_are_one_clear_line(tmp_path):
    assert "no events" in refused(write_nsight(tmp_path / "empty.sqlite", []))


@pytest.mark.parametrize("size", [16, 100, 3000])
def test_nsight_cut_at_its_start_is_one_clear_line(database, size):
    database.write_bytes(database.read_bytes()[:size])
    assert "damaged" in refused(database) or "without tables" in refused(database)


def test_nsight_damaged_name_in_the_schema_is_one_clear_line(database):
    content = database.read_bytes()
    database.write_bytes(content.replace(b"value TEXT NOT NULL)", b"value T\xe5XT NOT NUL()"))
    assert "damaged" in refused(database)


def test_nsight_damage_in_a_table_keeps_the_others(tmp_path):
    database = write_nsight(tmp_path / "large.sqlite", RUN * 100)
    content = database.read_bytes()
    page = int.from_bytes(content[16:18], "big")
    with closing(sqlite3.connect(database)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'CUPTI_ACTIVITY_KIND_MEMSET'"
        ).fetchone()
    at = (root - 1) * page
    database.write_bytes(content[:at] + b"\xff" * page + content[at + page :])
    trace = read_trace(database)
    assert len(trace.tags) == 900
    assert ["MEMSET is incomplete" in loss for loss in trace.losses] == [True]


@pytest.mark.parametrize("size", [1, 100, 4000])
def test_nsight_cut_in_its_last_page_says_so(tmp_path, size):
    path = write_nsight(tmp_path / "t.sqlite")
    path.write_bytes(path.read_bytes()[:-size])
    assert f"its last {size} bytes are lost" in " ".join(read_trace(path).losses)


def test_nsight_of_a_later_schema_says_so(database):
    trace = read_trace(change(database, "UPDATE META_DATA_EXPORT SET value = '4.2.0'"))
    assert len(trace.device_ops) == 12
    assert any("schema 4.2.0, which is later" in loss for loss in trace.losses)


def test_nsight_compressed_is_one_clear_line(tmp_path, database):
    path = tmp_path / "run.sqlite.gz"
    path.write_bytes(gzip.compress(database.read_bytes()))
    assert "compressed" in refused(path)
