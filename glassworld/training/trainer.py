"""The training loop: checkpoints to resume from, loss curves, learning rates and optimizers."""

import csv
import io
import math
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from glassworld.engine.runtime.device import has_fast_bfloat16
from glassworld.errors import CheckpointError
from glassworld.files import replacing, write_file
from glassworld.progress import REPORT_EVERY_SECONDS
from glassworld.training.muon import Muon
from glassworld.training.weights.lora import is_lora_factor

SAVE_EVERY_SECONDS = 45.0
EMA_WARMUP_STEPS = 10
MAX_GRADIENT_NORM = 1.0
_DAMAGE = (
    RuntimeError,
    KeyError,
    TypeError,
    ValueError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
)


@contextmanager
def named_damage(path: Path) -> Iterator[None]:
    """Raise `CheckpointError`, naming `path`, for the errors of a checkpoint that does not fit."""
    try:
        yield
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path}: damaged, or of another model; move it away to start over"
        ) from error


@dataclass(frozen=True)
class CosineSchedule:
    """Learning rates: a linear warmup, then half a cosine down to `floor`.

    With `seconds` the training takes that long, however many steps fit in. The lengths in steps
    then only say which share of the time each part takes.

    Parameters
    ----------
    steps
        Total optimizer steps.
    rate
        The highest learning rate.
    warmup_steps
        Steps of the linear rise.
    floor
        The last rate as a share of the highest.
    seconds
        Length of the training; None: it takes `steps`.
    """

    steps: int
    rate: float
    warmup_steps: int = 50
    floor: float = 0.02
    seconds: float | None = None

    def at(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup_steps:
            return self.rate * (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        return self.rate * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2)


class Trainer:
    """A model in training: its optimizers, its averaged weights, its folder.

    Frozen weights are neither averaged nor saved.

    Everything else that a step needs is a function of the seed and of the step's number. So an
    interrupted run resumes and gives the same weights.

    Parameters
    ----------
    folder
        Takes `state.pt`, `curve.csv` and `curve.png`.
    model
        To train.
    schedule
        Learning rate of each step.
    ema_decay
        Decay of the averaged weights.
    optimizers
        Optimizers of the weights; None means those of `optimizers_for`.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        schedule: CosineSchedule,
        ema_decay: float = 0.999,
        optimizers: list[torch.optim.Optimizer] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.model, self.schedule = folder, model, schedule
        self.ema_decay = ema_decay
        self.optimizers = optimizers or optimizers_for(model)
        self._frozen = {
            name for name, weight in model.named_parameters() if not weight.requires_grad
        }
        self.ema = {name: value.detach().clone() for name, value in self._weights().items()}
        self.step, self.seconds = 0, 0.0
        self._curve: list[dict[str, float]] = []

    @property
    def state_path(self) -> Path:
        """Path of the checkpoint."""
        return self.folder / "state.pt"

    @property
    def position(self) -> int:
        """How far the training is, in steps of the schedule: equals `step` without a time limit."""
        if self.schedule.seconds is None:
            return self.step
        done = min(1.0, self.seconds / self.schedule.seconds)
        return int(done * self.schedule.steps)

    def resume(self) -> None:
        """Continue from the last checkpoint, if there is one.

        Raises
        ------
        CheckpointError
            It is damaged or of another model. The file is left as it is.
        """
        if not self.state_path.exists():
            return
        with named_damage(self.state_path):
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            self._load(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            for name, value in state["average"].items():
                self.ema[name].copy_(value)
            self.step, self.seconds = int(state["step"]), float(state.get("seconds", 0.0))
            self._curve = state["curve"]

    def use_average(self) -> None:
        """Give the model its averaged weights."""
        self._load(self.ema)

    def _weights(self) -> dict[str, Tensor]:
        """Return what is trained of the model's state."""
        state: dict[str, Tensor] = self.model.state_dict()
        return {name: value for name, value in state.items() if name not in self._frozen}

    def _load(self, weights: dict[str, Tensor]) -> None:
        """Replace what is trained; raise `KeyError` for weights of another model."""
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        if unexpected or set(missing) != self._frozen:
            raise KeyError(*unexpected, *missing)

    def save(self) -> None:
        """Write the checkpoint and the curves, each file whole or not at all.

        Raises
        ------
        DiskFullError
            The disk has no room. The last checkpoint stays.
        """
        state: dict[str, Any] = {
            "model": self._weights(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.ema,
            "step": self.step,
            "seconds": self.seconds,
            "curve": self._curve,
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_file(self.state_path, content.getvalue())
        if self._curve:
            self._plot()
            names = list(dict.fromkeys(name for row in self._curve for name in row))
            text = io.StringIO()
            table = csv.DictWriter(text, names)
            table.writeheader()
            table.writerows(self._curve)
            write_file(self.folder / "curve.csv", text.getvalue().encode())

    def steps(self, label: str, until: int | None = None) -> Iterator[int]:
        """Iterate over the remaining steps with a progress bar; call `update` once for each.

        Saves every `SAVE_EVERY_SECONDS` and at the end. At least one step is taken.

        Parameters
        ----------
        label
            Name of the stage for the progress bar.
        until
            Position at which to stop; None: the end of the schedule.
        """
        until = self.schedule.steps if until is None else until
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        console = Console()
        saved = reported = last = time.monotonic()
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task(label, total=until, completed=self.position)
            while self.position < until:
                yield self.step
                now = time.monotonic()
                self.seconds, last = self.seconds + now - last, now
                progress.update(bar, completed=self.position)
                if now - reported >= REPORT_EVERY_SECONDS and not console.is_terminal:
                    console.print(self._progress_line(label, until))
                    reported = now
                if now - saved >= SAVE_EVERY_SECONDS:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def _progress_line(self, label: str, until: int) -> str:
        """Say how far the training is, for outputs that are no terminal."""
        left = self.seconds * (until - self.position) / max(1, self.position)
        values = ", ".join(
            f"{name} {value:.4g}"
            for name, value in (self._curve[-1] if self._curve else {}).items()
            if name != "step"
        )
        share = self.position / until
        return f"{label}: step {self.step}, {share:.0%}, {left / 60:.0f} min left; {values}"

    def update(self, loss: Tensor) -> None:
        """Take one optimizer step down the gradient of `loss` and update the averaged weights."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.schedule.at(self.position)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        decay = min(self.ema_decay, (1 + self.step) / (EMA_WARMUP_STEPS + self.step))
        values = self._weights()
        averages = [self.ema[name] for name in values]
        torch._foreach_lerp_(averages, list(values.values()), 1 - decay)
        self.step += 1

    def log(self, **values: float) -> None:
        """Add a row to the curves. The names are columns of `curve.csv`, also in earlier runs."""
        self._curve.append({"step": self.step, **values})

    def _plot(self) -> None:
        from matplotlib.figure import Figure  # slow to import; part of the extra `train`

        figure = Figure(figsize=(7, 4))
        axes = figure.subplots()
        for name in dict.fromkeys(name for row in self._curve for name in row if name != "step"):
            points = [(row["step"], row[name]) for row in self._curve if name in row]
            marker = "" if len(points) > 1 else "o"  # a single point makes no line
            axes.plot(*zip(*points, strict=True), label=name, marker=marker)
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.legend()
        with replacing(self.folder / "curve.png") as path:
            figure.savefig(path, dpi=100)


def autocast(device: torch.device) -> torch.autocast:
    """Compute in bfloat16 where it is faster: on a GPU and on CPUs with instructions for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device.type))


def optimizers_for(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Use Muon for the matrices in transformer layers and for convolutions, AdamW for the rest.

    Muon's steps are scaled to the size of AdamW's, so one learning rate serves both. AdamW also
    trains the factors of LoRA. Frozen weights have no optimizer.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        in_layer = ".blocks." in name or ".transformer." in name
        use_muon = weight.dim() == 4 or (in_layer and weight.dim() == 2)
        (matrices if use_muon and not is_lora_factor(name) else rest).append(weight)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.01)
    ]
    if matrices:
        optimizers.append(Muon(matrices))
    return optimizers


def generator(seed: int, step: int) -> torch.Generator:
    """Return the random generator of one step, the same after an interruption."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
