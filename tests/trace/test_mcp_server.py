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
from tests.support.traces import CpuTrace, write


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
        "critical_path",
        "compare_traces",
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


def test_answers_are_bounded(tmp_path):
    cpu = CpuTrace()
    for i in range(3 * MOST_ROWS):
        with cpu.tag("tag" + "x" * 1000):
            cpu.op(f"aten::op_{i}" + "y" * 1000, 1)
    path = str(write(tmp_path / "long.json", cpu.events, config=None))
    found = answer("operators", trace=path, limit=10**9)
    assert (found["shown"], found["total"]) == (MOST_ROWS, 3 * MOST_ROWS)
    assert max(len(row["name"]) for row in found["rows"]) <= MOST_CHARACTERS + 3
    found = answer("sql", trace=path, query="SELECT name FROM tags", limit=7)
    assert (found["shown"], found["more"]) == (7, True)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("summary", {"trace": "nowhere.json"}, "no such trace"),
        ("report_section", {"trace": "", "name": "rain"}, "no such section; choose one of stages"),
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
