#!/usr/bin/env python3
"""Whether live play holds what it promises on this machine: played in a real browser, as JSON.

    scripts/play_check --json play.json

Starts `glassworld play` and measures from outside: start to ready, the content rate, stalls and
key to frame in headless Chromium, four players at once and the memory of each, clients that stop
reading, and what is left of many that come and go. About five minutes, on a machine that does
nothing else (Linux). Needs the extras `play` and `dev`, and Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.live import Deaf, PlayClient  # noqa: E402

WARM_UP = 5.0
"""Seconds of a walk that are not measured."""


class Server(NamedTuple):
    """A running `glassworld play`."""

    process: subprocess.Popen[str]
    port: int
    ready_seconds: float

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> int:
        found = re.search(rf"^glassworld_{name} (\S+)$", self.get("/metrics"), re.MULTILINE)
        assert found is not None
        return int(float(found[1]))

    def megabytes(self) -> float:
        """The server's resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def files(self) -> int:
        """How many files and sockets the server has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def client(self) -> Any:
        return PlayClient(f"ws://127.0.0.1:{self.port}/ws")


@contextmanager
def serving(options: argparse.Namespace) -> Iterator[Server]:
    """A server of its own, ended with the `with`."""
    command = [sys.executable, "-m", "glassworld", "play", "--no-open", "--port", "0"]
    for name in ("world", "device"):
        if getattr(options, name):
            command += [f"--{name}", getattr(options, name)]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://127.0.0.1:(\d+)/", process.stdout.readline())
            if address is None:
                sys.exit("the server did not start")
            server = Server(process, int(address[1]), 0.0)
            while not _ready(server):
                if process.poll() is not None:
                    sys.exit("the server ended before it was ready")
                time.sleep(0.05)
            yield server._replace(ready_seconds=time.perf_counter() - began)
        finally:
            process.terminate()


def _ready(server: Server) -> bool:
    try:
        return server.get("/healthz") == "ready\n"
    except urllib.error.HTTPError:
        return False


def until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


class Walker(threading.Thread):
    """A player that walks, in a thread of its own, until `done` is set."""

    def __init__(self, server: Server, seed: int) -> None:
        super().__init__()
        self.server, self.random, self.done = server, random.Random(seed), threading.Event()
        self.arrivals: list[float] = []

    def run(self) -> None:
        with self.server.client() as client:
            keys = [control["key"] for control in client.hello["controls"]]
            client.start(seed=self.random.randrange(1000))
            while not self.done.is_set():
                client.hold(self.random.choice(keys))
                for _ in client.frames(self.random.randrange(4, 18)):
                    self.arrivals.append(time.perf_counter())

    def since(self, begin: float) -> dict[str, float]:
        """Frames per second and the longest gap, in seconds, since `begin`."""
        times = [each for each in self.arrivals if each >= begin]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        return {"fps": len(gaps) / sum(gaps), "longest_gap": max(gaps)}


def walking(server: Server, players: int, seconds: float) -> tuple[list[Walker], float]:
    """So many players for so long after the warm-up: the players, and when that had passed."""
    walkers = [Walker(server, seed) for seed in range(players)]
    for walker in walkers:
        walker.start()
    time.sleep(WARM_UP)
    begin = time.perf_counter()
    time.sleep(seconds)
    return walkers, begin


def finish(server: Server, walkers: list[Walker]) -> None:
    for walker in walkers:
        walker.done.set()
    for walker in walkers:
        walker.join(60)
    assert until(lambda: server.metric("sessions") == 0)


def four_at_once(server: Server, seconds: float) -> dict[str, Any]:
    """Each one's share of the device, and its memory with all of its snapshots."""
    before = server.megabytes()
    walkers, begin = walking(server, 4, seconds)
    shares = [walker.since(begin) for walker in walkers]
    memory = (server.megabytes() - before) / 4
    finish(server, walkers)
    return {"players": shares, "megabytes_each": memory, "megabytes_without": before}


def stuck(server: Server, seconds: float) -> dict[str, float]:
    """One player beside two that read nothing; one of those claims to see all the same."""
    with Deaf(server.port) as silent, Deaf(server.port) as liar:
        silent.say("start", version=1)
        liar.say("start", version=1)
        walkers, begin = walking(server, 1, 0)
        while time.perf_counter() - begin < seconds:
            time.sleep(0.5)
            with suppress(OSError):
                liar.say("seen", frame=2**32 - 1)
        figures = walkers[0].since(begin)
    finish(server, walkers)
    return figures


