"""The commands."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from glassworld.errors import InputError, TraceError
from glassworld.trace.cli import SECTION_HELP
from glassworld.trace.report.perfetto import perfetto_address, serve_once
from glassworld.trace.report.sections import SECTIONS
from tests.support.traces import Clock, Gpu, engine_run, invoke, write


def test_a_trace_is_not_replaced_by_what_is_made_of_it(run):
    trace = run()
    content = trace.read_bytes()
    for command in (["report", trace, "--json", trace], ["merge", trace, trace, "-o", trace]):
        result = invoke(*command)
        assert isinstance(result.exception, InputError), result.output
        assert "is read or written by this command" in str(result.exception)
    assert trace.read_bytes() == content


def test_what_cannot_be_written_is_said_before_anything_is(run, tmp_path):
    trace, page = run(), tmp_path / "page.html"
    for command in (
        ["report", trace, "--html", page, "--json", page],
        ["report", trace, "--html", page, "--json", tmp_path],
        ["report", trace, "--html", tmp_path / "none" / "page.html"],
        ["report", trace, "--html", page, "--json", tmp_path / "none" / "out.json"],
        ["merge", trace, run("other.json"), "-o", tmp_path / "none" / "both.json"],
    ):
        result = invoke(*command)
        assert isinstance(result.exception, InputError), result.output
        assert "\n" not in str(result.exception)
        assert result.output == ""
        assert not page.exists()


def test_a_report_is_written_though_its_reader_leaves_early(run, tmp_path):
    page = tmp_path / "page.html"
    command = [sys.executable, "-m", "glassworld", "trace", "report", run(), "--html", page]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        running.stdout.close()
    assert page.stat().st_size > 10_000


def test_what_rounding_leaves_is_no_number(run):
    shown = invoke("blocks", run(blocks=12)).output
    assert "decode" in shown
    assert not re.search(r"\de-\d\d", shown)


def test_a_tag_that_is_not_there_is_one_clear_line(run, tmp_path):
    bare = [e for e in engine_run(blocks=1) if e["cat"] != "user_annotation"]
    untagged = write(tmp_path / "untagged.json", bare)
    for trace, has in ((run(blocks=1), "it has 1_Data_Preparation"), (untagged, "none at all")):
        result = invoke("ops", trace, "Nowhere")
        assert isinstance(result.exception, TraceError)
        assert has in str(result.exception)


def test_report_writes_the_contract(run, tmp_path):
    out = tmp_path / "out.json"
    result = invoke("report", run(), "--json", out)
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    tag = document["tags"][0]
    assert {"path", "name", "pattern", "instances", "cpu_ms", "self_cpu_ms"} <= set(tag)
    assert {"gpu_busy_ms", "gpu_span_ms", "gpu_kernels", "instances_detail"} <= set(tag)
    row = document["instances_detail"][0]
    assert set(row) == {"name", "start_ms", "cpu_ms", "gpu_busy_ms", "gpu_kernels"}
    assert document["coverage"]["gpu_ops"] == document["coverage"]["attributed"] == 0
    assert document["stages"][0]["name"] == "2_Pipeline_Inference"
    assert document["advice"] == []
    assert len(document["expected"]) == 8
    assert (tmp_path / "run_report.html").stat().st_size < 2_000_000


TABLES = ["top", *SECTION_HELP, "ops", "kernels", "advice", "gaps"]


@pytest.mark.parametrize("command", TABLES)
def test_every_table_is_also_json(run, command):
    path = run(blocks=3)
    shown = invoke(command, path)
    assert shown.exit_code == 0
    rows = json.loads(invoke(command, path, "--json").output)
    assert isinstance(rows, list)
    assert bool(rows) == (command not in ("gaps", "kernels", "advice", "memory"))
    assert "Traceback" not in shown.output


@pytest.mark.parametrize("command", ["top", "ops", "kernels", "gaps"])
def test_the_number_of_rows_holds_for_tables_and_for_json(tmp_path, command):
    gpu = Gpu()
    for i in range(40):
        kind = "".join(chr(ord("a") + int(digit)) for digit in f"{i:02d}")
        with gpu.tag(f"step {kind}"), gpu.op_range(f"aten::{kind}"):
            gpu.launch(f"gemm_{kind}", 50.0)
        gpu.wait(1000.0)
    trace = write(tmp_path / "gpu.json", gpu.events)
    everything = json.loads(invoke(command, trace, "--json").output)
    assert len(everything) >= 39
    assert json.loads(invoke(command, trace, "--json", "-n", 3).output) == everything[:3]
    for asked, shown in (((), 25), (("-n", 3), 3), (("-n", 100), len(everything))):
        output = invoke(command, trace, *asked).output
        left = len(everything) - shown
        assert (f"... {left} more" in output) == (left > 0)


@pytest.mark.parametrize(
    ("command", "heading"),
    [
        ("top", "kernels"),
        ("top", "GPU"),
        ("stages", "CPU ms"),
        ("model", "CPU ms"),
        ("decoder", "CPU ms"),
        ("ops", "GPU ms"),
        ("report", "GPU ms"),
    ],
)
def test_columns_of_the_gpu_are_shown_where_there_is_one(run, tmp_path, command, heading):
    """Without one they would be zeros, or the CPU's time twice."""
    gpu = Gpu()
    for tag in ("DiT_Feed_Forward", "VAE_Dec_Head"):
        with gpu.tag(tag), gpu.op_range("aten::mm"):
            gpu.launch("gemm", 300)
    assert heading in invoke(command, write(tmp_path / "gpu.json", gpu.events)).output
    assert heading not in invoke(command, run(blocks=2)).output


