"""Kernels are compiled ahead: a walk calls none that the rehearsal did not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import interpreted  # noqa: F401  (before the kernels)
import numpy as np
import pytest
import tiny
import torch
from triton.runtime.interpreter import InterpretedFunction

from glassworld.engine import rehearsal
from glassworld.engine.acceleration import _use_kernels
from glassworld.engine.actions import Action
from glassworld.engine.rehearsal import at_once

WALK = Action((1, 0, 0, 0), (0, 0.1))
Variant = tuple[str, tuple[object, ...]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[Variant]:
    """The kernels called, by what each is compiled anew for."""
    variants: set[Variant] = set()
    run = InterpretedFunction.run

    def recorded(self: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        given = [*args, *(named[name] for name in sorted(named))]
        kinds = tuple(
            each.dtype if isinstance(each, torch.Tensor) else None if each is None else type(each)
            for each in given
        )
        constants = tuple(
            (name, value)
            for name, value in sorted(named.items())
            if isinstance(value, int) and name not in SIZES
        )
        variants.add((self.fn.__name__, (kinds, constants)))
        return run(self, *args, grid=grid, warmup=warmup, **named)

    monkeypatch.setattr(InterpretedFunction, "run", recorded)
    monkeypatch.setattr(rehearsal, "at_once", in_turn)
    return variants


def in_turn(jobs: list[Callable[[], None]]) -> None:
    """Interpreted, kernels know one thread."""
    for job in jobs:
        job()


SIZES = ("pixels", "columns", "num_warps")  # no constants of a kernel's


def test_a_walk_calls_no_other_kernels(called: set[Variant]) -> None:
    changes = {"action": replace(tiny.DIT.action, layers=(0,)), "num_layers": 2, "window": 6}
    world, plain = (tiny.world(dit=changes) for _ in range(2))
    _use_kernels(world)
    rehearsed = set(called)
    assert len(rehearsed) > 20
    called.clear()
    made, expected = (each.start(tiny.picture(), seed=1) for each in (world, plain))
    for _ in range(2):
        assert np.abs(made.step(WALK).astype(int) - expected.step(WALK)).max() <= 1
    assert sorted(map(str, called - rehearsed)) == []


def test_what_fails_in_one_of_the_jobs_is_told() -> None:
    done = []

    def fail() -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        at_once([fail, lambda: done.append(1)])
    assert done == [1]
