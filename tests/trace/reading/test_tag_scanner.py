"""Reading the tags alone."""

import pytest

from glassworld.trace import analyze
from tests.support.traces import CpuTrace, engine_run, write


def test_analyze_tags_only_finds_the_same_tags(tmp_path, small_pieces):
    path = write(tmp_path / "run.json", engine_run(blocks=3), indent=2)
    whole, tags = analyze(path), analyze(path, tags_only=True)
    assert [tag.path for tag in tags.tags] == [tag.path for tag in whole.tags]
    assert [tag.cpu_ms for tag in tags.tags] == [tag.cpu_ms for tag in whole.tags]
    assert tags.trace.losses == []


@pytest.mark.parametrize("args_first", [False, True])
def test_analyze_tags_only_finds_the_steps_of_torch_1_8(tmp_path, small_pieces, args_first):
    clock = CpuTrace()
    for step in range(30):
        clock.event("Operator", f"ProfilerStep#{step}", clock.now, 90)
        with clock.tag("forward"):
            clock.event("Operator", "aten::mm", clock.now, 40)
            clock.wait(50)
        clock.event("Operator", "aten::add", clock.now, 20)
        clock.wait(50)
    events = clock.events
    if args_first:
        events = [dict(reversed(event.items())) for event in events]
    path = write(tmp_path / "old.json", events, config=None)
    whole, tags = analyze(path), analyze(path, tags_only=True)
    assert len(tags.tree) == 60
    assert [tag.path for tag in tags.tags] == [tag.path for tag in whole.tags]
    assert [tag.cpu_ms for tag in tags.tags] == [tag.cpu_ms for tag in whole.tags]
    assert tags.trace.losses == []
