"""Tag names are parsed into patterns and numbers."""

import pytest

from glassworld.profiling.registry import REGISTRY
from glassworld.trace.timeline.tag_names import parse_tag_name


@pytest.mark.parametrize("pattern", REGISTRY)
def test_parse_tag_name_registered_returns_its_pattern(pattern):
    values = {"block": 12, "step": 1, "timestep": 666, "layer": 29, "frame": 2}
    folded, dims = parse_tag_name(pattern.format(**values))
    assert folded == pattern
    assert dims == {key: value for key, value in values.items() if f"{{{key}}}" in pattern}


def test_parse_tag_name_unknown_replaces_digits():
    assert parse_tag_name("2.3.1_My_Step_t999") == ("2.3.{n}_My_Step_t{n}", {"block": 1})
    assert parse_tag_name("step[EXTEND bs=15 toks=15360]")[0] == "step[EXTEND bs={n} toks={n}]"


@pytest.mark.parametrize("number", ["9" * 10, "9" * 400, "9" * 5000, "-1"])
def test_parse_tag_name_number_out_of_range_is_no_index(number):
    assert parse_tag_name(f"2.3_Block_{number}") == (f"2.3_Block_{'-' * (number < '0')}{{n}}", {})
    assert parse_tag_name(f"step block={number}")[0].endswith("{n}")
