"""The bottleneck of a GPU run."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.bottleneck import find_bottleneck
from tests.support.traces import GpuTrace, write


@pytest.mark.parametrize(
    ("dur", "pause", "sync", "kind"),
    [(300, 10, 0, "gpu"), (5, 40, 0, "launch"), (100, 60, 105, "sync"), (100, 2000, 0, "host")],
)
def test_find_bottleneck_names_the_kind(tmp_path, dur, pause, sync, kind):
    gpu = GpuTrace()
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
