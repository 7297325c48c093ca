"""Clients of `glassworld play` that measure it from outside."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from glassworld.errors import MissingExtraError
from glassworld.play.protocol import FRAME, VERSION, FrameHeader, unpack_frame

try:
    from websockets.client import ClientProtocol
    from websockets.sync.client import ClientConnection, connect
    from websockets.uri import parse_uri
except ModuleNotFoundError:
    raise MissingExtraError("websockets", "play") from None

TIMEOUT = 60
SMALL_BUFFER = 4096


class PlayClient:
    """A player over a WebSocket: `with PlayClient(url) as client: client.start()`.

    `hello` is the server's first message.
    """

    def __init__(self, url: str) -> None:
        self._connecting = connect(url, max_size=None, close_timeout=1)  # frames are coming in
        self.socket: ClientConnection
        self.hello: dict[str, Any] = {}
        self._acts = 0

    def __enter__(self) -> Self:
        self.socket = self._connecting.__enter__()
        self.hello = json.loads(self.socket.recv(TIMEOUT))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connecting.__exit__(kind, error, trace)

    def send(self, kind: str, **fields: Any) -> None:
        """Send a control message."""
        self.socket.send(json.dumps({"type": kind, **fields}))

    def start(self, seed: int | None = None) -> None:
        """Start a session, and wait until the server has started it."""
        self.send("start", version=VERSION, seed=seed)
        while True:
            received = self.socket.recv(TIMEOUT)
            if isinstance(received, str) and json.loads(received)["type"] == "started":
                return

    def hold(self, *keys: str) -> None:
        """Hold `keys` from now on."""
        self._acts += 1
        self.send("act", id=self._acts, keys=keys, mouse=(0.0, 0.0))

    def frames(self, count: int) -> Iterator[FrameHeader]:
        """Yield the headers of the next `count` frames when they arrive, and acknowledge them."""
        while count:
            received = self.socket.recv(TIMEOUT)
            if isinstance(received, str):
                continue
            header = unpack_frame(received)[0]
            self.send("seen", frame=header.frame)
            if header.kind == FRAME:
                count -= 1
                yield header


class NonReadingClient:
    """A client that sends and never reads: its socket's buffer holds a frame or two."""

    def __init__(self, port: int) -> None:
        self._protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/ws"))
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        self._socket.connect(("127.0.0.1", port))
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        self._protocol.receive_data(self._socket.recv(SMALL_BUFFER))
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, kind: str, **fields: Any) -> None:
        """Send a control message; raise `OSError` if the server has hung up."""
        self._protocol.send_text(json.dumps({"type": kind, **fields}).encode())
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(b"".join(self._protocol.data_to_send()))
