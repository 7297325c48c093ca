"""The commands."""

import json
import os
import re
import subprocess
import sys

import pytest

from glassworld.errors import InputError, TraceError
from glassworld.trace.cli.report import SECTION_HELP
from tests.support.traces import CpuTrace, GpuTrace, engine_run, invoke, write


def test_output_that_would_replace_the_trace_is_an_error(run):
    trace = run()
    content = trace.read_bytes()
    for command in (["report", trace, "--json", trace], ["merge", trace, trace, "-o", trace]):
        result = invoke(*command)
        assert isinstance(result.exception, InputError), result.output
        assert "is read or written by this command" in str(result.exception)
    assert trace.read_bytes() == content


def test_output_that_cannot_be_written_is_an_error_before_the_work(run, tmp_path):
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


@pytest.mark.parametrize(
    "command",
    [
        ["top", "{}", "--json"],
        ["top", "{}", "--tags-only", "--json"],
        ["ops", "{}", "--json"],
        ["compare", "{}", "{}", "--json"],
        ["critical-path", "{}", "--json"],
        ["sql", "{}", "SELECT name FROM tags", "--json"],
        ["export", "{}", "--format", "folded"],
    ],
)
def test_commands_say_on_stderr_that_a_file_is_cut_short(run, tmp_path, command):
    trace = run()
    whole = [part.format(trace) for part in command]
    assert invoke(*whole).stderr == ""
    trace.write_bytes(trace.read_bytes()[:-1000])
    result = invoke(*whole)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"note {trace}: ")
    if "--json" in command:
        assert json.loads(result.stdout)


def test_report_is_written_though_its_reader_closes_the_pipe(run, tmp_path):
    page = tmp_path / "page.html"
    command = [sys.executable, "-m", "glassworld", "trace", "report", run(), "--html", page]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.close()
    assert page.stat().st_size > 10_000


def test_report_of_any_names_is_written_where_the_terminal_knows_ascii_alone(tmp_path):
    clock = CpuTrace()
    with clock.tag("r\u00e9seau \u4e2d"):
        clock.op("op\u00e9rateur", 100)
    trace, out = write(tmp_path / "names.json", clock.events), tmp_path / "out.json"
    command = [sys.executable, "-m", "glassworld", "trace", "report", trace, "--json", out]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(command, capture_output=True, env=os.environ | ascii_only, check=False)
    assert ran.returncode == 0, ran.stderr
    assert rb"op\xe9rateur" in ran.stdout
    assert json.loads(out.read_bytes())["tags"][0]["name"] == "r\u00e9seau \u4e2d"
    assert "\u4e2d" in (tmp_path / "names_report.html").read_text(encoding="utf-8")


def test_unknown_tag_is_one_clear_line(run, tmp_path):
    bare = [e for e in engine_run(blocks=1) if e["cat"] != "user_annotation"]
    untagged = write(tmp_path / "untagged.json", bare)
    for trace, has in ((run(blocks=1), "it has 1_Data_Preparation"), (untagged, "none at all")):
        result = invoke("ops", trace, "Nowhere")
        assert isinstance(result.exception, TraceError)
        assert has in str(result.exception)


def test_report_json_has_the_documented_fields(run, tmp_path):
    out = tmp_path / "out.json"
    result = invoke("report", run(), "--json", out)
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text(encoding="utf-8"))
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


TABLES = ["top", *SECTION_HELP, "roofline", "ops", "kernels", "advice", "gaps"]


@pytest.mark.parametrize("command", TABLES)
def test_every_table_is_json_with_the_flag(run, command):
    path = run(blocks=3)
    shown = invoke(command, path)
    assert shown.exit_code == 0
    rows = json.loads(invoke(command, path, "--json").output)
    assert isinstance(rows, list)
    lacking = ("gaps", "kernels", "advice", "memory", "training", "serving", "compiled", "fused")
    assert bool(rows) == (command not in lacking)
    assert "Traceback" not in shown.output


@pytest.mark.parametrize("command", ["top", "ops", "kernels", "gaps"])
def test_number_of_rows_limits_tables_and_json(tmp_path, command):
    gpu = GpuTrace()
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


def test_blocks_shows_all_blocks_of_a_long_run(tmp_path):
    clock = CpuTrace()
    for block in range(1200):
        with clock.tag(f"2.3_Block_{block}"):
            clock.wait(100)
    trace = write(tmp_path / "long.json", clock.events)
    assert len(json.loads(invoke("blocks", trace, "--json").output)) == 1200
    assert "\n1199 " in invoke("blocks", trace).output


def test_command_that_the_report_names_shows_the_rows_left_out(tmp_path):
    clock = CpuTrace()
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


@pytest.mark.parametrize("command", TABLES)
def test_bad_trace_is_one_clear_line(tmp_path, command):
    path = tmp_path / "bad.json"
    path.write_text("hello", encoding="utf-8")
    result = invoke(command, path)
    assert isinstance(result.exception, TraceError)
    assert str(path) in str(result.exception)


@pytest.mark.parametrize(
    ("number", "rows"),
    [("9" * 9, 6), ("9" * 10, 5), ("9" * 400, 5), ("9" * 5000, 5), ("-3", 5), ("0", 6)],
    ids=lambda value: f"{value}"[:12],
)
def test_absurd_and_repeated_numbers_in_names_make_no_large_table(tmp_path, number, rows):
    """They neither stop the report nor make a table as large as the number."""
    events = engine_run(blocks=6)
    for event in events:
        for old in ("2.3_Block_3", "2.3.3_", "_Step_2_", "Layer_2"):
            event["name"] = event["name"].replace(old, re.sub(r"\d(?=_?$)", number, old))
    path, out = write(tmp_path / "absurd.json", events), tmp_path / "out.json"
    result = invoke("report", path, "--json", out)
    assert result.exit_code == 0, result.output
    assert len(json.loads(out.read_text(encoding="utf-8"))["blocks"]) == rows
