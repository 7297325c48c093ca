"""The check of a GPU: correctness against the CPU, then speed and memory at the released size.

Each section is a process of its own. One that fails or takes too long is recorded with its error,
and the others go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from glassworld.bench.gpu.context import BenchContext
from glassworld.bench.gpu.correctness import measure_correctness
from glassworld.bench.gpu.sections import SECTIONS
from glassworld.bench.peak_rates import measure_peak_rates
from glassworld.bench.section_runner import BenchSection, Figures, SectionRunner, TimeBudget
from glassworld.bench.tiny_world import tiny_world
from glassworld.engine.checkpoint.load import load_world
from glassworld.errors import InputError
from glassworld.files import replacing, writable_file
from glassworld.profiling.metadata import machine, versions

MAX_SECTION_SECONDS = 120
SHOWN_OF_ERROR = 2000
ORDER = (  # most important first: the time may be up before the last
    "machine",
    "correctness",
    "matmul_variants",
    "accelerations",
    "cold_starts",
    "sessions",
    "decoder_variants",
    "attention_variants",
    "peak_rates",
    "roofline",
    "convolution_variants",
    "steady_state",
)


@dataclass(frozen=True)
class GpuCheckOptions:
    """What to check. `only` names sections, joined by commas; `rehearse` runs on the CPU."""

    json_file: Path
    blocks: int = 20
    minutes: float = 5.5
    only: str = ""
    rehearse: bool = False

    @property
    def device(self) -> str:
        """The kind of device to check."""
        return "cpu" if self.rehearse else "cuda"

    @property
    def sections(self) -> list[str]:
        """Names of the sections to run; an `InputError` for one that is unknown."""
        names = [name.strip() for name in self.only.split(",") if name.strip()] or list(ORDER)
        if unknown := sorted(set(names) - set(ORDER)):
            raise InputError(f"--only {unknown[0]}: must be one of {', '.join(ORDER)}")
        return names


def run_gpu_check(options: GpuCheckOptions) -> bool:
    """Run the sections, each in a process of its own; return False if Ctrl-C ended them early.

    Raises `InputError` if there is no CUDA device.
    """
    names = options.sections
    if not options.rehearse and not torch.cuda.is_available():
        raise InputError("bench gpu: there is no CUDA device; use --rehearse to run on the CPU")
    writable_file(options.json_file)
    budget = TimeBudget(60 * options.minutes)
    runner = SectionRunner(Console(), budget, options.json_file, spinner=False)
    runner.figures["date"] = datetime.now(UTC).date().isoformat()
    runner.run(
        [
            BenchSection(
                name,
                partial(_run_section, name, options, budget),
                partial(_outcome, name),
            )
            for name in names
        ]
    )
    return not runner.interrupted


def _outcome(name: str, figures: Figures) -> str:
    error = figures[name].get("error")
    return f"failed: {str(error).splitlines()[-1]}" if error else "done"


def _run_section(name: str, options: GpuCheckOptions, budget: TimeBudget) -> Figures:
    """Run a section in a process of its own; return its figures, or what went wrong."""
    seconds = min(budget.left, MAX_SECTION_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "section.json"
        error = _run_process(_command(name, options, path), seconds)
        figures: Figures = json.loads(path.read_bytes()) if path.is_file() else {}
        return {name: {**figures, "error": error} if error else figures}


def _run_process(command: list[str], seconds: float) -> str:
    """Run a section's process; return what went wrong, or "".

    It leads a process group, so that the processes that it starts end with it: a cold start left
    behind would keep its memory of the GPU from the next section.
    """
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, errors="replace", process_group=0
    ) as process:
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"took more than {seconds:.0f} s"
        finally:  # also after Ctrl-C, which reaches this process alone
            _end_group(process)
    if process.returncode == 0:
        return ""
    return errors.strip()[-SHOWN_OF_ERROR:] or f"exit {process.returncode}"


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a process and those that it has started; the process alone where there are no groups."""
    if sys.platform == "win32":
        process.kill()
        return
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)


def _command(name: str, options: GpuCheckOptions, path: Path) -> list[str]:
    command = [sys.executable, "-m", "glassworld", "bench", "gpu", "--section", name]
    command += ["--json", str(path), "--blocks", str(options.blocks)]
    return command + ["--rehearse"] * options.rehearse


def measure_section(name: str, options: GpuCheckOptions) -> None:
    """Run one section in this process and write its figures to `options.json_file`."""
    checks: dict[str, Callable[[str], Figures]] = {
        "machine": _describe_machine,
        "correctness": measure_correctness,
        "peak_rates": _measure_peak_rates,
    }
    if name in checks:
        figures = checks[name](options.device)
    else:
        with tempfile.TemporaryDirectory() as folder:
            figures = SECTIONS[name](_context(options, Path(folder)))
    _write(options.json_file, figures)


def _write(path: Path, figures: Figures) -> None:
    with replacing(path) as partial_file:  # the section may be ended at any moment
        partial_file.write_text(json.dumps(figures), encoding="utf-8")


def _context(options: GpuCheckOptions, folder: Path) -> BenchContext:
    outputs = partial(_write, options.json_file), partial(print, flush=True)
    if options.rehearse:
        return BenchContext(tiny_world, {}, options.blocks, folder, *outputs)
    arguments: dict[str, Any] = {"random_weights": True, "device": "cuda"}
    build = partial(load_world, **arguments)
    return BenchContext(build, arguments, options.blocks, folder, *outputs)


def _describe_machine(device: str) -> Figures:
    facts: Figures = {"machine": machine(), "versions": versions(), "cuda": torch.version.cuda}
    if device == "cuda":
        facts["memory_gb"] = torch.cuda.get_device_properties(0).total_memory / 1e9
    return facts


def _measure_peak_rates(device: str) -> Figures:
    """Measure the peak rates of both precisions, for the figures of this check alone."""
    return {dtype or "default": measure_peak_rates(device, dtype) for dtype in ("float32", None)}
