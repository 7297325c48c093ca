"""One entry of the registry is all that a tag needs to be shown everywhere."""

from __future__ import annotations

import pytest

from glassworld.profiling import registry as tags
from glassworld.trace import analyze
from glassworld.trace.analyzers.breakdown import stage_shares, transformer_shares
from glassworld.trace.analyzers.expected_time import expected_table
from glassworld.trace.analyzers.flops import COSTS
from glassworld.trace.analyzers.roofline import roofline_by_tag
from tests.support.traces import CONFIG, CpuTrace, write


def test_every_cost_in_the_registry_is_a_function() -> None:
    named = {tag.cost for tag in tags.REGISTRY.values() if tag.cost}
    assert named == set(COSTS)


def test_tag_label_fills_the_fields_that_are_known() -> None:
    assert tags.tag_label(tags.LAYER) == "layer"
    assert tags.tag_label(tags.LAYER, {"layer": 3, "block": 1}) == "layer 3"


def test_leaf_tags_are_those_with_none_inside() -> None:
    assert tags.leaf_tags(tags.DIFFUSION_FORWARD)[:3] == [
        tags.PATCH_EMBEDDING,
        tags.TIME_EMBEDDING,
        tags.SELF_ATTENTION,
    ]
    assert tags.LAYER not in tags.leaf_tags(tags.DIFFUSION_FORWARD)
    assert tags.leaf_tags(tags.HEAD) == []


def test_a_new_entry_is_in_every_table(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tags.Tag(
        "DiT_New", 4, (tags.LAYER,), "new", tags.DENOISE, "new part", "", "dit_feed_forward"
    )
    stage = tags.Tag("5_New", 1, (), "new", tags.POST, "new stage")
    part = tags.Tag("2.3_New", 3, (tags.BLOCK,), "new", tags.POST, "new part of a block")
    monkeypatch.setattr(
        tags, "REGISTRY", tags.REGISTRY | {t.pattern: t for t in (new, stage, part)}
    )
    clock = CpuTrace()
    with clock.tag(tags.PIPELINE_INFERENCE), clock.tag("2.3_Block_0"):
        with clock.tag("2.3.0_Denoising_Step_0_t1000"), clock.tag("DiT_New"):
            clock.wait(100)
        with clock.tag("2.3_New"):
            clock.wait(100)
    with clock.tag("5_New"):
        clock.wait(100)
    analysis = analyze(write(tmp_path / "new.json", clock.events, config=CONFIG))
    assert "DiT_New" in [row.name for row in transformer_shares(analysis)]
    assert "5_New" in [row.name for row in stage_shares(analysis)]
    assert "  new part of a block" in [row.row for row in expected_table(analysis)]
    assert "DiT_New" in [point.tag for point in roofline_by_tag(analysis)]
