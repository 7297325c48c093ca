"""The training loop: it resumes exactly, and leaves damaged checkpoints alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glassworld.errors import CheckpointError
from glassworld.training.trainer import CosineSchedule, Trainer, generator

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure


def _train_line(folder: Path, until: int) -> Trainer:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    trainer = Trainer(folder, model, CosineSchedule(steps=6, rate=0.1, warmup_steps=2))
    trainer.resume()
    for step in trainer.steps("line", until):
        x = torch.randn(8, 3, generator=generator(0, step))
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        trainer.update(loss)
        trainer.log(loss=loss.item())
    return trainer


@pytest.mark.slow
def test_trainer_interrupted_gives_the_same_weights_and_curve(tmp_path: Path) -> None:
    whole = _train_line(tmp_path / "whole", 6)
    _train_line(tmp_path / "parts", 3)
    resumed = _train_line(tmp_path / "parts", 6)
    torch.testing.assert_close(resumed.model.weight, whole.model.weight)
    torch.testing.assert_close(resumed.ema["weight"], whole.ema["weight"])
    curves = [(tmp_path / name / "curve.csv").read_text() for name in ("whole", "parts")]
    assert curves[0] == curves[1]
    assert (tmp_path / "parts" / "curve.png").exists()


def test_trainer_checkpoint_keeps_its_keys(tmp_path: Path) -> None:
    _train_line(tmp_path, 1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert set(state) == {"model", "optimizers", "average", "step", "seconds", "curve"}


def test_trainer_with_a_time_limit_ends_and_resumes_where_it_was(tmp_path: Path) -> None:
    def train(seconds: float) -> Trainer:
        schedule = CosineSchedule(1000, 0.1, seconds=seconds)
        trainer = Trainer(tmp_path, torch.nn.Linear(3, 1), schedule)
        trainer.resume()
        for _ in trainer.steps("line"):
            trainer.update(trainer.model(torch.ones(2, 3)).square().mean())
        return trainer

    first = train(0.2)
    assert first.position == 1000
    assert first.step > 1
    assert train(0.2).step == first.step
    assert train(0.4).step > first.step


def test_trainer_with_a_damaged_checkpoint_refuses_and_keeps_the_file(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"not a checkpoint")
    trainer = Trainer(tmp_path, torch.nn.Linear(2, 2), CosineSchedule(1, 0.1))
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        trainer.resume()
    assert (tmp_path / "state.pt").read_bytes() == b"not a checkpoint"


@pytest.mark.parametrize("kept", [("model", "optimizers"), ()])
def test_trainer_with_part_of_a_checkpoint_says_that_it_is_damaged(
    kept: tuple[str, ...], tmp_path: Path
) -> None:
    trainer = Trainer(tmp_path, torch.nn.Linear(2, 2), CosineSchedule(1, 0.1))
    trainer.save()
    state = torch.load(trainer.state_path, weights_only=True)
    torch.save({name: state[name] for name in kept} or [state], trainer.state_path)
    with pytest.raises(CheckpointError, match=r"state\.pt: damaged, or of another model"):
        trainer.resume()


def test_curve_of_a_single_row_shows_a_point(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, torch.nn.Linear(2, 2), CosineSchedule(1, 1e-3))
    trainer.log(loss=2.0)
    trainer.save()
    with Image.open(tmp_path / "curve.png") as curve:
        middle = np.asarray(curve.convert("RGB"), int)[100:340, 300:420]
    assert (middle.max(-1) - middle.min(-1)).max() > 100  # its color


def test_curve_interrupted_while_it_is_drawn_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tmp_path, torch.nn.Linear(2, 2), CosineSchedule(1, 1e-3))
    trainer.log(loss=2.0)
    trainer.save()
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def interrupted(_: Figure, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.save()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
