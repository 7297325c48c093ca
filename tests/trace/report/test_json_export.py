"""The JSON file of an analysis."""

from glassworld.trace import analyze
from glassworld.trace.report import json_export
from tests.support.traces import analysis_json, engine_run, write


def test_write_json_any_batch_size_writes_the_same(tmp_path, monkeypatch):
    analysis = analyze(write(tmp_path / "run.json", engine_run(blocks=3)))
    whole = analysis_json(analysis)
    for at_once in (1, 7):
        monkeypatch.setattr(json_export, "_AT_ONCE", at_once)
        written = analysis_json(analysis)
        assert written == whole
    assert sum(tag["instances"] for tag in written["tags"]) == len(written["instances_detail"])
