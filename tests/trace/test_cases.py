"""Inputs rebuilt from public bug reports, each read and judged rightly."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.bottleneck import find_bottleneck, gpu_use
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.rules.rule import advise
from tests.support.paths import SHARED

CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases is not here")

# file, window, GPU operations, GPU busy ms, kind of bottleneck, words of the notes
RIGHT = [
    ("slow-launch.json", 304.0, 20, 1.0, "host", []),
    ("stream-overlap.json", 4.24, 20, 4.2, "mixed", ["overlap"]),
    ("one-overflow.json", 1600.34, 20, 1600.15, "mixed", ["overlap"]),
    ("cpu-then-gpu.json", 10_004.0, 20, 1.0, "host", ["load_data"]),
    ("single-kernel.json", 400.0, 1, 0.045, None, ["too few"]),
    ("zero-timestamps.json", 2.0, 10, 0.5, "launch", ["timestamp"]),
    ("gaudi.json", 4.0, 20, 1.0, "launch", []),
    ("jax-tpu.json", 1.0, 20, 0.8, "mixed", []),
    ("legacy-autograd.json", 0.98, 10, 0.6, "launch", []),
    ("not-available.json", 4.0, 20, 1.0, "launch", []),
    ("windows-paths.json", 4.0, 20, 1.0, "launch", []),
    ("trailing-comma.json", 4.0, 20, 1.0, "launch", []),
    ("negative-durations.json", 4.0, 16, 0.8, "launch", ["negative"]),
    ("torch-1.8-steps.json", 4.0, 20, 1.0, "launch", []),
    ("one-long-kernel.json", 17_459.52, 20, 17_457.03, "mixed", []),
    ("advice-wrong-tag.json.gz", 9.99, 140, 0.291, "launch", []),
]


@pytest.mark.parametrize(("file", "window", "operations", "busy", "kind", "words"), RIGHT)
def test_case_gives_the_right_figures(file, window, operations, busy, kind, words):
    analysis = analyze(CASES / file)
    use, verdict = gpu_use(analysis), find_bottleneck(analysis)
    assert use
    assert use.window_ms == pytest.approx(window)
    assert analysis.coverage.gpu_ops == operations
    assert use.busy_ms == pytest.approx(busy)
    assert (verdict.kind if verdict else None) == kind
    assert analysis.trace.losses == []
    notes = " ".join(find_caveats(analysis))
    assert all(word in notes for word in words)
    for row in analysis.tags:
        assert row.gpu_busy_ms <= row.gpu_span_ms <= use.window_ms
    for finding in advise(analysis):
        assert finding.gain_ms <= max(use.busy_ms, use.idle_ms)
        rows = [row for row in analysis.tags if row.name == finding.tag]
        limit = [max(row.gpu_busy_ms, row.gpu_idle_ms) for row in rows]
        assert not limit or finding.gain_ms <= sum(limit)


@pytest.mark.parametrize(
    ("file", "tag", "words"),
    [
        ("slow-launch.json", "(the whole run)", "cudaLaunchKernel"),
        ("one-long-kernel.json", "void aiter::cross_device_reduce_2stage<bf16, 8>", "17,456"),
    ],
)
def test_case_has_the_right_finding(file, tag, words):
    found = {finding.tag: finding for finding in advise(analyze(CASES / file))}
    assert words in found[tag].what


def test_old_steps_are_tags():
    names = {row.name for row in analyze(CASES / "torch-1.8-steps.json").tags}
    assert {f"ProfilerStep#{i}" for i in range(4)} <= names


def test_memory_of_a_run_without_tags_is_of_its_operators():
    rows = {row.tag: row for row in analyze(CASES / "memory-without-tags.json").memory}
    assert rows["(the whole run)"].peak_mib > 0
    assert len(rows) > 1