def come_and_go(server: Server, times: int) -> dict[str, Any]:
    """What is left of many connections: some begin a walk, some vanish without a word."""
    before = _holds(server)
    for number in range(times):
        with server.client() as client:
            if number % 20 == 0:
                client.start()
            if number % 3 == 0:
                client.socket.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: server.metric("sessions") == 0 and server.metric("queue") == 0)
    until(lambda: server.metric("tasks") <= before["tasks"], 10)
    return {"before": before, "after": _holds(server)}


def _holds(server: Server) -> dict[str, float]:
    counted = {name: server.metric(name) for name in ("sessions", "tasks")}
    time.sleep(0.5)  # the socket of this very question closes first
    return {**counted, "files": server.files(), "megabytes": server.megabytes()}


SNAPSHOT = """() => ({
    frame: glassworld.state.shown.frame, now: performance.now(),
    stalls: glassworld.screen.stalls, latencies: glassworld.hud.latencies.splice(0),
})"""


def in_the_browser(server: Server, seconds: float, chromium: str) -> dict[str, Any]:
    """Play in headless Chromium; latencies are the page's own, from the key's event."""
    from playwright.sync_api import sync_playwright

    chance = random.Random(0)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_timeout(1000 * WARM_UP)
        hello = page.evaluate("glassworld.state.hello")
        keys = [each["key"] for each in hello["controls"] if each["column"] or any(each["mouse"])]
        first = page.evaluate(SNAPSHOT)
        latencies: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            key = chance.choice(keys)
            page.keyboard.down(key)
            page.wait_for_timeout(chance.uniform(300, 2000))
            page.keyboard.up(key)
            page.wait_for_timeout(chance.uniform(300, 1000))
            last = page.evaluate(SNAPSHOT)
            latencies += last["latencies"]
        browser.close()
    passed = (last["now"] - first["now"]) / 1000
    return {
        "seconds": passed,
        "content_rate": hello["frame_rate"],
        "block_seconds": hello["block_frames"] / hello["frame_rate"],
        "fps": (last["frame"] - first["frame"]) / passed,
        "stalls": last["stalls"] - first["stalls"],
        "stalls_while_warming_up": first["stalls"],
        "key_events": len(latencies),
        "key_to_frame_ms": {"p50": _part(latencies, 0.5), "p95": _part(latencies, 0.95)},
    }


def _part(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def verdicts(figures: dict[str, Any]) -> dict[str, bool]:
    """What was promised, and whether it was kept."""
    page, four, left = figures["browser"], figures["four"]["players"], figures["come_and_go"]
    rate, shares = page["content_rate"], [each["fps"] for each in four]
    latency = page["key_to_frame_ms"]["p95"]
    before, after = left["before"], left["after"]
    return {
        "ready within 8 s": figures["ready_seconds"] <= 8,
        "content rate held": page["fps"] >= 0.98 * rate,
        "no stalls": page["stalls"] == 0,
        "key to frame p95 within two blocks and 100 ms": latency
        <= 2000 * page["block_seconds"] + 100,
        "four players share alike": min(shares) >= 0.75 * max(shares),
        "the stuck harm nobody": figures["stuck"]["fps"] >= 0.95 * rate,
        "no session or task left": after["sessions"] == 0 and after["tasks"] <= before["tasks"],
        "no file or socket left": after["files"] <= before["files"],
        "no memory left": after["megabytes"] - before["megabytes"] < 32,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120, help="of play in the browser")
    parser.add_argument("--stuck", type=float, default=30, help="seconds without reading")
    parser.add_argument("--connects", type=int, default=200, help="connections that come and go")
    parser.add_argument("--world", help="folder of a world; the embedded one by default")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or find_spec("playwright") is None:
        parser.error("needs Chromium and playwright: apt install chromium, pip install playwright")
    from glassworld.profiling.metadata import machine, versions

    figures: dict[str, Any] = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "load_before": os.getloadavg()[0],
    }
    with serving(options) as server:
        figures["ready_seconds"] = server.ready_seconds
        figures["four"] = four_at_once(server, max(10.0, options.seconds / 4))
        figures["browser"] = in_the_browser(server, options.seconds, chromium)
        figures["stuck"] = stuck(server, options.stuck)
        figures["come_and_go"] = come_and_go(server, options.connects)
    figures["kept"] = verdicts(figures)
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0 if all(figures["kept"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
