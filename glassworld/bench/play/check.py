"""The check of live play: whether it keeps its promises on this machine, in a real browser.

Starts `glassworld play` and measures from outside: start to ready, the content rate, stalls and
key to frame in headless Chromium, four players at once and the memory of each, clients that stop
reading, and the resources left after many that come and go.
"""

from __future__ import annotations

import json
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

from glassworld.bench.peak_rates import load_average
from glassworld.bench.play.client import NonReadingClient, PlayClient
from glassworld.bench.section_runner import Figures
from glassworld.errors import InputError
from glassworld.files import replacing, writable_file
from glassworld.profiling.metadata import machine, versions

WARM_UP = 5.0
"""Seconds of a session that are not measured."""

PROCESSES = Path("/proc")

PLAYERS = 4
MAX_LEAK_MB = 32


@dataclass(frozen=True)
class PlayCheckOptions:
    """How long to check which world; the fields are the command's options."""

    seconds: float = 120
    stuck: float = 30
    connects: int = 200
    world: str | Path | None = None
    device: str = "auto"
    json_file: Path | None = None


def run_play_check(options: PlayCheckOptions) -> bool:
    """Measure live play, print the figures as JSON, and return True if all promises are kept.

    Raises `InputError` without Chromium or playwright.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or find_spec("playwright") is None:
        raise InputError(
            "bench play needs Chromium and playwright: apt install chromium, pip install playwright"
        )
    if options.json_file is not None:
        writable_file(options.json_file)
    figures: Figures = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "load_before": load_average(),
    }
    sections: dict[str, Callable[[PlayServer], Any]] = {
        "ready_seconds": lambda server: server.ready_seconds,
        "four": lambda server: measure_players(server, max(10.0, options.seconds / 4)),
        "browser": lambda server: measure_browser(server, options.seconds, chromium),
        "stuck": lambda server: measure_beside_stuck(server, options.stuck),
        "come_and_go": lambda server: measure_leaks(server, options.connects),
    }
    with serving(options.world, options.device) as server:
        for name, measure in sections.items():
            began = time.perf_counter()
            figures[name] = measure(server)
            _write(options.json_file, figures)
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    figures["kept"] = kept_promises(figures)
    _write(options.json_file, figures)
    print(json.dumps(figures, indent=1))
    return all(figures["kept"].values())


def _write(path: Path | None, figures: Figures) -> None:
    if path is not None:
        with replacing(path) as partial:
            partial.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


class PlayServer(NamedTuple):
    """A running `glassworld play`."""

    process: subprocess.Popen[str]
    port: int
    ready_seconds: float

    def get(self, path: str) -> str:
        """Return the text of a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            return str(response.read().decode())

    def metric(self, name: str) -> int:
        """Return the value of one of the server's metrics."""
        match = re.search(rf"^glassworld_{name} (\S+)$", self.get("/metrics"), re.MULTILINE)
        assert match is not None
        return int(float(match[1]))

    def megabytes(self) -> float:
        """Return the server's resident memory."""
        status = (PROCESSES / str(self.process.pid) / "status").read_text(encoding="utf-8")
        match = re.search(r"VmRSS:\s+(\d+)", status)
        assert match is not None
        return int(match[1]) / 1024

    def open_files(self) -> int:
        """Return how many files and sockets the server has open."""
        return len(list((PROCESSES / str(self.process.pid) / "fd").iterdir()))

    def client(self) -> PlayClient:
        """Return a client, to connect by `with`."""
        return PlayClient(f"ws://127.0.0.1:{self.port}/ws")


@contextmanager
def serving(
    world: str | Path | None, device: str, log: IO[str] | None = None
) -> Iterator[PlayServer]:
    """Run a server until the end of the `with`; it is ready at the beginning.

    Raises `InputError` if it does not start, and where its memory and files cannot be counted.
    """
    if not PROCESSES.is_dir():
        raise InputError(
            f"bench: {PROCESSES}, where Linux keeps a server's memory and open files, is missing; "
            "measure live play on Linux"
        )
    command = [sys.executable, "-m", "glassworld", "play", "--no-open", "--port", "0"]
    command += ["--device", device, *([] if world is None else ["--world", str(world)])]
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://127.0.0.1:(\d+)/", process.stdout.readline())
            if address is None:
                raise InputError("bench play: `glassworld play` did not start")
            server = PlayServer(process, int(address[1]), 0.0)
            while not _is_ready(server):
                if process.poll() is not None:
                    raise InputError(
                        "bench play: `glassworld play` ended before it was ready; run it to see why"
                    )
                time.sleep(0.05)
            yield server._replace(ready_seconds=time.perf_counter() - began)
        finally:
            process.terminate()


def _is_ready(server: PlayServer) -> bool:
    try:
        return server.get("/healthz") == "ready\n"
    except urllib.error.HTTPError:
        return False


def _wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def _wait_until_empty(server: PlayServer) -> None:
    if not _wait_until(lambda: server.metric("sessions") == 0):
        raise RuntimeError("a session is left although every player has gone")


class RandomPlayer(threading.Thread):
    """A player who presses random keys, in a thread of its own, until `done` is set."""

    def __init__(self, server: PlayServer, seed: int) -> None:
        super().__init__()
        self.server, self.random, self.done = server, random.Random(seed), threading.Event()
        self.arrivals: list[float] = []

    def run(self) -> None:
        """Play, and note when every frame arrives."""
        with self.server.client() as client:
            keys = [control["key"] for control in client.hello["controls"]]
            client.start(seed=self.random.randrange(1000))
            while not self.done.is_set():
                client.hold(self.random.choice(keys))
                for _ in client.frames(self.random.randrange(4, 18)):
                    self.arrivals.append(time.perf_counter())


