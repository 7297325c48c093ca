"""Kernels are compiled ahead: a walk calls none that the rehearsal did not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import interpreted  # noqa: F401  (before the kernels)
import numpy as np
import pytest
import tiny
import torch
from triton.runtime.interpreter import InterpretedFunction

from glassworld.engine.acceleration import _use_kernels
from glassworld.engine.actions import Action

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
    return variants


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
