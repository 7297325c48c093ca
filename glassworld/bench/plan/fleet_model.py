"""A fleet: how many seats, and so devices, a number of concurrent players needs."""

from __future__ import annotations

import math
import random
from collections.abc import Generator
from statistics import NormalDist
from typing import Any, NamedTuple

from glassworld.errors import MissingExtraError

try:
    import simpy
except ModuleNotFoundError:
    raise MissingExtraError("simpy, which simulates fleets,", "bench") from None

SESSION_MINUTES = 10.0
SESSION_SPREAD = 1.0
"""Session lengths are log-normal: their mean, and the standard deviation of their logarithm."""


class FleetSize(NamedTuple):
    """The devices for a number of players, and what they cost an hour (None: no price given)."""

    players: int
    seats: int
    devices: int
    cost_per_hour: float | None


def seats_for(players: float, refused: float) -> int:
    """Return the seats with which a share `refused` of the time finds all of them taken.

    With Poisson arrivals the number of players present is Poisson distributed, whatever the
    distribution of session lengths (the M/G/infinity queue). Its quantile, by the normal
    approximation with a continuity correction.
    """
    return math.ceil(players + NormalDist().inv_cdf(1 - refused) * math.sqrt(players) + 0.5)


def fleet_for(
    players: int, seats_each: int, refused: float, price: float | None = None
) -> FleetSize:
    """Return the fleet for a mean of `players`, with `seats_each` seats on every device.

    `price`: of a device for an hour.
    """
    seats = seats_for(players, refused)
    devices = math.ceil(seats / seats_each)
    return FleetSize(players, seats, devices, None if price is None else devices * price)


def simulate_arrivals(seats: int, players: float, hours: float = 4.0, seed: int = 0) -> float:
    """Return the share of arriving players who find every seat taken, by simulation.

    Players arrive at random, so that a mean of `players` would be present if nobody were refused.
    Starts with as many present, and with the rest of their sessions before them.
    """
    env, chance = simpy.Environment(), random.Random(seed)
    taken = arrived = refused = 0

    def length() -> float:
        mean = math.log(SESSION_MINUTES) - SESSION_SPREAD**2 / 2
        return chance.lognormvariate(mean, SESSION_SPREAD)

    def stay(minutes: float) -> Generator[Any]:
        nonlocal taken
        taken += 1
        yield env.timeout(minutes)
        taken -= 1

    def arrive() -> Generator[Any]:
        nonlocal arrived, refused
        while True:
            yield env.timeout(chance.expovariate(players / SESSION_MINUTES))
            arrived += 1
            if taken >= seats:
                refused += 1
            else:
                env.process(stay(length()))

    for _ in range(min(seats, round(players))):
        env.process(stay(chance.random() * length()))
    env.process(arrive())
    env.run(until=60)
    arrived = refused = 0
    env.run(until=60 + 60 * hours)
    return refused / max(1, arrived)
