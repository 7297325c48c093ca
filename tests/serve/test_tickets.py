"""Tickets: bound, short and used once."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from glassworld.serve.tickets import (
    TICKET_SECONDS,
    Signer,
    TicketCheck,
    TicketError,
    new_session,
)

SIGNER = Signer(b"secret")


def test_ticket_names_its_session_once() -> None:
    check = TicketCheck(SIGNER, "a")
    ticket = SIGNER.ticket("s", "a")
    assert check.accept(ticket) == "s"
    with pytest.raises(TicketError, match="has been used"):
        check.accept(ticket)
    assert check.accept(SIGNER.ticket("s", "a")) == "s"


@pytest.mark.parametrize(
    ("ticket", "reason"),
    [
        ("", "no ticket"),
        ("nonsense", "malformed"),
        ("a.b.c", "malformed"),
        ("x" * 2000, "malformed"),
        ("é.é", "malformed"),
    ],
)
def test_ticket_that_is_not_good_is_refused(ticket: str, reason: str) -> None:
    with pytest.raises(TicketError, match=reason):
        TicketCheck(SIGNER, "a").accept(ticket)


@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        (lambda: Signer(b"other").ticket("s", "a"), "not issued here"),
        (lambda: SIGNER.ticket("s", "b"), "another worker"),
        (lambda: SIGNER.token("s", "a"), "token is no ticket"),
    ],
)
def test_ticket_for_something_else_is_refused(issue: Callable[[], str], reason: str) -> None:
    with pytest.raises(TicketError, match=reason):
        TicketCheck(SIGNER, "a").accept(issue())


def test_changed_payload_is_refused() -> None:
    payload, signature = SIGNER.ticket("s", "a").split(".")
    changed = payload[:-2] + ("A" if payload[-2] != "A" else "B") + payload[-1]
    with pytest.raises(TicketError):
        TicketCheck(SIGNER, "a").accept(f"{changed}.{signature}")


def test_expired_ticket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ticket, now = SIGNER.ticket("s", "a"), time.time()
    monkeypatch.setattr(time, "time", lambda: now + TICKET_SECONDS + 1)
    with pytest.raises(TicketError, match="expired"):
        TicketCheck(SIGNER, "a").accept(ticket)


def test_token_names_session_and_world() -> None:
    assert SIGNER.session_of_token(SIGNER.token("s", "maze")) == ("s", "maze")
    with pytest.raises(TicketError, match="ticket is no token"):
        SIGNER.session_of_token(SIGNER.ticket("s", "maze"))


def test_sessions_are_not_guessed() -> None:
    assert len({new_session() for _ in range(100)}) == 100
    assert len(new_session()) == 24
