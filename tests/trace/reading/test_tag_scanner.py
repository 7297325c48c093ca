"""Reading the tags alone."""

from glassworld.trace import analyze
from tests.support.traces import engine_run, write


def test_analyze_tags_only_finds_the_same_tags(tmp_path, small_pieces):
    path = write(tmp_path / "run.json", engine_run(blocks=3), indent=2)
    whole, tags = analyze(path), analyze(path, tags_only=True)
    assert [tag.path for tag in tags.tags] == [tag.path for tag in whole.tags]
    assert [tag.cpu_ms for tag in tags.tags] == [tag.cpu_ms for tag in whole.tags]
    assert tags.trace.losses == []
