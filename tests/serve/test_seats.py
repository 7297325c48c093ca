"""Seats, leases and the queue."""

from __future__ import annotations

import asyncio

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.serve.directory import Directory
from glassworld.serve.options import FleetOptions, WorldOptions
from glassworld.serve.seats import (
    LEASE_SECONDS,
    QUEUE_SECONDS,
    SILENCE_SECONDS,
    SeatTable,
    WaitingLine,
    WorkerReport,
    WorkerState,
)


def report(
    name: str, *sessions: str, seats: int = 2, state: WorkerState = "ready", world: str = "w"
) -> WorkerReport:
    return WorkerReport(name, world, "node", seats=seats, state=state, sessions=frozenset(sessions))


def test_seats_go_to_the_emptiest_worker_until_all_are_taken() -> None:
    table = SeatTable()
    table.report(report("a", "s1"), 0)
    table.report(report("b"), 0)
    assert [table.reserve("w", f"n{i}", 0) for i in range(4)] == ["b", "a", "b", None]
    assert table.free("w") == 0


def test_seats_of_other_worlds_and_of_workers_that_take_nobody_are_not_given() -> None:
    table = SeatTable()
    for state in ("loading", "draining", "failed"):
        table.report(report(state, state=state), 0)
    table.report(report("other", world="v"), 0)
    table.report(report("own"), 0)
    assert table.reserve("w", "s", 0, without="own") is None
    assert table.reserve("w", "s", 0) == "own"


def test_lease_holds_a_seat_until_it_ends_or_the_session_is_reported() -> None:
    table = SeatTable()
    table.report(report("a", seats=1), 0)
    assert table.reserve("w", "s", 0) == "a"
    assert table.locate("s") == "a"
    table.overdue(LEASE_SECONDS - 1)
    assert table.taken("a") == 1
    table.overdue(LEASE_SECONDS + 1)
    assert table.taken("a") == 0
    table.reserve("w", "t", 50)
    table.report(report("a", "t", seats=1), 51)
    assert table.taken("a") == 1
    table.report(report("a", seats=1), 52)
    assert table.taken("a") == 0


def test_silent_worker_is_overdue() -> None:
    table = SeatTable()
    table.report(report("a", "s"), 0)
    table.report(report("b"), SILENCE_SECONDS)
    assert table.overdue(SILENCE_SECONDS + 0.1) == ["a"]
    table.forget("a")
    assert table.locate("s") is None


def test_reports_rebuild_an_empty_table() -> None:
    table = SeatTable()
    table.report(report("a", "s1", "s2"), 0)
    assert table.locate("s2") == "a"
    assert table.free("w") == 0


def test_queue_keeps_the_order_and_drops_those_who_leave() -> None:
    line = WaitingLine()
    first, place = line.place(None, 0)
    assert place == 1
    second, place = line.place(None, 1)
    assert place == 2
    assert line.place(second, 2) == (second, 2)
    assert line.place(second, QUEUE_SECONDS) == (second, 1)  # the first has not asked again
    assert line.place(first, QUEUE_SECONDS)[1] == 2
    line.leave(second)
    assert line.count(QUEUE_SECONDS) == 1


def test_failure_of_a_world_is_forgotten_once_a_later_worker_has_loaded_it() -> None:
    async def failure_after(*reports: WorkerReport) -> str:
        directory = Directory(FleetOptions((WorldOptions("w", LoadOptions()),), ""))
        directory._keep_going = lambda: None  # type: ignore[method-assign]
        world = directory._worlds["w"]
        world.failure, world.starting = "no memory", {"b": 0.0}
        for each in reports:
            await directory.heartbeat(each)
        return str((await directory.status())[0]["failure"])

    earlier, loading, ready = report("a"), report("b", state="loading"), report("b")
    assert asyncio.run(failure_after(earlier, loading)) == "no memory"
    assert asyncio.run(failure_after(loading, ready, earlier)) == ""
