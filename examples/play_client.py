"""A client of `glassworld play` and `glassworld serve`: it walks and saves the frames.

glassworld play --no-open &
python examples/play_client.py --frames 48 --output frames

Give it the address of a fleet's page, http://HOST:PORT/, and it asks there for a ticket, follows
its session when that moves to another worker, and asks for the session again when the connection
is lost.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

URL = "ws://127.0.0.1:8765/ws"
HEADER = struct.Struct("<BBHIII")
FRAME = 1

RETRY_SECONDS, MAX_RETRIES = 0.25, 240
"""How often, and how many times, to ask for a lost session."""


class Frame(NamedTuple):
    """A frame as received."""

    block: int
    number: int
    action: int  # id of the act message that its block used
    image: bytes  # PNG or JPEG


class PlayClient:
    """A connection to the server.

    `with PlayClient(url) as client: client.start(); for frame in client.frames(60): ...`

    `url`: the WebSocket of a server, or the page of a fleet. `hello` is the server's first message;
    `messages` collects the later ones.
    """

    def __init__(self, url: str = URL, world: str | None = None) -> None:
        self.url, self.world = url, world
        self._connecting: Any
        self.socket: ClientConnection
        self.hello: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.next_frame = 0  # the first that has not arrived
        self._acts = 0
        self._last_act: dict[str, Any] | None = None

    def __enter__(self) -> PlayClient:
        self._connect(*self._seat())
        return self

    def __exit__(self, *error: Any) -> None:
        self._connecting.__exit__(*error)

    def _seat(self) -> tuple[str, str | None]:
        """Return the address of a server, and a ticket if it needs one."""
        if not self.url.startswith("http"):
            return self.url, None
        wanted: dict[str, Any] = {"world": self.world}
        if token := self.hello.get("token"):
            wanted = {"token": token, "next": self.next_frame}
        for _ in range(MAX_RETRIES):
            request = urllib.request.Request(
                f"{self.url.rstrip('/')}/sessions", json.dumps(wanted).encode()
            )
            try:
                with urllib.request.urlopen(request, timeout=90) as response:
                    seat = json.load(response)
                    return seat["url"], seat["ticket"]
            except urllib.error.HTTPError as error:
                with error:
                    answer = json.load(error)
                if error.code not in (429, 503):
                    raise ConnectionError(answer["error"]) from None
                wanted["queue"] = answer.get("queue")
                time.sleep(float(error.headers["retry-after"]) if error.code == 429 else 0)
            except urllib.error.URLError:
                if "token" not in wanted:
                    raise
            time.sleep(RETRY_SECONDS)
        raise ConnectionError("the fleet has no seat")

    def _connect(self, url: str, ticket: str | None) -> None:
        """Connect, and go on with the session if the server has it."""
        query = "" if ticket is None else f"?ticket={ticket}"
        # Frames come in while the connection is being closed.
        self._connecting = connect(url + query, max_size=None, close_timeout=1)
        self.socket = self._connecting.__enter__()
        hello = json.loads(self.socket.recv())
        if hello["type"] != "hello":
            self._connecting.__exit__(None, None, None)
            reason = hello.get("text", "the server is full; try again later")
            raise ConnectionRefusedError(reason)
        self.hello = hello
        if hello.get("resumed"):
            self.send("join", next=self.next_frame)
            if self._last_act:
                self.send("act", **self._last_act)

    def _return(self) -> None:
        """Ask for the session again after a lost connection; raise the error if it has ended."""
        for _ in range(MAX_RETRIES):
            try:
                self._connect(*self._seat())
                break
            except (
                WebSocketException,
                TimeoutError,
                ConnectionRefusedError,
                ConnectionResetError,
            ):
                time.sleep(RETRY_SECONDS)  # the worker died, or the session moved on
        else:
            raise ConnectionError("no worker could be reached; the session was lost")
        if not self.hello.get("resumed"):
            raise ConnectionError("the session was lost")

    def send(self, kind: str, **fields: Any) -> None:
        """Send a control message, such as `send("pause")`."""
        self.socket.send(json.dumps({"type": kind, **fields}))

    def start(self, image: str | None = None, seed: int | None = None) -> None:
        """Start a session from an image of the gallery (its id) or from "upload"."""
        self.send("start", version=1, picture=image, seed=seed)
        self.wait_for("started")

    def hold(self, *keys: str, mouse: tuple[float, float] = (0.0, 0.0)) -> int:
        """Hold `keys` from now on; return the id that frames with this action carry."""
        self._acts += 1
        self._last_act = {"id": self._acts, "keys": keys, "mouse": mouse}
        self.send("act", **self._last_act)
        return self._acts

    def _receive(self) -> str | bytes:
        """Return the next message; ping meanwhile, because the server drops silent clients.

        Follows the session to another worker.
        """
        for _ in range(12):
            try:
                received = self.socket.recv(5)
            except TimeoutError:
                self.send("ping", id=0)
                continue
            except ConnectionClosed:
                if not self.hello.get("token"):
                    raise
                self._return()
                continue
            if isinstance(received, bytes):
                return received
            message = json.loads(received)
            if message["type"] != "moved":
                return received
            self.messages.append(message)
            old = self._connecting
            self._connect(message["url"], message["ticket"])
            old.__exit__(None, None, None)
        raise TimeoutError("the server has sent nothing for a minute")

    def frames(self, count: int) -> Iterator[Frame]:
        """Yield the next `count` frames as they arrive."""
        while count:
            received = self._receive()
            if isinstance(received, str):
                self.messages.append(json.loads(received))
                continue
            kind, _, _, block, number, action = HEADER.unpack_from(received)
            if kind == FRAME:
                self.next_frame = number + 1
            self._try_send("seen", frame=number)
            if kind == FRAME:
                count -= 1
                yield Frame(block, number, action, received[HEADER.size :])

    def _try_send(self, kind: str, **fields: Any) -> None:
        """Send a message that may be lost with the connection."""
        try:
            self.send(kind, **fields)
        except ConnectionClosed:
            return  # the next `_receive` returns to the session

    def wait_for(self, kind: str, seconds: float = 120) -> dict[str, Any]:
        """Return the next control message of this kind; skip frames until then.

        Raises TimeoutError if none comes within `seconds`.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            received = self._receive()
            if isinstance(received, bytes):
                kind_of_frame, *_, number, _ = HEADER.unpack_from(received)
                if kind_of_frame == FRAME:
                    self.next_frame = number + 1
                self._try_send("seen", frame=number)
                continue
            message: dict[str, Any] = json.loads(received)
            self.messages.append(message)
            if message["type"] == kind:
                return message
        raise TimeoutError(f"the server has sent no message {kind!r} for {seconds:.0f} s")


