"""Steps of vLLM and SGLang: their kind, their time and those that stand out."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.serving_steps import serving_remarks, serving_steps, step_kind
from tests.support.paths import SHARED
from tests.support.traces import GpuTrace, write


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("execute_32_context_0(sq0sk0)_generation_32(sq32sk55086)", "decode"),
        ("execute_15360_context_15(sq15360sk15360)_generation_0(sq0sk0)", "prefill"),
        ("execute_context_1(7)_generation_3(3)", "mixed"),
        ("step[EXTEND bs=15 toks=15360]", "prefill"),
        ("step[DECODE bs=32]", "decode"),
        ("step[IDLE]", "idle"),
        ("step 3", ""),
        ("2.3_Block_0", ""),
    ],
)
def test_step_kind_is_that_of_the_name(name, kind):
    assert step_kind(name) == kind


def test_serving_steps_have_their_times_and_outliers(tmp_path):
    gpu = GpuTrace()
    for step in range(8):
        with gpu.tag(f"step[DECODE bs={step}]"), gpu.tag("forward"):
            gpu.launch("gemm", 900 if step == 5 else 100 + step)
            gpu.wait(30)
            gpu.launch("gemm", 10)
        gpu.wait(2000)
    steps = serving_steps(analyze(write(tmp_path / "t.json", gpu.events, config=None)))
    assert [step.name for step in steps] == [f"step[DECODE bs={i}]" for i in range(8)]
    assert [1000 * step.ms for step in steps] == pytest.approx(
        [910 if i == 5 else 110 + i for i in range(8)]
    )
    assert [step.outlier for step in steps] == [i == 5 for i in range(8)]
    assert {step.gpu_kernels for step in steps} == {2}


def test_step_inside_another_one_is_not_counted_twice(tmp_path):
    gpu = GpuTrace()
    for _ in range(3):
        outer, inner = "execute_4_context_1(4)_generation_0(0)", "step[EXTEND bs=1]"
        with gpu.tag(outer), gpu.tag("run"), gpu.tag(inner):
            gpu.launch("gemm", 100)
        gpu.wait(500)
    analysis = analyze(write(tmp_path / "t.json", gpu.events, config=None))
    assert {step.name[:7] for step in serving_steps(analysis)} == {"execute"}
    assert serving_remarks(analysis) == ["prefill: 3 steps, 0.30 ms in total, median 0.10 ms."]


def test_trace_without_steps_has_none(run):
    analysis = analyze(run(blocks=1))
    assert serving_steps(analysis) == []
    assert serving_remarks(analysis) == []


@pytest.mark.skipif(not (SHARED / "traces").is_dir(), reason="shared/traces is not here")
@pytest.mark.parametrize(
    ("file", "kind", "ms", "kernels"),
    [
        ("vllm-decode-cuda-graph", "decode", 10.72, 434),
        ("sglang-prefill-decode", "prefill", 492.81, 534),
    ],
)
def test_steps_of_real_traces_have_independent_figures(file, kind, ms, kernels):
    (step,) = serving_steps(analyze(SHARED / "traces" / f"{file}.json.gz"))
    assert (step.kind, step.gpu_kernels) == (kind, kernels)
    assert step.ms == pytest.approx(ms, abs=0.01)
