"""Damaged configurations in a trace."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.blocks import real_time_pace
from tests.support.traces import CONFIG, JSON_VALUES, analysis_json, engine_run, write


@pytest.mark.parametrize("broken", JSON_VALUES, ids=repr)
@pytest.mark.parametrize("key", CONFIG)
def test_run_config_with_odd_value_never_fails_the_analysis(tmp_path, key, broken):
    path = write(tmp_path / "run.json", engine_run(blocks=2), config=CONFIG | {key: broken})
    document = analysis_json(analyze(path))
    assert len(document["expected"]) == 8
    assert document["blocks"]


@pytest.mark.parametrize(
    "broken",
    [
        {"frame_rate": 10**400},
        {"frame_rate": float("nan")},
        {"frame_rate": -12},
        {"frame_rate": 12, "frames_per_block": 0},
        {"vae": CONFIG["vae"] | {"temporal": [10**12, True, True]}},
    ],
    ids=repr,
)
def test_run_config_with_absurd_numbers_never_fails_the_analysis(tmp_path, broken):
    analysis = analyze(write(tmp_path / "run.json", engine_run(blocks=2), config=CONFIG | broken))
    assert len(analysis_json(analysis)["expected"]) == 8
    assert real_time_pace(analysis) is None
