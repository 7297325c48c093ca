"""Whole worlds by kernels, which are compiled ahead."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime.interpreter import InterpretedFunction

import tests.support.interpreted  # noqa: F401  (before the kernels)
from glassworld.engine.acceleration import precompile
from glassworld.engine.acceleration.parts import compile_ahead, use_kernels
from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch
from glassworld.engine.world import World
from glassworld.errors import InputError
from tests.support import tiny
from tests.support.paths import ROOT

WALK = Action((1, 0, 0, 0), (0, 0.1))
Variant = tuple[str, tuple[object, ...]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[Variant]:
    """Return the kernels called, by what they are compiled anew for."""
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


def small_world() -> World:
    """Return a world of few tokens and layers, whose caches wrap in the second block.

    The interpreter is slow.
    """
    changes = {"action": replace(tiny.DIT.action, layers=(0,)), "num_layers": 2, "window": 4}
    return tiny.world(dit=changes, height=16, width=32)


@pytest.mark.slow
def test_session_calls_no_kernels_but_the_precompiled(called: set[Variant]) -> None:
    world, plain = (small_world() for _ in range(2))
    use_kernels(world.networks)
    compile_ahead(world.spec, world.networks)
    precompiled = set(called)
    assert len(precompiled) > 20
    called.clear()
    made, expected = (each.start(tiny.picture(), seed=1) for each in (world, plain))
    for _ in range(2):
        assert np.abs(made.step(WALK).astype(int) - expected.step(WALK)).max() <= 1
    assert sorted(map(str, called - precompiled)) == []


@pytest.mark.slow
def test_batch_by_kernels_equals_single_sessions() -> None:
    world, plain = (small_world() for _ in range(2))
    use_kernels(world.networks)
    batch = SessionBatch([world.start(tiny.picture(), seed=seed) for seed in (1, 2)])
    alone = [plain.start(tiny.picture(), seed=seed) for seed in (1, 2)]
    for _ in range(2):
        for frames, session in zip(batch.step([WALK, WALK]), alone, strict=True):
            assert np.abs(frames.astype(int) - session.step(WALK)).max() <= 1


def test_compile_ahead_failure_is_one_line_and_can_be_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = tiny.world()
    use_kernels(world.networks)

    def fail(*_: object) -> None:
        raise RuntimeError("no C compiler\nhere")

    with monkeypatch.context() as patch:
        patch.setattr(precompile, "run_decoder", fail)
        with pytest.raises(InputError, match=r"here \(no C compiler\); leave out 'kernels'$"):
            compile_ahead(world.spec, world.networks)
    compile_ahead(world.spec, world.networks)


@pytest.mark.parametrize(
    "capability",
    [
        pytest.param("90", marks=pytest.mark.slow),
        pytest.param("80", marks=pytest.mark.slow),
        pytest.param("120", marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_ahead_for_each_gpu_generation(capability: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.without_a_gpu", capability]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    ahead, later = map(int, done.stdout.split())
    assert ahead > 20
    assert later == 0