def frame_rate(arrivals: Sequence[float], since: float) -> dict[str, float]:
    """Return the frames per second and the longest gap in seconds of the frames after `since`."""
    times = [arrival for arrival in arrivals if arrival >= since]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return {"fps": len(gaps) / sum(gaps), "longest_gap": max(gaps)}


@contextmanager
def playing(server: PlayServer, players: int) -> Iterator[tuple[list[RandomPlayer], float]]:
    """Let players play until the end of the `with`; gives them and the time after the warm-up."""
    threads = [RandomPlayer(server, seed) for seed in range(players)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(WARM_UP)
        yield threads, time.perf_counter()
    finally:
        for thread in threads:
            thread.done.set()
        for thread in threads:
            thread.join(60)


def measure_players(server: PlayServer, seconds: float) -> Figures:
    """Measure every player's share of the device, and the memory of each with its snapshots."""
    before = server.megabytes()
    with playing(server, PLAYERS) as (players, begin):
        time.sleep(seconds)
        shares = [frame_rate(player.arrivals, begin) for player in players]
        memory = (server.megabytes() - before) / PLAYERS
    _wait_until_empty(server)
    return {"players": shares, "megabytes_each": memory, "megabytes_without": before}


def measure_beside_stuck(server: PlayServer, seconds: float) -> dict[str, float]:
    """Measure a player beside two clients that never read; one of them acknowledges frames."""
    with NonReadingClient(server.port) as silent, NonReadingClient(server.port) as liar:
        silent.send("start", version=1)
        liar.send("start", version=1)
        with playing(server, 1) as (players, begin):
            while time.perf_counter() - begin < seconds:
                time.sleep(0.5)
                with suppress(OSError):
                    liar.send("seen", frame=2**32 - 1)
            figures = frame_rate(players[0].arrivals, begin)
    _wait_until_empty(server)
    return figures


def measure_leaks(server: PlayServer, times: int) -> Figures:
    """Measure the resources left after many connections: some start, some vanish silently."""
    before = _resources(server)
    for number in range(times):
        with server.client() as client:
            if number % 20 == 0:
                client.start()
            if number % 3 == 0:
                client.socket.socket.shutdown(socket.SHUT_RDWR)
    _wait_until(lambda: server.metric("sessions") == 0 and server.metric("queue") == 0)
    _wait_until(lambda: server.metric("tasks") <= before["tasks"], 10)
    return {"before": before, "after": _resources(server)}


def _resources(server: PlayServer) -> dict[str, float]:
    counts = {name: server.metric(name) for name in ("sessions", "tasks")}
    time.sleep(0.5)  # the socket of this request closes first
    return {**counts, "files": server.open_files(), "megabytes": server.megabytes()}


SNAPSHOT = """() => ({
    frame: glassworld.state.shown.frame, now: performance.now(),
    stalls: glassworld.screen.stalls, latencies: glassworld.hud.latencies.splice(0),
})"""


def measure_browser(server: PlayServer, seconds: float, chromium: str) -> Figures:
    """Play in headless Chromium. The page itself measures latencies, from the key's event."""
    from playwright.sync_api import sync_playwright

    chance = random.Random(0)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_timeout(1000 * WARM_UP)
        hello = page.evaluate("glassworld.state.hello")
        keys = [key["key"] for key in hello["controls"] if key["column"] or any(key["mouse"])]
        first = last = page.evaluate(SNAPSHOT)
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
    elapsed = (last["now"] - first["now"]) / 1000
    return {
        "seconds": elapsed,
        "content_rate": hello["frame_rate"],
        "block_seconds": hello["block_frames"] / hello["frame_rate"],
        "fps": (last["frame"] - first["frame"]) / elapsed,
        "stalls": last["stalls"] - first["stalls"],
        "stalls_while_warming_up": first["stalls"],
        "key_events": len(latencies),
        "key_to_frame_ms": {
            "p50": percentile(latencies, 0.5),
            "p95": percentile(latencies, 0.95),
        },
    }


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the value below which a fraction of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def kept_promises(figures: Figures) -> dict[str, bool]:
    """Return the promises of live play, and whether the figures keep each."""
    page, leaks = figures["browser"], figures["come_and_go"]
    rate, shares = page["content_rate"], [player["fps"] for player in figures["four"]["players"]]
    latency = page["key_to_frame_ms"]["p95"]
    before, after = leaks["before"], leaks["after"]
    return {
        "ready within 8 s": figures["ready_seconds"] <= 8,
        "content rate held": page["fps"] >= 0.98 * rate,
        "no stalls": page["stalls"] == 0,
        "key to frame p95 within two blocks and 100 ms": latency
        <= 2000 * page["block_seconds"] + 100,
        "four players share alike": min(shares) >= 0.75 * max(shares),
        "stuck clients harm nobody": figures["stuck"]["fps"] >= 0.95 * rate,
        "no session or task left": after["sessions"] == 0 and after["tasks"] <= before["tasks"],
        "no file or socket left": after["files"] <= before["files"],
        "no memory left": after["megabytes"] - before["megabytes"] < MAX_LEAK_MB,
    }
