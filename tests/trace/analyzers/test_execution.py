"""What is slow in a run that tags do not explain, and what is compiled already."""

import json

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.execution import runs_compiled, slow_parts, tags_explain
from glassworld.trace.rules.rule import advise
from tests.support.traces import GpuTrace, analysis_json, invoke, write


def module_run(step=True, modules=True):
    """Return a step of three layers; attention takes four fifths of their time."""
    gpu = GpuTrace()

    def call(name, dur, layer):
        start = gpu.now
        with gpu.op_range(f"aten::{name}"):
            gpu.launch(name, dur)
        gpu.wait(dur)
        if modules:
            gpu.event("python_function", f"nn.Module: {name.title()}2_{layer}", start, dur)

    start = gpu.now
    for layer in range(3):
        call("attention", 80, layer)
        call("linear", 20, layer)
    if step:
        gpu.event("user_annotation", "ProfilerStep#3", start, gpu.now - start)
    return gpu.events


@pytest.mark.parametrize("step", [True, False])
def test_modules_of_the_python_stacks_say_what_is_slow(tmp_path, step):
    path = write(tmp_path / "t.json", module_run(step), config=None)
    parts = slow_parts(analyze(path))
    assert [(part.name, part.kind, part.count) for part in parts] == [
        ("Attention2", "module", 3),
        ("Linear2", "module", 3),
    ]
    assert [part.share for part in parts] == pytest.approx([0.8, 0.2])
    assert "Attention2" in invoke("top", path).output
    assert analysis_json(analyze(path))["slowest"][0]["self_ms"] == pytest.approx(0.24)


def test_without_modules_operators_say_what_is_slow(tmp_path):
    path = write(tmp_path / "t.json", module_run(step=False, modules=False), config=None)
    parts = slow_parts(analyze(path))
    assert [(part.name, part.kind) for part in parts] == [
        ("aten::attention", "operator"),
        ("aten::linear", "operator"),
    ]
    assert json.loads(invoke("top", path, "--json").output)[0]["name"] == "aten::attention"


def test_tags_that_explain_a_run_stand_alone_in_top(run, tmp_path):
    assert tags_explain(analyze(run()))
    assert "modules" not in invoke("top", run()).output
    assert not tags_explain(analyze(write(tmp_path / "t.json", module_run(), config=None)))


@pytest.mark.parametrize("compiled", [False, True])
def test_compiling_is_advised_only_where_nothing_is_compiled(tmp_path, compiled):
    gpu = GpuTrace()
    with gpu.tag("step"):
        for _ in range(100):
            with gpu.op_range("Torch-Compiled Region: 0/0" if compiled else "aten::index"):
                gpu.launch("add", 5)
            gpu.wait(40)
    analysis = analyze(write(tmp_path / "gpu.json", gpu.events, config=None))
    assert runs_compiled(analysis) == compiled
    [finding] = advise(analysis)
    assert ("compile" in finding.change) != compiled


def test_kernels_say_what_is_slow_where_operators_launched_little(tmp_path):
    events = [event for event in module_run(False, False) if event["cat"] != "cpu_op"]
    parts = slow_parts(analyze(write(tmp_path / "t.json", events, config=None)))
    assert [(part.name, part.kind) for part in parts] == [
        ("attention", "kernel"),
        ("linear", "kernel"),
    ]
