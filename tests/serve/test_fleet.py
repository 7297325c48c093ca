"""A fleet of real processes: tickets, the page, draining, and processes that are killed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support import tiny
from tests.support.fleet import RunningFleet
from tests.support.live import close_reason, until
from tests.support.page import until as page_until

pytest.importorskip("ray", reason="ray is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with RunningFleet(folder, "--workers", "2", "--seats", "3") as running:
        assert until(lambda: len(running.ready_workers()) == 2, 120)
        yield running
    shutil.rmtree(folder)


def check_frames(fleet: RunningFleet, frames: list[Any], seed: int) -> None:
    """Check numbers without gap or repeat, and the images of an undisturbed session."""
    assert [frame.number for frame in frames] == list(range(len(frames)))
    with fleet.client() as client:
        client.start(seed=seed)
        undisturbed = list(client.frames(len(frames)))
    assert [frame.image for frame in frames] == [frame.image for frame in undisturbed]


def test_ticket_opens_its_session_once_on_its_worker(fleet: RunningFleet) -> None:
    status, seat = fleet.post()
    assert status == 200
    other = next(w for w in fleet.workers() if w["address"].split(":")[1] not in seat["url"])
    port = other["address"].split(":")[1]
    for url in (
        seat["url"],
        f"{seat['url']}?ticket=none",
        f"ws://127.0.0.1:{port}/ws?ticket={seat['ticket']}",
    ):
        assert "ticket" in refusal(url)
    good = f"{seat['url']}?ticket={seat['ticket']}"
    with connect(good) as socket:
        assert '"hello"' in str(socket.recv(20))
    assert "has been used" in refusal(good)


def refusal(url: str) -> str:
    """Connect, and return why the server closes the connection with code 1008."""
    with connect(url) as socket:
        code, reason = close_reason(SimpleNamespace(socket=socket))
    assert code == 1008
    return reason


def test_ingress_reaches_neither_the_control_port_nor_foreign_pages(fleet: RunningFleet) -> None:
    for path in ("status", "metrics", "drain/x", "ws"):
        with (
            pytest.raises(InvalidStatus, match=r"404|403"),
            connect(f"ws://127.0.0.1:{fleet.port}/{path}"),
        ):
            pass
    with pytest.raises(Exception, match="403"):
        fleet_request(fleet, Origin="http://evil.example")
    assert fleet.post(world="nowhere")[0] == 404
    assert fleet.post(token="nonsense")[0] == 403
    assert fleet.post(more=1)[0] == 400


def fleet_request(fleet: RunningFleet, **headers: str) -> None:
    urlopen(Request(f"{fleet.url}sessions", b"{}", headers), timeout=30).close()


def test_duplicated_tab_plays_a_session_of_its_own(fleet: RunningFleet, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(fleet.url)
    page_until(page, "globalThis.glassworld?.state.shown?.frame > 8", 120)
    page.evaluate(
        "glassworld.connection.socket.addEventListener('close', () => { globalThis.lost = true; })"
    )
    with context.expect_page() as opening:
        page.evaluate("void open(location.href)")  # with a copy of what the page remembers
    tabs = page, opening.value
    page_until(tabs[1], "globalThis.glassworld?.state.shown?.frame > 8", 120)
    first, second = (session_of(tab) for tab in tabs)
    assert first != second
    assert not page.evaluate("'lost' in globalThis")
    tabs[1].reload()
    page_until(tabs[1], "globalThis.glassworld?.state.shown?.frame > 8", 120)
    assert session_of(tabs[1]) == second
    context.close()


def session_of(page: Any) -> str:
    """Return the id of the session that a page plays, from its token."""
    payload = page.evaluate("glassworld.connection.session").split(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=="))[1])


def test_page_plays_and_follows_its_session_to_another_worker(
    fleet: RunningFleet, browser: Any
) -> None:
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(fleet.url)
    page_until(page, "globalThis.glassworld?.state.shown?.frame > 8", 60)
    page.evaluate("() => { glassworld.frames = []; const take = glassworld.connection.onFrame;"
                  "glassworld.connection.onFrame = (header, blob) => {"
                  "glassworld.frames.push(header.frame); take(header, blob); }; }")  # fmt: skip
    worker = fleet.worker_of_player()
    fleet.control(f"/drain/{worker['name']}", "POST")
    port = worker["address"].split(":")[1]
    page_until(page, f"!glassworld.connection.base.includes('{port}')", 60)
    page_until(page, f"glassworld.frames.length > {12 * 3}", 60)
    frames = page.evaluate("glassworld.frames")
    assert frames == list(range(frames[0], frames[0] + len(frames)))
    page.keyboard.down("w")
    page_until(page, "glassworld.state.shown.action >= 1")
    page.reload()
    page_until(page, f"globalThis.glassworld?.state.shown?.frame > {frames[-1]}", 60)
    # The page does not know that the key is down, so the session must not go on with it.
    page_until(page, "glassworld.state.shown.action === glassworld.state.lastAct?.id")
    assert page.evaluate("glassworld.state.lastAct.keys") == []
    page.keyboard.up("w")
    assert not errors
    context.close()


def test_drained_worker_hands_its_session_over_bit_for_bit(fleet: RunningFleet) -> None:
    assert until(lambda: len(fleet.ready_workers()) == 2, 120)
    with fleet.client() as client:
        client.start(seed=3)
        frames = list(client.frames(15))
        worker = fleet.worker_of_player()["name"]
        fleet.control(f"/drain/{worker}", "POST")
        while not any(message["type"] == "moved" for message in client.messages):
            frames += client.frames(1)
            assert len(frames) < 400
        frames += client.frames(30)
    check_frames(fleet, frames, seed=3)
    assert until(lambda: worker not in [w["name"] for w in fleet.workers()], 60)


def test_killed_worker_loses_no_frame(fleet: RunningFleet) -> None:
    assert until(lambda: len(fleet.ready_workers()) == 2, 120)
    with fleet.client() as client:
        client.start(seed=4)
        frames = list(client.frames(40))
        os.kill(fleet.worker_of_player()["process"], signal.SIGKILL)
        frames += client.frames(40)
    check_frames(fleet, frames, seed=4)


def test_killed_directory_and_ingress_come_back(fleet: RunningFleet) -> None:
    with fleet.client() as client:
        client.start(seed=5)
        frames = list(client.frames(15))
        for actor in ("Directory", "IngressServer"):
            process = fleet.process_of(actor)
            os.kill(process, signal.SIGKILL)
            assert until(partial(fleet.is_restarted, actor, process), 60)
        frames += client.frames(15)
        assert until(lambda: bool(fleet.ready_workers()), 60)
        with fleet.client() as another:
            another.start()
            assert list(another.frames(3))
    check_frames(fleet, frames, seed=5)


def test_metrics_and_status_show_the_fleet(fleet: RunningFleet) -> None:
    page, metrics = fleet.control("/"), fleet.control("/metrics")
    for worker in fleet.workers():
        assert worker["name"] in page
        label = f'{{world="tiny",worker="{worker["name"]}"}}'
        assert f"glassworld_fleet_seats{label} 3" in metrics
    assert 'glassworld_fleet_workers{world="tiny",state="ready"}' in metrics


def test_two_worlds_share_a_fleet_and_their_sessions_stay_in_them(
    tmp_path: Path, browser: Any
) -> None:
    tiny.world().save(tmp_path / "second")
    with RunningFleet(
        tmp_path, "--also", str(tmp_path / "second"), "--workers", "1", "--seats", "1"
    ) as fleet:
        assert until(lambda: len(fleet.ready_workers()) == 2, 120)
        with urlopen(f"{fleet.url}worlds", timeout=30) as worlds:
            assert json.load(worlds) == ["tiny", "second"]
        with fleet.client() as first, fleet.client("second") as second:
            for client in (first, second):
                client.start(seed=3)
                assert list(client.frames(3))
            # Workers report their players now and then.
            assert until(lambda: [worker["connected"] for worker in fleet.workers()] == [1, 1], 30)
            taken = {worker["name"].rpartition("-")[0]: worker for worker in fleet.workers()}
            assert set(taken) == {"tiny", "second"}
            assert fleet.post(world="second")[0] == 429
            # A drained world has nowhere to go but to a new worker of its own.
            fleet.control(f"/drain/{taken['second']['name']}", "POST")
            while not any(message["type"] == "moved" for message in second.messages):
                assert list(second.frames(3))
            assert list(second.frames(3))
            assert second.hello["world"] == "second"
            # A killed worker was the only one of its world: its session waits for the next one.
            assert until(lambda: bool(players_worker(fleet, "second")), 30)  # it has reported
            (process,) = players_worker(fleet, "second")
            os.kill(process, signal.SIGKILL)
            frames = list(second.frames(40))
            assert [frame.number - frames[0].number for frame in frames] == list(range(40))
        page = browser.new_page()
        for query, world in ("", "tiny"), ("?world=second", "second"):  # the seats come back
            page.goto(fleet.url + query)
            page_until(page, "globalThis.glassworld?.state.shown?.frame > 3", 120)
            assert page.evaluate("glassworld.state.hello.world") == world
        page.close()


def players_worker(fleet: RunningFleet, world: str) -> list[int]:
    """Return the processes of a world's workers that take players and have one."""
    return [
        worker["process"]
        for worker in fleet.ready_workers()
        if worker["name"].startswith(world) and worker["connected"]
    ]
