"""The structure of two runs compared."""

import json
import random
import re

import pytest

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.analyzers.structure.structural_diff import compare_structure
from tests.support.paths import SHARED
from tests.support.traces import GpuTrace, engine_run, invoke, write

TRACES = SHARED / "traces"


def renamed(events, **names):
    """Return events with parts of their names replaced."""
    changed = []
    for event in events:
        name = event["name"]
        for old, new in names.items():
            name = name.replace(old, new)
        changed.append(event | {"name": name})
    return changed


def kinds(diff):
    """Return how the last names of the parts belong together."""
    return {
        (
            change.kind,
            change.before.path[-1] if change.before else None,
            change.after.path[-1] if change.after else None,
        )
        for change in diff.changes
    }


def assert_adds_up(diff):
    """Check that self times, the time outside and the idle time are the windows."""
    for side, name in enumerate(("before", "after")):
        parts = [getattr(change, name) for change in diff.changes]
        total = sum(part.self_ms for part in parts if part)
        total += diff.outside_ms[side] + diff.idle_ms[side]
        assert total == pytest.approx(diff.window_ms[side])


def test_structure_of_a_run_with_itself_has_no_changes(run):
    analysis = analyze(run())
    diff = compare_structure(analysis, analysis)
    assert {(c.kind, c.confidence, c.self_change_ms) for c in diff.changes} == {("same", 1.0, 0.0)}
    assert_adds_up(diff)


def test_structure_pairs_renamed_tags(run, tmp_path):
    events = renamed(engine_run(), DiT_Layer="Transformer_Block", Feed_Forward="MLP")
    diff = compare_structure(analyze(run()), analyze(write(tmp_path / "new.json", events)))
    changed = {kind for kind in kinds(diff) if kind[0] != "same"}
    assert changed == {
        ("renamed", "DiT_Layer_{layer}", "Transformer_Block_{n}"),
        ("renamed", "DiT_Feed_Forward", "DiT_MLP"),
    }
    assert all(c.before and c.after and c.before.calls == c.after.calls for c in diff.changes)
    assert sum(abs(c.self_change_ms) for c in diff.changes) == pytest.approx(0, abs=1e-6)
    assert_adds_up(diff)


def test_structure_shows_inserted_levels_and_removed_subtrees(run, tmp_path):
    events = engine_run()
    without = [e for e in events if not re.match(r"2\.3\.\d_VAE_Decode|VAE_", e["name"])]
    outer = without[0] | {"name": "everything"}
    outer["dur"] = max(e["ts"] + e["dur"] for e in without) - outer["ts"]
    diff = compare_structure(
        analyze(run()), analyze(write(tmp_path / "new.json", [outer, *without]))
    )
    removed = {before for kind, before, _ in kinds(diff) if kind == "removed"}
    assert removed == {
        "2.3.{block}_VAE_Decode",
        "VAE_Decode_Frame_{frame}",
        "VAE_Dec_Conv1",
        "VAE_Dec_Upsample_Blocks",
        "VAE_Dec_Head",
    }
    assert {after for kind, _, after in kinds(diff) if kind == "inserted"} == {"everything"}
    assert {kind for kind, *_ in kinds(diff)} == {"same", "removed", "inserted"}
    assert_adds_up(diff)


def gpu_run(folder, name, kernel, factor, operators=("aten::linear", "aten::gelu")):
    """Write a run without tags: operators and their kernels."""
    gpu = GpuTrace()
    for _ in range(20):
        for i, operator in enumerate(operators):
            with gpu.op_range(operator):
                gpu.launch(kernel, factor * (100 + 50 * i))
    return write(folder / name, gpu.events, config=None)


def test_structure_of_other_hardware_pairs_the_same_operators(tmp_path):
    slow = analyze(gpu_run(tmp_path, "slow.json", "Cijk_Alik", 4))
    fast = analyze(gpu_run(tmp_path, "fast.json", "nvjet_tst", 1))
    diff = compare_structure(slow, fast)
    assert (diff.parts, diff.on_gpu) == ("operators", True)
    assert kinds(diff) == {("same", name, name) for name in ("aten::gelu", "aten::linear")}
    assert [[part.ms for part in (c.before, c.after) if part] for c in diff.changes] == [
        pytest.approx([12, 3]),
        pytest.approx([8, 2]),
    ]
    assert_adds_up(diff)


def test_structure_tells_renamed_tags_apart_by_their_operators(tmp_path):
    def tagged(name, tags):
        gpu = GpuTrace()
        for _ in range(5):
            for tag, operator in tags:
                with gpu.tag(tag), gpu.op_range(operator):
                    gpu.launch("kernel", 100)
                gpu.wait(300)
        return analyze(write(tmp_path / name, gpu.events, config=None))

    before = tagged("old.json", [("first", "aten::conv2d"), ("second", "aten::mm")])
    after = tagged("new.json", [("alpha", "aten::mm"), ("beta", "aten::conv2d")])
    assert kinds(compare_structure(before, after)) == {
        ("renamed", "first", "beta"),
        ("renamed", "second", "alpha"),
    }


@pytest.mark.parametrize("seed", range(4))
def test_self_times_add_up_to_both_windows(tmp_path, seed):
    rng = random.Random(seed)

    def random_run(name):
        gpu = GpuTrace()

        def nest(depth):
            with gpu.tag(rng.choice("abcde")):
                for _ in range(rng.randrange(3)):
                    gpu.launch("kernel", rng.randrange(1, 200), delay=rng.randrange(1, 90))
                    gpu.wait(rng.randrange(40))
                if depth < 3 and rng.random() < 0.7:
                    nest(depth + 1)
            gpu.wait(20)

        for _ in range(30):
            nest(0)
        gpu.launch("outside", 77)
        return analyze(write(tmp_path / name, gpu.events, config=None))

    assert_adds_up(compare_structure(random_run("a.json"), random_run("b.json")))


def test_structure_without_anything_in_common_raises(run, tmp_path):
    gpu = GpuTrace()
    gpu.launch("kernel", 10)
    bare = analyze(write(tmp_path / "bare.json", gpu.events, config=None))
    with pytest.raises(TraceError, match="use traces with tags"):
        compare_structure(analyze(run()), bare)


def test_compare_command_prints_the_structure(run, tmp_path):
    path = write(tmp_path / "new.json", renamed(engine_run(), Feed_Forward="MLP"))
    shown = invoke("compare", run(), path, "--structure").output
    assert "DiT_Feed_Forward -> DiT_MLP" in " ".join(shown.split())
    assert "window: " in shown
    document = json.loads(invoke("compare", run(), path, "--structure", "--json").output)
    assert document["parts"] == "tags"
    assert len(document["window_ms"]) == 2
    assert {change["kind"] for change in document["changes"]} == {"same", "renamed"}
    refused = invoke("compare", run(), path, "--structure", "--fail-over", "5%")
    assert refused.exit_code != 0


@pytest.mark.slow
@pytest.mark.skipif(not TRACES.is_dir(), reason="shared/traces is not here")
def test_structure_of_two_serving_engines_pairs_their_layers():
    diff = compare_structure(
        *(
            analyze(TRACES / f"{name}.json.gz")
            for name in ("b200-vllm-eager", "sglang-prefill-decode")
        )
    )
    assert diff.parts == "modules"
    assert {
        ("same", "QKVParallelLinear", "QKVParallelLinear"),
        ("renamed", "TransformerBlock", "Qwen3DecoderLayer"),
        ("renamed", "Attention", "RadixAttention"),
    } <= kinds(diff)
    assert_adds_up(diff)
