"""The attack on live play: a bounded flood of bad input from this machine, and what it does.

Starts `glassworld play` and sends it malformed messages, pings, pongs and fragments, requests that
do not end, and clients that read nothing. Checks from outside that the server stays quick, gives
its slots and memory back, and writes no traceback to its log. It only ever connects to the server
that it has started, on the loopback address.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from glassworld.bench.play.check import PlayServer, percentile, serving
from glassworld.bench.section_runner import Figures
from glassworld.errors import InputError
from glassworld.files import replacing, writable_file

MAX_MESSAGES, MAX_SECONDS = 1_000_000, 600.0
"""The largest attack."""

BATCH = 600
"""Messages of one connection: more than the server takes at once."""

SLOW_CONNECTIONS, DEAF_CLIENTS = 50, 2

SLOTS_BACK_SECONDS, HEALTH_MS, MEMORY_RATIO = 15.0, 200.0, 1.1
"""What the server has to keep: see `kept_under_attack`."""

PROBE_SECONDS, QUIET_SECONDS = 0.05, 3.0
"""How often `/healthz` is asked for, and how long before the attack, to compare."""

TEXT, BINARY, PING, PONG = 1, 2, 9, 10
JUNK: dict[str, tuple[int, bytes]] = {
    "empty text": (TEXT | 0x80, b""),
    "no JSON": (TEXT | 0x80, b"{"),
    "unknown message": (TEXT | 0x80, b'{"type": "fly"}'),
    "wrong field": (TEXT | 0x80, b'{"type": "act", "id": -1}'),
    "deep JSON": (TEXT | 0x80, b"[" * 120),
    "not UTF-8": (TEXT | 0x80, b"\xff\xfe"),
    "no image": (BINARY | 0x80, b"\x89PNG\r\n\x1a\n" + bytes(40)),
    "fragments": (BINARY, b"x"),
    "empty fragments": (TEXT, b""),
    "pings": (PING | 0x80, bytes(100)),
    "pongs": (PONG | 0x80, b""),
    "fragmented pings": (PING, b""),
    "unknown opcode": (3 | 0x80, b""),
    "reserved bit": (TEXT | 0xC0, b"x"),
}
"""Kinds of malformed or useless messages: the first byte of the frame and the payload."""


@dataclass(frozen=True)
class AttackOptions:
    """How much of an attack; the fields are the command's options."""

    messages: int = 100_000
    seconds: float = 120
    world: str | Path | None = None
    device: str = "auto"
    json_file: Path | None = None


def run_attack(options: AttackOptions) -> bool:
    """Attack a server, print what happened, and return True if it kept all promises."""
    if not 1 <= options.messages <= MAX_MESSAGES or not 1 <= options.seconds <= MAX_SECONDS:
        raise InputError(
            f"bench attack: at most {MAX_MESSAGES:,} messages and {MAX_SECONDS:.0f} seconds"
        )
    if options.json_file is not None:
        writable_file(options.json_file)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        with serving(options.world, options.device, log) as server:
            figures = attack_server(server, options)
        log.seek(0)
        lines = log.read().splitlines()
    figures["log_lines"] = len(lines)
    figures["tracebacks"] = sum("Traceback" in line for line in lines)
    figures["kept"] = kept_under_attack(figures)
    _print(figures)
    if options.json_file is not None:
        with replacing(options.json_file) as partial:
            partial.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return all(figures["kept"].values())


def attack_server(server: PlayServer, options: AttackOptions) -> Figures:
    """Run the whole attack; return what was sent and how the server did meanwhile."""
    _play_for_a_moment(server)
    before, load_average = server.megabytes(), os.getloadavg()[0]
    with _probing(server.port) as quiet_times:
        time.sleep(QUIET_SECONDS)
    began = time.monotonic()
    with _probing(server.port) as times, ExitStack() as stack:
        slow = [stack.enter_context(_slow_request(server.port)) for _ in range(SLOW_CONNECTIONS)]
        deaf = [stack.enter_context(JunkSocket(server.port)) for _ in range(DEAF_CLIENTS)]
        for client in deaf:
            client.send_frames(TEXT | 0x80, b'{"type": "start", "version": 1}', 1)
        sent = _send_junk(server.port, options.messages, began + options.seconds)
        ended = time.monotonic()
        slots_back = _seconds_until(lambda: server.metric("sessions") == 0)
        slow_left = SLOW_CONNECTIONS
        if slots_back is not None:
            _seconds_until(lambda: not any(map(_is_open, slow)))
            slow_left = sum(map(_is_open, slow))
    _play_for_a_moment(server)
    return {
        "messages": sum(sent.values()),
        "messages_by_kind": sent,
        "slow_requests": SLOW_CONNECTIONS,
        "slow_requests_left_open": slow_left,
        "clients_that_read_nothing": DEAF_CLIENTS,
        "seconds": ended - began,
        "seconds_until_slots_were_back": slots_back,
        "load_average": load_average,
        "health_ms_before": _health(quiet_times),
        "health_ms": _health(times),
        "megabytes": {"before": before, "after": server.megabytes()},
    }


