"""The package's own client drives the server of traces."""

import asyncio
import json
import sys

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from glassworld.trace import analyze
from glassworld.trace.mcp_server import MOST_CHARACTERS, MOST_ROWS, build_server
from tests.support.other_formats import RUN, write_nsight
from tests.support.rank_traces import STARTS, rank_trace
from tests.support.traces import CpuTrace, GpuTrace, invoke, write


def call(tool, server=None, **arguments):
    """Return the answer of a tool, and whether it is an error."""

    async def ask():
        async with Client(server or build_server()) as client:
            result = await client.call_tool(tool, arguments)
            return result.content[0].text, result.is_error

    return asyncio.run(ask())


def answer(tool, **arguments):
    text, is_error = call(tool, **arguments)
    assert not is_error, text
    return json.loads(text)


@pytest.fixture
def trace(tmp_path):
    return str(write(tmp_path / "run.json", RUN, config=None))


def test_server_lists_its_tools():
    async def names():
        async with Client(build_server()) as client:
            return {tool.name: tool.description for tool in (await client.list_tools()).tools}

    found = asyncio.run(names())
    assert set(found) == {
        "summary",
        "report_section",
        "operators",
        "kernels",
        "operator_roofline",
        "critical_path",
        "compare_traces",
        "structure_changes",
        "ranks",
        "sql",
    }
    assert all(found.values())


def test_summary_says_what_the_trace_can_and_cannot_answer(trace):
    found = answer("summary", trace=trace)
    gpu = analyze(trace).gpu
    assert gpu
    assert found["gpu"]["busy_ms"] == pytest.approx(gpu.busy_ns / 1e6)
    assert "kernels" in found["sections"]
    assert "blocks" in found["cannot_answer"]


def test_tools_give_the_figures_of_the_analysis(trace, tmp_path):
    rows = answer("kernels", trace=trace, tag="forward")["rows"]
    assert {row["name"]: row["calls"] for row in rows} == {
        "void gemm<128, 64>(float*)": 3,
        "relu": 3,
    }
    assert answer("operators", trace=trace)["rows"][0]["name"] == "aten::linear"
    assert answer("report_section", trace=trace, name="stages")["total"] > 0
    other = str(write_nsight(tmp_path / "other.sqlite"))
    assert answer("compare_traces", before=trace, after=other)["total"] > 0
    query = "SELECT count(*) AS n FROM gpu_operations"
    assert answer("sql", trace=other, query=query)["rows"] == [{"n": 12}]


def test_structure_changes_are_those_of_the_command(trace, tmp_path):
    events = [event | {"name": event["name"].replace("forward", "renamed")} for event in RUN]
    other = str(write(tmp_path / "other.json", events, config=None))
    found = answer("structure_changes", before=trace, after=other, limit=1)
    expected = json.loads(invoke("compare", trace, other, "--structure", "--json").output)
    changes = expected.pop("changes")
    assert {key: found[key] for key in expected} == expected
    assert found["changes"] == {"rows": changes[:1], "shown": 1, "total": len(changes)}
    assert "renamed" in {change["kind"] for change in changes}


def test_ranks_are_those_of_the_command(tmp_path):
    paths = [str(rank_trace(tmp_path, rank)) for rank in STARTS]
    found = answer("ranks", traces=paths, limit=3)
    expected = json.loads(invoke("ranks", *paths, "--json").output)
    assert found["ranks"] == {"rows": expected["ranks"][:3], "shown": 3, "total": 4}
    assert found["collectives"]["rows"] == expected["collectives"]
    assert found["stragglers"]["rows"] == expected["stragglers"][:3]


def test_operator_roofline_has_the_groups_or_says_what_is_missing(trace, tmp_path):
    assert "record_shapes" in answer("operator_roofline", trace=trace)["missing"]
    gpu = GpuTrace()
    for size in (16, 32, 64):
        shapes = {"Input Dims": [[size, 16], [16, 4]], "Input type": ["float", "float"]}
        with gpu.op_range("aten::mm", **shapes):
            gpu.launch("gemm", size)
    path = str(write(tmp_path / "shapes.json", gpu.events, config=None))
    found = answer("operator_roofline", trace=path, limit=2)
    assert (found["groups"]["shown"], found["groups"]["total"]) == (2, 3)
    assert [row["flops"] for row in found["groups"]["rows"]] == [64 * 128, 32 * 128]
    assert found["total_ms"] == found["counted_ms"] == pytest.approx(0.112)
    assert found["remarks"][0].startswith("100%")


def test_answers_are_bounded(tmp_path):
    cpu = CpuTrace()
    for i in range(3 * MOST_ROWS):
        with cpu.tag("tag" + "x" * 1000):
            cpu.op(f"aten::op_{i}" + "y" * 1000, 1)
    path = str(write(tmp_path / "long.json", cpu.events, config=None))
    found = answer("operators", trace=path, limit=10**9)
    assert (found["shown"], found["total"]) == (MOST_ROWS, 3 * MOST_ROWS)
    assert max(len(row["name"]) for row in found["rows"]) <= MOST_CHARACTERS + 3
    found = answer("structure_changes", before=path, after=path, limit=10**9)["changes"]
    assert found["shown"] <= MOST_ROWS
    found = answer("sql", trace=path, query="SELECT name FROM tags", limit=7)
    assert (found["shown"], found["more"]) == (7, True)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("summary", {"trace": "nowhere.json"}, "no such trace"),
        ("report_section", {"trace": "", "name": "rain"}, "no such section; choose one of stages"),
        ("ranks", {"traces": ["nowhere.json", "there.json"]}, "nowhere.json: no such trace"),
        ("ranks", {"traces": []}, "give at least two traces"),
    ],
)
def test_bad_arguments_are_an_error_that_says_why(tool, arguments, words):
    text, is_error = call(tool, **arguments)
    assert is_error
    assert words in text


@pytest.mark.slow
def test_trace_mcp_serves_over_standard_streams(trace):
    command = [sys.executable, "-m", "glassworld", "trace", "mcp"]
    transport = stdio_client(StdioServerParameters(command=command[0], args=command[1:]))
    text, is_error = call("summary", transport, trace=trace)
    assert not is_error
    assert json.loads(text)["gpu"]