def test_all_blocks_of_a_long_run_are_shown(tmp_path):
    clock = Clock()
    for block in range(1200):
        with clock.tag(f"2.3_Block_{block}"):
            clock.wait(100)
    trace = write(tmp_path / "long.json", clock.events)
    assert len(json.loads(invoke("blocks", trace, "--json").output)) == 1200
    assert "\n1199 " in invoke("blocks", trace).output


def test_what_the_report_leaves_out_is_shown_by_the_command_it_names(tmp_path):
    clock = Clock()
    with clock.tag("DiffusionModel_Forward"):
        for i in range(20):
            clock.op(f"aten::{'abcdefghijklmnopqrst'[i]}", 100)
    clock.wait(1)
    clock.op("aten::other", 100)
    trace = write(tmp_path / "model.json", clock.events)
    [hint] = re.findall(r"8 more: glassworld trace (.*)", invoke("report", trace).output)
    shown = invoke(*hint.split(), "--json").output
    assert len(json.loads(shown)) == 20


def test_every_command_has_help_with_an_example():
    overview = invoke("--help").output
    for command in (*TABLES, "compare", "merge", "report", "open"):
        assert command in overview
        assert f"glassworld trace {command}" in invoke(command, "--help").output


def test_report_has_the_heading_of_every_section_after_the_findings(run):
    lines = invoke("report", run()).output.splitlines()
    places = [lines.index("Findings: none; nothing stands out.")]
    for section in SECTIONS:
        heads = (section.title, f"  {section.title}: {section.missing}."[:40])
        places.append(next(i for i, line in enumerate(lines) if line.rstrip().startswith(heads)))
    assert places[0] == min(places)


@pytest.mark.parametrize("command", TABLES)
def test_a_bad_trace_is_one_clear_line(tmp_path, command):
    path = tmp_path / "bad.json"
    path.write_text("hello")
    result = invoke(command, path)
    assert isinstance(result.exception, TraceError)
    assert str(path) in str(result.exception)


def test_a_trace_is_served_to_perfetto_until_it_was_fetched(run):
    path = run()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = perfetto_address(path, port)
    assert address == f"https://ui.perfetto.dev/#!/?url=http://127.0.0.1:{port}/run.json"
    serving = threading.Thread(target=serve_once, args=(path, port))
    serving.start()
    local = address.partition("url=")[2]
    idle = _connected(port)  # a browser opens connections it may never use
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(local + "x")
    refused.value.close()
    with urllib.request.urlopen(local) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "https://ui.perfetto.dev"
        assert response.read() == path.read_bytes()
    serving.join(timeout=30)
    assert not serving.is_alive()
    idle.close()


def _connected(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError("nothing listens")


def test_a_port_in_use_is_one_clear_line(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(TraceError, match="--port"):
            serve_once(run(), taken.getsockname()[1])


def test_a_trace_without_tags_shows_operators(tmp_path):
    events = [e for e in engine_run(blocks=1) if e["cat"] != "user_annotation"]
    result = invoke("report", write(tmp_path / "untagged.json", events))
    assert result.exit_code == 0, result.output
    assert "no tags" in result.output
    assert "aten::addmm" in result.output


@pytest.mark.parametrize(
    ("number", "rows"),
    [("9" * 9, 6), ("9" * 10, 5), ("9" * 400, 5), ("9" * 5000, 5), ("-3", 5), ("0", 6)],
    ids=lambda value: f"{value}"[:12],
)
def test_absurd_and_repeated_numbers_in_names_cost_nothing(tmp_path, number, rows):
    """They neither stop the report nor make a table as large as the number."""
    events = engine_run(blocks=6)
    for event in events:
        for old in ("2.3_Block_3", "2.3.3_", "_Step_2_", "Layer_2"):
            event["name"] = event["name"].replace(old, re.sub(r"\d(?=_?$)", number, old))
    path, out = write(tmp_path / "absurd.json", events), tmp_path / "out.json"
    result = invoke("report", path, "--json", out)
    assert result.exit_code == 0, result.output
    assert len(json.loads(out.read_text())["blocks"]) == rows
