"""The attack on live play, in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glassworld.bench.play.attack import (
    JUNK,
    MAX_MESSAGES,
    AttackOptions,
    kept_under_attack,
    run_attack,
)
from glassworld.errors import InputError
from tests.support.release import write_release


@pytest.mark.slow
def test_small_attack_leaves_the_server_quick_and_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_release(tmp_path / "world")
    path = tmp_path / "attack.json"
    run_attack(AttackOptions(10 * 600, 30, tmp_path / "world", "cpu", path))
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert figures["messages"] > 3000  # a connection may be cut before it has sent all
    assert set(figures["messages_by_kind"]) == set(JUNK)
    kept = figures["kept"]
    del kept["/healthz within 200 ms"]  # another test may have the machine
    del kept["memory back within 10 %"]  # of a world that is smaller than one answer
    assert all(kept.values()), kept
    output = capsys.readouterr().out
    assert "beside 50 requests that do not end" in output
    assert "0 tracebacks" in output


def test_broken_promises_are_found() -> None:
    figures = {
        "tracebacks": 1,
        "seconds_until_slots_were_back": None,
        "slow_requests_left_open": 2,
        "health_ms": {"max": 201.0},
        "megabytes": {"before": 100.0, "after": 111.0},
    }
    assert not any(kept_under_attack(figures).values())


def test_attack_is_bounded() -> None:
    with pytest.raises(InputError, match="at most 1,000,000 messages"):
        run_attack(AttackOptions(MAX_MESSAGES + 1))
