"""A client of `glassworld play` in plain Python: it walks and saves the frames.

glassworld play --no-open &
python examples/play_client.py
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from websockets.sync.client import ClientConnection, connect

HEADER = struct.Struct("<BBHIII")
FRAME = 1


class Frame(NamedTuple):
    """A frame as received."""

    block: int
    number: int
    action: int  # id of the act message that its block used
    image: bytes  # PNG or JPEG


class PlayClient:
    """A connection to the server.

    `with PlayClient(url) as client: client.start(); for frame in client.frames(60): ...`

    `hello` is the server's first message; `messages` collects the later ones.
    """

    def __init__(self, url: str = "ws://127.0.0.1:8765/ws") -> None:
        self._connecting = connect(url, max_size=None)
        self.socket: ClientConnection
        self.hello: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self._acts = 0

    def __enter__(self) -> PlayClient:
        self.socket = self._connecting.__enter__()
        self.hello = json.loads(self.socket.recv())
        return self

    def __exit__(self, *error: Any) -> None:
        self._connecting.__exit__(*error)

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
        self.send("act", id=self._acts, keys=keys, mouse=mouse)
        return self._acts

    def _receive(self) -> str | bytes:
        """Return the next message; ping meanwhile, because the server drops silent clients."""
        for _ in range(12):
            try:
                return self.socket.recv(5)
            except TimeoutError:
                self.send("ping", id=0)
        raise TimeoutError("the server has sent nothing for a minute")

    def frames(self, count: int) -> Iterator[Frame]:
        """Yield the next `count` frames as they arrive."""
        while count:
            received = self._receive()
            if isinstance(received, str):
                self.messages.append(json.loads(received))
                continue
            kind, _, _, block, number, action = HEADER.unpack_from(received)
            self.send("seen", frame=number)
            if kind == FRAME:
                count -= 1
                yield Frame(block, number, action, received[HEADER.size :])

    def wait_for(self, kind: str) -> dict[str, Any]:
        """Return the next control message of this kind; skip frames until then."""
        while True:
            received = self._receive()
            if isinstance(received, bytes):
                self.send("seen", frame=HEADER.unpack_from(received)[4])
                continue
            message: dict[str, Any] = json.loads(received)
            self.messages.append(message)
            if message["type"] == kind:
                return message


def main(folder: Path) -> None:
    """Hold the first key for 48 frames and save them in `folder`."""
    folder.mkdir(exist_ok=True)
    with PlayClient() as client:
        keys = [control["key"] for control in client.hello["controls"]]
        client.start()
        client.hold(keys[0])
        for frame in client.frames(48):
            (folder / f"{frame.number:04d}.png").write_bytes(frame.image)
    print(f"saved 48 frames of {client.hello['world']} in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "frames"))
