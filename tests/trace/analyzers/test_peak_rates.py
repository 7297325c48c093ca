"""Stored peak rates."""

import json

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.analyzers.expected_time import expected_table
from glassworld.trace.analyzers.peak_rates import read_peak_rates
from glassworld.trace.analyzers.roofline import roofline_by_tag
from tests.support.traces import CONFIG, engine_run, write


@pytest.mark.parametrize(
    ("device", "there", "same"),
    [
        ("cpu", {"processor": "another", "cores": 2}, False),
        ("cpu", {"processor": "this one", "cores": 64}, False),
        ("cpu", {"processor": "this one", "cores": 2, "gpu": "any"}, True),
        ("cuda:1", {"processor": "this one", "cores": 2, "gpu": "any"}, False),
        ("cuda:1", {"processor": "another", "cores": 64, "gpu": "mine"}, True),
        ("cpu", None, True),
    ],
)
def test_read_peak_rates_of_another_machine_are_not_used(
    store_peak_rates, tmp_path, device, there, same
):
    store_peak_rates(machine=there, device=device.partition(":")[0])
    here = {"processor": "this one", "cores": 2, "gpu": "mine"}
    path = tmp_path / "here.json"
    write(path, engine_run(blocks=2), config=CONFIG | {"device": device}, machine=here)
    analysis = analyze(path)
    assert all((row.expected_ms is not None) == same for row in expected_table(analysis))
    assert all((point.roof_gflops is not None) == same for point in roofline_by_tag(analysis))
    matching = [note for note in find_caveats(analysis) if "peak rates" in note]
    assert bool(matching) != same
    if matching:
        assert (there["gpu"] if device != "cpu" else there["processor"]) in matching[0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"cpu:float32": {"matmul_gflops": 10',
        "\x00\x01",
        "[1]",
        '{"cpu:float32": 3}',
        "[" * 100_000,
        '{"cpu:float32": {"matmul_gflops": NaN, "conv_gflops": 1, "copy_gbps": 1}}',
        '{"cpu:float32": {"matmul_gflops": 1%s, "conv_gflops": 1, "copy_gbps": 1}}' % ("0" * 400),
    ],
    ids=range(8),
)
def test_read_peak_rates_damaged_file_counts_as_none(run, store_peak_rates, tmp_path, content):
    store_peak_rates()
    (tmp_path / "glassworld" / "ceilings.json").write_text(content, encoding="utf-8")
    analysis = analyze(run(blocks=2))
    assert all(row.expected_ms is None for row in expected_table(analysis))
    assert any("glassworld bench peak-rates" in note for note in find_caveats(analysis))


def test_read_peak_rates_prefers_those_of_the_runs_threads(run, tmp_path):
    rates = {"conv_gflops": 50.0, "copy_gbps": 10.0}
    stored = {
        f"cpu:float32:{threads}": rates | {"matmul_gflops": 100.0 * threads, "threads": threads}
        for threads in (1, 2, 8)
    }
    (tmp_path / "glassworld").mkdir()
    (tmp_path / "glassworld" / "ceilings.json").write_text(json.dumps(stored), encoding="utf-8")
    for threads, used in ((1, 1), (2, 2), (3, 8)):
        path = run(f"{threads}.json", config=CONFIG | {"threads": threads}, blocks=2)
        analysis = analyze(path)
        found = read_peak_rates(analysis.trace.metadata)
        assert found is not None
        assert (found.threads, found.matmul_gflops) == (used, 100.0 * used)
        notes = [note for note in find_caveats(analysis) if "threads" in note]
        assert bool(notes) == (threads != used)
        assert not notes or "OMP_NUM_THREADS=3 glassworld bench peak-rates" in notes[0]
