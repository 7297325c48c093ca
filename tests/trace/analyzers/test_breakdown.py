"""The answers to the questions, on a run whose answers are known."""

import pytest

from glassworld.profiling.registry import REGISTRY
from glassworld.trace import analyze
from glassworld.trace.analyzers import blocks, breakdown
from glassworld.trace.analyzers.bottleneck import find_bottleneck
from glassworld.trace.analyzers.operators import kernel_rows, launched_by_operators, operator_rows
from glassworld.trace.reading import columns as tables
from glassworld.trace.report.sections import first_step_sentence
from glassworld.trace.timeline.tag_names import parse_tag_name
from tests.support.traces import Clock, Gpu, write


@pytest.mark.parametrize("pattern", REGISTRY)
def test_every_registered_name_folds_to_its_pattern(pattern):
    values = {"block": 12, "step": 1, "timestep": 666, "layer": 29, "frame": 2}
    folded, dims = parse_tag_name(pattern.format(**values))
    assert folded == pattern
    assert dims == {key: value for key, value in values.items() if f"{{{key}}}" in pattern}


def test_a_persons_own_tags_fold_by_their_digits():
    assert parse_tag_name("2.3.1_My_Step_t999") == ("2.3.{n}_My_Step_t{n}", {"block": 1})
    assert parse_tag_name("step[EXTEND bs=15 toks=15360]")[0] == "step[EXTEND bs={n} toks={n}]"


@pytest.mark.parametrize("number", ["9" * 10, "9" * 400, "9" * 5000, "-1"])
def test_a_number_that_counts_nothing_is_no_index(number):
    assert parse_tag_name(f"2.3_Block_{number}") == (f"2.3_Block_{'-' * (number < '0')}{{n}}", {})
    assert parse_tag_name(f"step block={number}")[0].endswith("{n}")


def test_blocks_steps_and_stages(run):
    analysis = analyze(run(blocks=5))
    stages = breakdown.stage_shares(analysis)
    assert stages[0].name == "2_Pipeline_Inference"
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    found = blocks.block_times(analysis)
    assert [block.block for block in found] == [0, 1, 2, 3, 4]
    for block in found:
        assert block.steps_ms == pytest.approx(3 * 4 * 0.8, rel=0.03)
        assert block.update_ms == pytest.approx(4 * 0.8, rel=0.03)
        assert block.decode_ms == pytest.approx(4.5, rel=0.03)
        assert block.ms == pytest.approx(
            block.steps_ms + block.update_ms + block.decode_ms + block.other_ms
        )
    assert [(step.step, step.timestep) for step in blocks.step_times(analysis)] == [
        (0, 1000),
        (1, 908),
        (2, 714),
    ]
    [update] = breakdown.update_cost(analysis)
    assert update.share_of_transformer == pytest.approx(0.25, abs=0.01)


def test_a_slower_first_step_is_explained_by_its_tags(run):
    def slow(step, block, layer, **_):
        return 500.0 if step == 0 and block > 0 and layer == 1 else 0.0

    first, opening = blocks.first_step_comparisons(analyze(run(slow=slow)))
    assert first.significant
    assert first.times == pytest.approx((4 * 0.8 + 0.5) / (4 * 0.8), rel=0.02)
    assert first.reasons[0].tag == "DiT_Layer_{layer}"
    assert first.reasons[0].more_ms == pytest.approx(0.5, rel=0.1)
    assert not opening.significant


def test_equal_steps_are_not_called_slower(run):
    steps = blocks.first_step_comparisons(analyze(run()))
    assert [step.significant for step in steps] == [False, False]
    assert all(step.times == pytest.approx(1, abs=0.03) for step in steps)


def test_a_first_block_that_warms_up_is_no_property_of_the_first_step(run):
    def slow(block, layer, **_):
        return 800.0 if block == 0 and layer >= 0 else 0.0

    first, opening = blocks.first_step_comparisons(analyze(run(slow=slow)))
    assert not first.significant
    assert opening.significant
    assert opening.times == pytest.approx(2, rel=0.05)
    assert first_step_sentence(first).startswith("In later blocks the first step takes ")
    assert first_step_sentence(opening).startswith("The first block's steps take ")


def test_stages_of_another_program_are_its_outermost_tags_with_parts(tmp_path):
    gpu = Gpu()
    with gpu.tag("ProfilerStep#7"):
        with gpu.tag("forward"), gpu.op_range("aten::mm"):
            gpu.launch("gemm", 300)
        with gpu.tag("backward"), gpu.op_range("aten::mm"):
            gpu.launch("gemm", 600)
        gpu.wait(1)
        gpu.launch("zero", 100)
        gpu.wait(2000)
    analysis = analyze(write(tmp_path / "gpu.json", gpu.events, config=None))
    stages = breakdown.stage_shares(analysis)
    assert [(stage.name, round(stage.share, 3)) for stage in stages] == [
        ("backward", 0.6),
        ("forward", 0.3),
        ("(the rest of ProfilerStep#7)", 0.1),
    ]
    assert [row.name for row in breakdown.slowest_tags(analysis)[:2]] == ["backward", "forward"]
    kernels = [(row.name, row.calls, row.ms) for row in kernel_rows(analysis)]
    assert kernels == [("gemm", 2, pytest.approx(0.9)), ("zero", 1, pytest.approx(0.1))]
    assert [row.name for row in kernel_rows(analysis, "forward")] == ["gemm"]