def save_walk(url: str, folder: Path, count: int) -> str:
    """Hold the first key, save `count` frames in `folder`, and return the name of the world."""
    with PlayClient(url) as client:
        folder.mkdir(parents=True, exist_ok=True)
        keys = [control["key"] for control in client.hello["controls"]]
        client.start()
        client.hold(keys[0])
        for frame in client.frames(count):
            (folder / f"{frame.number:04d}.png").write_bytes(frame.image)
        return str(client.hello["world"])


def positive(text: str) -> int:
    """Return a number of frames; `argparse` turns the error into one line."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of frames; give 1 or more")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 2 if there is no server to play with."""
    parser = argparse.ArgumentParser(
        description="Play: walk ahead in a running `glassworld play` and save the frames as PNG.",
        epilog="Start the server first: glassworld play --no-open. If it prints an address with "
        "a token, pass ws://HOST:PORT/ws?token=TOKEN as --url. For `glassworld serve`, pass the "
        "address that it prints.",
    )
    parser.add_argument("--url", default=URL, help="address of the server (default: %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("frames"),
        metavar="FOLDER",
        help="where to save the frames; created if missing (default: %(default)s)",
    )
    parser.add_argument(
        "--frames",
        type=positive,
        default=48,
        metavar="N",
        help="how many frames to save (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        world = save_walk(options.url, options.output, options.frames)
    except InvalidURI:
        return fail(f"--url {options.url}: not an address such as {URL}")
    except (OSError, WebSocketException, ValueError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            return fail(f"--output {options.output}: cannot be written ({error.strerror})")
        no_fleet = "it gives no seats" if isinstance(error, json.JSONDecodeError) else error
        return fail(f"--url {options.url}: cannot play there ({no_fleet}); start `glassworld play`")
    print(f"saved {options.frames} frames of {world} in {options.output}")
    return 0


def fail(reason: str) -> int:
    """Print why the command ends; return its exit code."""
    print(f"play_client: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
