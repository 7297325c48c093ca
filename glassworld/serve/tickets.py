"""Signed tickets: who may open which session on which worker, once and for a short time.

A ticket or token is `PAYLOAD.SIGNATURE`, both in URL-safe base64. The signature is HMAC-SHA256 over
the payload, which begins with what the signature is good for: a ticket is no token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time

import msgspec

TICKET_SECONDS = 30.0
"""How long a ticket is good."""

TOKEN_SECONDS = 24 * 3600.0
"""How long a player may ask for a session again; whether it still exists is another question."""

MAX_LENGTH = 1024


class TicketError(ValueError):
    """A ticket or token is not good; the text says why, without secrets."""


class _Claims(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    kind: str
    session: str
    place: str  # the worker's name of a ticket, the world's of a token
    expires: float  # seconds since the epoch
    nonce: str


class Signer:
    """Issues and checks tickets and tokens with one secret, which all processes of a fleet have."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def ticket(self, session: str, worker: str) -> str:
        """Return a ticket for a session on a worker."""
        return self._sign("ticket", session, worker, TICKET_SECONDS)

    def token(self, session: str, world: str) -> str:
        """Return a token that asks for a session again after a lost connection."""
        return self._sign("token", session, world, TOKEN_SECONDS)

    def session_of_token(self, token: str) -> tuple[str, str]:
        """Return the session and the world of a token; raise `TicketError` if it is not good."""
        claims = self._verify("token", token)
        return claims.session, claims.place

    def _sign(self, kind: str, session: str, place: str, seconds: float) -> str:
        claims = _Claims(kind, session, place, time.time() + seconds, secrets.token_hex(8))
        payload = msgspec.json.encode(claims)
        return f"{_encode(payload)}.{_encode(self._signature(payload))}"

    def _signature(self, payload: bytes) -> bytes:
        return hmac.digest(self._secret, payload, hashlib.sha256)

    def _verify(self, kind: str, text: str) -> _Claims:
        if len(text) > MAX_LENGTH:
            raise TicketError(f"the {kind} is malformed")
        try:
            payload, signature = (_decode(part) for part in text.split("."))
        except ValueError:
            raise TicketError(f"the {kind} is malformed") from None
        if not hmac.compare_digest(signature, self._signature(payload)):
            raise TicketError(f"the {kind} was not issued here")
        claims = msgspec.json.decode(payload, type=_Claims)
        if claims.kind != kind:
            raise TicketError(f"a {claims.kind} is no {kind}")
        if claims.expires < time.time():
            raise TicketError(f"the {kind} has expired; ask for another")
        return claims


class TicketCheck:
    """Accepts the tickets of one worker, each once."""

    def __init__(self, signer: Signer, worker: str) -> None:
        self._signer, self._worker = signer, worker
        self._used: dict[str, float] = {}  # nonces, and when they expire

    def accept(self, ticket: str) -> str:
        """Return the session of a ticket and use it up; raise `TicketError` if it is not good."""
        if not ticket:
            raise TicketError("no ticket; ask the ingress for one: POST /sessions")
        claims = self._signer._verify("ticket", ticket)
        if claims.place != self._worker:
            raise TicketError("the ticket is for another worker")
        now = time.time()
        self._used = {nonce: expires for nonce, expires in self._used.items() if expires > now}
        if claims.nonce in self._used:
            raise TicketError("the ticket has been used; ask for another")
        self._used[claims.nonce] = claims.expires
        return claims.session


def new_session() -> str:
    """Return the id of a new session, which nobody can guess."""
    return secrets.token_hex(12)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
