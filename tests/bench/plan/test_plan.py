"""The capacity model: a server in simulated time, and the fleet for many players."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from glassworld.cli import main
from glassworld.errors import InputError

pytest.importorskip("simpy", reason="simpy is not installed")

from glassworld.bench.plan.fleet_model import fleet_for, seats_for, simulate_arrivals
from glassworld.bench.plan.run import PlanOptions, compare, read_times, run_plan
from glassworld.bench.plan.server_model import BatchTimes, find_seats, predict_server

LINEAR = BatchTimes({1: 0.1, 2: 0.2})  # a batch saves nothing


def test_times_lie_on_a_line_between_and_beyond_the_measured() -> None:
    times = BatchTimes({1: 0.1, 2: 0.16, 4: 0.2})
    assert [times.at(n) for n in (1, 2, 3, 4, 6)] == pytest.approx([0.1, 0.16, 0.18, 0.2, 0.24])
    assert BatchTimes({2: 0.2}).at(3) == pytest.approx(0.3)
    spread = BatchTimes({1: 0.1}, (0.5, 2.0))
    drawn = {spread.draw(1, random.Random(seed)) for seed in range(20)}
    assert drawn == {0.05, 0.2}


def test_server_serves_players_until_its_device_is_busy() -> None:
    idle = predict_server(LINEAR, 2, 12, 12, minutes=1)
    assert idle.deadline_attainment == 1
    assert idle.busy == pytest.approx(0.2, abs=0.03)
    overloaded = predict_server(LINEAR, 14, 12, 12, minutes=1)
    assert overloaded.busy > 0.98
    assert overloaded.deadline_attainment < 0.95
    assert overloaded.stalls_per_minute > 1


def test_input_waits_for_a_block_and_its_queue() -> None:
    latency = predict_server(BatchTimes({1: 0.05}), 1, 12, 12, minutes=5).input_to_frame_ms
    # The next block begins within a second, and its first frame waits for those in the queue.
    assert 300 < latency["p50"] < latency["p95"] < 1500


def test_seats_end_where_the_target_is_missed() -> None:
    found = [each.sessions for each in find_seats(LINEAR, 12, 12, target=0.99, minutes=0.5)]
    assert found == sorted(found)
    assert 6 <= found[-1] <= 11
    one_by_one = [predict_server(LINEAR, n, 12, 12, 0.5).deadline_attainment for n in range(1, 13)]
    assert found[-1] == sum(share >= 0.99 for share in one_by_one)
    fast = find_seats(BatchTimes({1: 0.001}), 12, 12, 0.99, minutes=0.05, most=9)
    assert [each.sessions for each in fast] == [1, 2, 4, 8, 9]
    assert find_seats(BatchTimes({1: 2.0}), 12, 12, 0.99, 0.5) == []


def test_fleet_has_seats_for_more_than_the_mean() -> None:
    assert seats_for(1000, 0.01) == 1075
    fleet = fleet_for(1000, 4, 0.01, price=2.5)
    assert fleet == (1000, 1075, 269, 672.5)
    assert fleet_for(1000, 4, 0.01).cost_per_hour is None


def test_simulated_players_are_refused_as_the_formula_says() -> None:
    assert simulate_arrivals(seats_for(50, 0.01), 50) < 0.02
    assert 0.05 < simulate_arrivals(50, 50, hours=8) < 0.15  # Erlang's formula B: 0.105


def test_plan_is_printed_compared_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check, path = tmp_path / "load.json", tmp_path / "plan.json"
    measured = {
        "deadline_attainment": 1.0,
        "stalls_per_minute": 0.0,
        "input_to_frame_ms": {"p50": 9},
    }
    check.write_text(json.dumps({"watched": 2, **measured}), encoding="utf-8")
    flags = ["--block-ms", "1:400", "--players", "1000", "--device-hour", "3"]
    assert main(["bench", "plan", *flags, "--check", str(check), "--json", str(path)]) == 0
    said = capsys.readouterr().out
    figures = json.loads(path.read_text(encoding="utf-8"))
    seats = figures["seats_per_device"]
    assert figures["fleets"][0]["devices"] == -(-1075 // seats)
    assert f"1,000 players: 1,075 seats, {-(-1075 // seats):,} devices" in said
    assert figures["check"]["deadline_attainment"]["measured"] == 1.0
    assert figures["check"] == compare(measured, predict_server(read_times("1:400"), 2, 12, 12))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--block-ms", "1-3"], "block_ms '1-3': must be SESSIONS:MILLISECONDS"),
        (["--block-ms", "1:0"], "block_ms '1:0'"),
        (["--players", "many"], "players 'many': must be numbers"),
        (["--target", "1.5"], "target, refused: must be shares"),
        (["--check", "none.json"], "none.json: not the JSON of glassworld bench load"),
    ],
)
def test_values_that_make_no_plan_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "plan", *flags]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="players: must be positive"):
        run_plan(PlanOptions(players=(0,)))
