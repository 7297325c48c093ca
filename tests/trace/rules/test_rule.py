"""All rules: each is documented and tested, and traces have the findings that they should."""

from pathlib import Path

import pytest

from glassworld.trace.rules.rule import RULES
from tests.support.advised import findings
from tests.support.paths import ROOT, SHARED

TRACES = SHARED / "traces"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason="shared/traces is not here")


def test_docs_list_every_rule_with_its_threshold():
    page = (ROOT / "docs" / "trace.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f"| {rule.name} | {rule.fires_when} | {rule.limit} |" in page
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_every_rule_has_a_test():
    """The tests beside this one plant what each rule looks for, and name it."""
    source = "".join(
        path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")
    )
    assert [rule.name for rule in RULES if f'"{rule.name}"' not in source] == []


def test_a_healthy_run_has_no_findings(run):
    assert findings(run()) == {}


@needs_traces
@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("b200-vllm-eager", {"launch-bound"}),
        ("h100-owlv2", {"data-loading", "attention-backend"}),
        ("h100-timesformer", {"gpu-stall", "attention-backend"}),
        ("mi300x-sd3.5-diffusion", {"launch-bound"}),
        ("sglang-prefill-decode", set()),
        ("vllm-decode-cuda-graph", set()),
    ],
)
def test_real_traces_have_the_findings_their_kernels_support(file, rules):
    assert {rule for rule, _ in findings(TRACES / f"{file}.json.gz")} == rules
