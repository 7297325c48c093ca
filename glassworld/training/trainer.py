"""The training loop: checkpoints to resume from, loss curves, learning rates and optimizers."""

import csv
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from glassworld.errors import CheckpointError
from glassworld.training.muon import Muon, has_fast_bfloat16

EMA_WARMUP_STEPS = 10
MAX_GRADIENT_NORM = 1.0
_DAMAGE = (RuntimeError, KeyError, ValueError, EOFError, OSError, pickle.UnpicklingError)


@dataclass(frozen=True)
class CosineSchedule:
    """Learning rates: a linear warmup, then half a cosine down to `floor`.

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
    """

    steps: int
    rate: float
    warmup_steps: int = 50
    floor: float = 0.02

    def at(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup_steps:
            return self.rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.rate * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2)


class Trainer:
    """A model in training: its optimizers, its averaged weights, its folder.

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
        self.ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.step = 0
        self._curve: list[dict[str, float]] = []

    @property
    def state_path(self) -> Path:
        """Path of the checkpoint."""
        return self.folder / "state.pt"

    def resume(self) -> None:
        """Continue from the last checkpoint, if there is one.

        Raises
        ------
        CheckpointError
            It is damaged or of another model. The file is left as it is.
        """
        if not self.state_path.exists():
            return
        try:
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        except _DAMAGE as error:
            raise CheckpointError(
                f"{self.state_path}: damaged, or of another model; move it away to start over"
            ) from error
        for name, value in state["average"].items():
            self.ema[name].copy_(value)
        self.step = int(state["step"])
        self._curve = state["curve"]

    def save(self) -> None:
        """Write the checkpoint and the curves, each file whole or not at all."""
        draft = self.state_path.with_suffix(".part")
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.ema,
            "step": self.step,
            "curve": self._curve,
        }
        torch.save(state, draft)
        draft.replace(self.state_path)
        if self._curve:
            self._plot()
            with (self.folder / "curve.csv").open("w", newline="", encoding="utf-8") as file:
                names = list(dict.fromkeys(name for row in self._curve for name in row))
                table = csv.DictWriter(file, names)
                table.writeheader()
                table.writerows(self._curve)

    def steps(self, label: str, until: int | None = None, save_every: int = 100) -> Iterator[int]:
        """Iterate over the remaining steps with a progress bar; call `update` once for each.

        Saves every `save_every` steps and at the end.
        """
        until = self.schedule.steps if until is None else until
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            bar = progress.add_task(label, total=until, completed=self.step)
            while self.step < until:
                yield self.step
                progress.update(bar, completed=self.step)
                if self.step % save_every == 0:
                    self.save()
        self.save()

    def update(self, loss: Tensor) -> None:
        """Take one optimizer step down the gradient of `loss` and update the averaged weights."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.schedule.at(self.step)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        decay = min(self.ema_decay, (1 + self.step) / (EMA_WARMUP_STEPS + self.step))
        values = self.model.state_dict()
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
            axes.plot(*zip(*points, strict=True), label=name)
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.legend()
        figure.savefig(self.folder / "curve.png", dpi=100)


def autocast(device: torch.device) -> torch.autocast:
    """Compute in bfloat16 where it is faster: on a GPU and on CPUs with instructions for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device.type))


def optimizers_for(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Use Muon for the matrices in transformer layers and for convolutions, AdamW for the rest.

    Muon's steps are scaled to the size of AdamW's, so one learning rate serves both.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        in_layer = ".blocks." in name or ".transformer." in name
        use_muon = weight.dim() == 4 or (in_layer and weight.dim() == 2)
        (matrices if use_muon else rest).append(weight)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.01)
    ]
    if matrices:
        optimizers.append(Muon(matrices))
    return optimizers


def generator(seed: int, step: int) -> torch.Generator:
    """Return the random generator of one step, the same after an interruption."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
