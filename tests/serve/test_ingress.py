"""Limits of the ingress, without a fleet behind it."""

from __future__ import annotations

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.serve.ingress import REQUEST_BURST, AddressLimits
from glassworld.serve.options import FleetOptions, WorldOptions


def test_address_may_ask_so_often_and_others_are_not_concerned() -> None:
    limits = AddressLimits()
    allowed = sum(limits.allows("one") for _ in range(2 * int(REQUEST_BURST)))
    assert REQUEST_BURST <= allowed < REQUEST_BURST + 10
    assert limits.allows("other")


def test_address_of_a_worker_follows_the_template() -> None:
    worlds = (WorldOptions("w", LoadOptions()),)
    assert FleetOptions(worlds, "").address("::1", "n", 8) == "ws://[::1]:8/ws"
    options = FleetOptions(worlds, "", worker_url="wss://play.example.org/worker/{port}")
    assert options.address("h", "n", 8) == "wss://play.example.org/worker/8/ws"