@pytest.mark.parametrize(
    ("dur", "pause", "sync", "kind"),
    [(300, 10, 0, "gpu"), (5, 40, 0, "launch"), (100, 60, 105, "sync"), (100, 2000, 0, "host")],
)
def test_what_holds_a_gpu_run_back_is_named(tmp_path, dur, pause, sync, kind):
    gpu = Gpu()
    with gpu.tag("step"):
        for _ in range(60):
            gpu.launch("gemm", dur)
            if sync:
                gpu.call("cudaStreamSynchronize", sync)
            gpu.op("aten::add", pause)
        gpu.wait(20_000 if kind == "gpu" else 0)
    verdict = find_bottleneck(analyze(write(tmp_path / "gpu.json", gpu.events, config=None)))
    assert verdict.kind == kind
    busy = 60 * dur / 1000
    assert verdict.idle_ms == pytest.approx(verdict.idle_share * (busy + verdict.idle_ms), rel=0.05)


def test_copies_and_collectives_are_told_apart_from_kernels(tmp_path):
    gpu = Gpu()
    with gpu.tag("step"):
        gpu.launch("gemm", 300)
        gpu.launch("Memcpy DtoH (Device -> Pinned)", 40, cat="gpu_memcpy")
        gpu.launch("Memset (Device)", 2, cat="gpu_memset")
        gpu.launch("ncclDevKernel_AllReduce_Sum", 50)
        gpu.wait(1000)
    [row] = analyze(write(tmp_path / "gpu.json", gpu.events, config=None)).tags
    assert (row.gpu_kernels, row.gpu_copies, row.gpu_collectives) == (4, 2, 1)
    assert row.gpu_copy_ms == pytest.approx(0.042)
    assert row.gpu_collective_ms == pytest.approx(0.050)
    assert row.gpu_busy_ms == row.gpu_self_ms == pytest.approx(0.392)


def test_self_time_and_children_make_up_the_whole(run):
    analysis = analyze(run())
    whole = sum(row.cpu_ms for row in analysis.tags if len(row.path) == 1)
    assert sum(row.self_cpu_ms for row in analysis.tags) == pytest.approx(whole, rel=1e-6)


def test_operators_under_a_tag(run):
    rows = operator_rows(analyze(run(blocks=2)), "DiT_Feed_Forward")
    assert [row.name for row in rows] == ["aten::addmm"]
    assert rows[0].calls == 2 * 4 * 4
    assert rows[0].share == 1


def test_slow_tags_of_one_name_are_told_apart_by_where_they_are(run):
    found = {(row.name, row.within) for row in breakdown.slowest_tags(analyze(run(blocks=2)))}
    attention = {within for name, within in found if name == "DiT_Self_Attention"}
    assert attention == {
        "Generator_Forward",
        "Generator_Forward_Final",
        "2.3.{block}_Update_KV_Cache",
    }
    assert ("VAE_Dec_Head", "") in found


def test_a_lone_tag_is_the_slowest_stage_however_short(tmp_path):
    clock = Clock()
    with clock.tag("mine"):
        pass
    [part] = breakdown.stage_shares(analyze(write(tmp_path / "lone.json", clock.events)))
    assert (part.name, part.ms, part.count) == ("mine", 0, 1)


def test_operators_say_how_much_of_the_gpus_time_is_theirs(tmp_path):
    """A graph's kernels have no operator: shares of the operators' are no shares of the run."""
    gpu = Gpu()
    with gpu.tag("replay"):
        gpu.launch("graph", 900)
    with gpu.tag("head"), gpu.op_range("aten::mm"):
        gpu.launch("gemm", 100)
    analysis = analyze(write(tmp_path / "gpu.json", gpu.events, config=None))
    [remark] = launched_by_operators(analysis)
    assert "launched 10% of the GPU" in remark
    assert launched_by_operators(analysis, "head") == []
    assert "launched 0% of the GPU" in launched_by_operators(analysis, "replay")[0]


def test_memory_by_tag_does_not_depend_on_slices(tmp_path, monkeypatch):
    clock, held_now = Clock(), 0

    def allocate(size):
        nonlocal held_now
        held_now += size
        args = {"Total Allocated": held_now, "Bytes": size, "Device Type": 0, "Device Id": -1}
        clock.events.append(
            {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1}
            | {"ts": round(clock.base + clock.now, 3), "s": "t", "args": args}
        )
        clock.wait(1)

    mib = 2**20
    with clock.tag("outer"):
        clock.wait(1)
        allocate(5 * mib)
        for _ in range(3):
            with clock.tag("inner"):
                clock.wait(1)
                allocate(7 * mib)
                allocate(-6 * mib)
    path = write(tmp_path / "memory.json", clock.events)
    for rows in (1 << 18, 2):
        monkeypatch.setattr(tables, "SLICE_ROWS", rows)
        found = {row.tag: row for row in analyze(path).memory}
        assert found["inner"].peak_mib == found["outer"].peak_mib == 5 + 2 + 7
        assert found["inner"].kept_mib == 1
        assert found["outer"].kept_mib == 8