def kept_under_attack(figures: Figures) -> dict[str, bool]:
    """Return what a server must keep under attack, and whether it did."""
    megabytes, back = figures["megabytes"], figures["seconds_until_slots_were_back"]
    return {
        "no traceback in the log": figures["tracebacks"] == 0,
        f"slots back within {SLOTS_BACK_SECONDS:.0f} s": back is not None,
        "slow requests cut": figures["slow_requests_left_open"] == 0,
        f"/healthz within {HEALTH_MS:.0f} ms": figures["health_ms"]["max"] <= HEALTH_MS,
        "memory back within 10 %": megabytes["after"] <= MEMORY_RATIO * megabytes["before"],
    }


class JunkSocket:
    """A WebSocket that sends frames of any kind, and reads nothing but the server's greeting."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        answer = b""
        while b'"type"' not in answer and (piece := self._socket.recv(4096)):
            answer += piece  # until the server's first message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send_frames(self, first_byte: int, payload: bytes, count: int) -> int:
        """Send equal frames; return how many, 0 if the server has hung up."""
        with suppress(OSError):
            frame = bytes([first_byte, 0x80 | len(payload), 0, 0, 0, 0]) + payload  # mask 0
            self._socket.sendall(frame * count)
            return count
        return 0

    def wait_for_end(self, seconds: float) -> None:
        """Read until the server hangs up, at most for `seconds`."""
        self._socket.settimeout(seconds)
        end = time.monotonic() + seconds
        with suppress(OSError):
            while time.monotonic() < end and self._socket.recv(65_536):
                pass


def _send_junk(port: int, messages: int, end: float) -> dict[str, int]:
    """Send malformed messages over many connections; return how many of each kind."""
    sent, chance = dict.fromkeys(JUNK, 0), random.Random(0)
    while sum(sent.values()) < messages and time.monotonic() < end:
        kind = chance.choice(list(JUNK))
        with suppress(OSError), JunkSocket(port) as client:
            count = min(BATCH, messages - sum(sent.values()))
            sent[kind] += client.send_frames(*JUNK[kind], count)
            client.wait_for_end(0.5)
    return sent


@contextmanager
def _slow_request(port: int) -> Iterator[socket.socket]:
    """Open a connection whose request never ends."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        yield client


def _is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1024))
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextmanager
def _probing(port: int) -> Iterator[list[float]]:
    """Ask for `/healthz` again and again until the end of the `with`; collect the seconds."""
    times: list[float] = []
    done = threading.Event()

    def probe() -> None:
        while not done.wait(PROBE_SECONDS):
            began = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/healthz")
                connection.getresponse().read()
            connection.close()
            times.append(time.perf_counter() - began)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield times
    finally:
        done.set()
        thread.join()


def _health(times: list[float]) -> dict[str, float]:
    milliseconds = [1000 * seconds for seconds in times]
    return {
        "requests": len(times),
        "median": percentile(milliseconds, 0.5),
        "p99": percentile(milliseconds, 0.99),
        "max": max(milliseconds),
    }


def _seconds_until(condition: Callable[[], bool]) -> float | None:
    """Wait for `condition`; return how long it took, None if it took too long."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > SLOTS_BACK_SECONDS:
            return None
        time.sleep(0.1)
    return time.monotonic() - began


def _play_for_a_moment(server: PlayServer) -> None:
    """Play three blocks, so that memory is that of a server in use."""
    with server.client() as client:
        client.start()
        for _ in client.frames(33):
            pass
    _seconds_until(lambda: server.metric("sessions") == 0)


def _print(figures: Figures) -> None:
    health, memory = figures["health_ms"], figures["megabytes"]
    back: Any = figures["seconds_until_slots_were_back"]
    print(
        f"sent {figures['messages']:,} malformed or useless messages in {figures['seconds']:.0f} s,"
        f" beside {figures['slow_requests']} requests that do not end and"
        f" {figures['clients_that_read_nothing']} clients that read nothing"
    )
    print(f"slots back after: {'never' if back is None else f'{back:.1f} s'}")
    quiet = figures["health_ms_before"]
    print(
        f"/healthz before: median {quiet['median']:.0f} ms, slowest {quiet['max']:.0f} ms"
        f" (load average {figures['load_average']:.1f})"
    )
    print(
        f"/healthz: median {health['median']:.0f} ms, p99 {health['p99']:.0f} ms,"
        f" slowest of {health['requests']}: {health['max']:.0f} ms"
    )
    print(f"memory: {memory['before']:.0f} MB before, {memory['after']:.0f} MB after")
    print(f"log: {figures['log_lines']} lines, {figures['tracebacks']} tracebacks")
    for promise, kept in figures["kept"].items():
        print(f"{'kept' if kept else 'BROKEN'}: {promise}")
