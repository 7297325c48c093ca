"""The benchmark of one world, section by section, beside its eager baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from glassworld.bench.accuracy import error_against
from glassworld.bench.cold_start import accelerated, cold_start, compiled_starts
from glassworld.bench.latency import ROUNDS, key_to_frame_ms, throughput_by_sessions
from glassworld.bench.matmul import matmul_share
from glassworld.bench.peak_rates import (
    compare_with_stored,
    fastest_rates,
    measure_peak_rates,
)
from glassworld.bench.plots import roofline_plot, scaling_plot
from glassworld.bench.reference.world import eager_world
from glassworld.bench.regression import check_baseline
from glassworld.bench.roofline import fastest_round, roofline_points
from glassworld.bench.scaling import curve_along_run, curve_of_sessions, scaling_curves
from glassworld.bench.section_runner import BenchSection, Figures, Report, TimeBudget
from glassworld.bench.steady_state import (
    MIN_BLOCKS,
    frames_per_block,
    seconds_of_lanes,
    steady_state,
    warm_session,
)
from glassworld.bench.tables import section_summary
from glassworld.bench.threads.comparison import SECONDS, compare_threads, fixed_counts
from glassworld.engine.acceleration.parts import check_parts
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.checkpoint.tiny_decoder import with_tiny_decoder
from glassworld.engine.run_config import describe
from glassworld.engine.runtime.device import pick_device
from glassworld.engine.session import Session
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.files import replacing
from glassworld.profiling.metadata import machine, versions

STEADY_SHARE, SESSIONS_SHARE = 0.3, 0.15
"""Shares of the time budget for the sections whose length can be chosen."""

QUICK_ROUNDS = (2, 4)
"""Fewest and most rounds of several sessions, unless everything is measured."""

COMPILING_PARTS = {"kernels", "layers"}


@dataclass(frozen=True)
class BenchmarkOptions:
    """Which world to measure, and how much of it.

    `full` measures everything: cold starts that compile, and scaling. `scaling` adds scaling alone.
    """

    load: LoadOptions = field(default_factory=LoadOptions)
    blocks: int = 60
    sessions: tuple[int, ...] = (1, 2, 4)
    full: bool = False
    scaling: bool = False
    busy: bool = False  # compare numbers of threads, also beside a busy process
    baseline: dict[str, Any] | None = None  # of the regression guard, to compare with

    def __post_init__(self) -> None:
        if self.blocks < MIN_BLOCKS:
            raise InputError(f"blocks {self.blocks}: measure at least {MIN_BLOCKS}")
        check_parts(self.load.accelerate)

    @property
    def unaccelerated(self) -> dict[str, Any]:
        """Keywords of `load_world` for the world that the baseline is built from."""
        return self.load.keywords("accelerate", "tiny_decoder") | {"vae_compile_mode": "none"}


class Benchmark:
    """The sections over one world; `folder` takes temporary files."""

    def __init__(
        self, options: BenchmarkOptions, budget: TimeBudget, folder: Path, report: Report
    ) -> None:
        self.options, self.budget, self.report = options, budget, report
        self.folder = folder
        self.start_image = folder / "gray.png"
        Image.fromarray(np.full((64, 96, 3), 128, np.uint8)).save(self.start_image)
        self.world: World
        self.eager: World
        self._rooflines: list[list[dict[str, Any]]] = []
        self._ceilings: Figures = {}
        self._measured: Figures = {}

    def sections(self) -> list[BenchSection]:
        """Return the sections in their order: each may use the figures of those before it."""
        measured = {
            "world": self.load,
            "cold start": self.cold_start,
            "peak rates": self.peak_rates,
            "steady state": self.steady_state,
            "latency": self.latency,
            "sessions": self.sessions,
            "accuracy": self.accuracy,
            "matmul": self.matmul,
            "roofline": self.shares_of_peak,
        }
        if self.options.full or self.options.scaling:
            measured["scaling"] = self.scaling
        if self.options.busy:
            measured["threads"] = self.threads
        return [
            BenchSection(name, measure, partial(section_summary, name), name == "threads")
            for name, measure in measured.items()
        ]

    @cached_property
    def session(self) -> Session:
        """A warm session of the accelerated world, which every section continues from."""
        return warm_session(self.world, str(self.start_image))

    @property
    def _request(self) -> dict[str, Any]:
        """What a process of its own needs to know to load the world and start a session."""
        return {
            "world": self.options.unaccelerated,
            "accelerate": list(self.options.load.accelerate),
            "vae_compile_mode": self.options.load.vae_compile_mode,
            "picture": str(self.start_image),
        }

    def load(self) -> Figures:
        """Load the world, keep an eager copy as the baseline, then accelerate it."""
        load = self.options.load
        world = load_world(**self.options.unaccelerated)
        if self.options.baseline is not None:
            check_baseline(self.options.baseline, describe(world, None, None))
        mixed = load.dtype == "mixed"  # its decoder is rounded, the baseline's must not be
        exact = load_world(**self.options.unaccelerated | {"dtype": "float32"}) if mixed else world
        self.eager = eager_world(exact)
        if load.tiny_decoder is not None:
            world = with_tiny_decoder(world, Path(load.tiny_decoder))
        self.world = world = accelerated(world, self._request)
        return {
            "accelerate": list(load.accelerate),
            "machine": machine(),
            "versions": versions(),
            "config": describe(world, None, None),
        }

    def cold_start(self) -> Figures:
        """Start in new processes; with an empty and a filled cache if something is compiled."""
        load, request = self.options.load, self._request
        figures = cold_start({**request, "accelerate": []})
        compiles = bool(COMPILING_PARTS & set(load.accelerate)) or load.vae_compile_mode == "force"
        if self.options.full and compiles:
            self.report("cold starts that compile take minutes")
            figures |= compiled_starts(request, self.folder / "cache")
        return figures

    def peak_rates(self) -> Figures:
        """Measure the peak rates once more, and compare the fastest so far with the stored ones."""
        device = self.world.device.type
        rates = measure_peak_rates(device, self.options.load.dtype)
        if self._ceilings:
            rates = fastest_rates(self._ceilings, rates)
        self._ceilings = rates
        return {"ceilings": rates, "stored_ceilings": compare_with_stored(device, rates)}

    def steady_state(self) -> Figures:
        """Measure the steady state, between two rounds of the roofline."""
        baseline = warm_session(self.eager, str(self.start_image))
        seconds = seconds_of_lanes(self.session, baseline)
        blocks = self.budget.repeats(MIN_BLOCKS, self.options.blocks, seconds, STEADY_SHARE)
        if blocks < self.options.blocks:
            self.report(f"{blocks} of {self.options.blocks} blocks, because blocks are slow")
        roofline = self.roofline()
        self._measured = steady_state(self.session, baseline, blocks)
        return {**roofline, **self._measured, **self.roofline()}

    def accuracy(self) -> Figures:
        """Compare with the eager baseline."""
        return {"distance": error_against(self.world, self.eager, str(self.start_image))}

    def matmul(self) -> Figures:
        """Compare the transformer's matmuls with the same shapes alone."""
        return {"products": matmul_share(self.session)}

    def latency(self) -> Figures:
        """Measure from a key to its first frame."""
        return {"key_to_frame_ms": key_to_frame_ms(self.session)}

    def sessions(self) -> Figures:
        """Measure several sessions, in turn and in one batch."""
        counts, rounds = self.options.sessions, ROUNDS
        if not self.options.full:
            seconds = 2 * sum(counts) * self._measured["block_ms_median"] / 1e3
            rounds = self.budget.repeats(*QUICK_ROUNDS, seconds, SESSIONS_SHARE)
        self._measured["sessions"] = throughput_by_sessions(self.session, counts, rounds)
        return {"sessions": self._measured["sessions"]}

    def roofline(self) -> Figures:
        """Measure one more round of the roofline, and return the fastest so far."""
        self._rooflines.append(roofline_points(self.session))
        return {"roofline": fastest_round(self._rooflines)}

    def shares_of_peak(self) -> Figures:
        """Measure a last round of the roofline, beside peak rates measured anew.

        A busy moment during the first measurement would make every share too large.
        """
        return {**self.peak_rates(), **self.roofline()}

    def scaling(self) -> Figures:
        """Measure how the time of a block scales."""
        curves = scaling_curves(self.world, str(self.start_image), self.report)
        frames = frames_per_block(self.world)
        curves["sessions at once"] = curve_of_sessions(self._measured["sessions"], frames)
        curves["blocks of a run"] = curve_along_run(self._measured["block_ms"])
        return {"scaling": curves}

    def threads(self) -> Figures:
        """Compare the engine's number of threads with fixed ones, idle and busy."""
        if pick_device(self.options.load.device).type != "cpu":
            return {"threads": None}
        request = {**self._request, "seconds": SECONDS}
        counts = fixed_counts(torch.get_num_threads())
        return {"threads": compare_threads(request, counts, self.report)}


def write_plots(figures: Figures, folder: Path) -> None:
    """Draw `scaling.svg` and `roofline.svg`, those whose figures were measured."""
    plots: dict[str, str] = {}
    if "scaling" in figures:
        plots["scaling.svg"] = scaling_plot(figures["scaling"])
    if "roofline" in figures:
        plots["roofline.svg"] = roofline_plot(figures["roofline"], figures["ceilings"])
    for name, text in plots.items():
        with replacing(folder / name) as partial_file:
            partial_file.write_text(text, encoding="utf-8")
