"""A training run on disk: checkpoints that resume, curves that can be looked at."""

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
from glassworld.training.muon import Muon, knows_bfloat16

EMA_WARM_UP = 10
_DAMAGE = (RuntimeError, KeyError, ValueError, EOFError, OSError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn: a linear warm-up, then half a cosine down to `floor`.

    Args:
        steps: optimizer steps in all.
        rate: the highest learning rate.
        warm_up: steps of the linear rise.
        floor: the last rate, as a share of the highest.
    """

    steps: int
    rate: float
    warm_up: int = 50
    floor: float = 0.02

    def at(self, step: int) -> float:
        """The learning rate of a step."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.rate * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2)


class Run:
    """A model in training: its optimizer, its averaged weights, its folder.

    Everything a step needs beyond the model is a function of the seed and the step's number, so
    a run that was interrupted goes on as if it had not been.

    Args:
        folder: takes `state.pt`, `curve.csv` and `curve.png` (drawn with the extra `train`).
        model: what is trained.
        schedule: learning rates.
        decay: of the averaged weights.
        optimizers: of the model's weights, if others than `optimizers_for` chooses.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        schedule: Schedule,
        decay: float = 0.999,
        optimizers: list[torch.optim.Optimizer] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.model, self.schedule, self.decay = folder, model, schedule, decay
        self.optimizers = optimizers or optimizers_for(model)
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.step = 0
        self._rows: list[dict[str, float]] = []

    @property
    def state_path(self) -> Path:
        return self.folder / "state.pt"

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one.

        Raises:
            CheckpointError: it is damaged or of another model; it is left as it is.
        """
        if not self.state_path.exists():
            return
        try:
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
        except _DAMAGE as error:
            raise CheckpointError(
                f"{self.state_path} does not continue this run: move it away to start anew"
            ) from error
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.step = int(state["step"])
        self._rows = state["curve"]

    def save(self) -> None:
        """Write the checkpoint and the curve; a reader never meets half of one."""
        draft = self.state_path.with_suffix(".part")
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average,
            "step": self.step,
            "curve": self._rows,
        }
        torch.save(state, draft)
        draft.replace(self.state_path)
        if self._rows:
            self._plot()
            with (self.folder / "curve.csv").open("w", newline="") as file:
                names = list(dict.fromkeys(name for row in self._rows for name in row))
                table = csv.DictWriter(file, names)
                table.writeheader()
                table.writerows(self._rows)

    def steps(self, name: str, until: int | None = None, every: int = 100) -> Iterator[int]:
        """The steps still to do, with a bar; each is to `learn` once. Saves every so often and
        at the end."""
        until = self.schedule.steps if until is None else until
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            bar = progress.add_task(name, total=until, completed=self.step)
            while self.step < until:
                yield self.step
                progress.update(bar, completed=self.step)
                if self.step % every == 0:
                    self.save()
        self.save()

    def learn(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`, then the averaged weights follow."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.schedule.at(self.step)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        share = min(self.decay, (1 + self.step) / (EMA_WARM_UP + self.step))
        values = self.model.state_dict()
        averages = [self.average[name] for name in values]
        torch._foreach_lerp_(averages, list(values.values()), 1 - share)
        self.step += 1

    def note(self, **values: float) -> None:
        """Keep a row of the curve."""
        self._rows.append({"step": self.step, **values})

    def _plot(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4))
        axes = figure.subplots()
        for name in dict.fromkeys(name for row in self._rows for name in row if name != "step"):
            points = [(row["step"], row[name]) for row in self._rows if name in row]
            axes.plot(*zip(*points, strict=True), label=name)
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.legend()
        figure.savefig(self.folder / "curve.png", dpi=100)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where it is faster: on a GPU and on processors with instructions for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=knows_bfloat16(device.type))


def optimizers_for(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside transformer layers and for convolutions, AdamW for the rest.

    Muon's steps are scaled to AdamW's size, so one learning rate serves both.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        inside = ".blocks." in name or ".transformer." in name
        takes = weight.dim() == 4 or (inside and weight.dim() == 2)
        (matrices if takes else rest).append(weight)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.01)
    ]
    if matrices:
        optimizers.append(Muon(matrices))
    return optimizers


def generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step: the same whether the run was interrupted or not."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
