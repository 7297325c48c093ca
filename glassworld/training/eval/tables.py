"""The scores of a world as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

BLOCK_COLUMNS = {
    "psnr": "PSNR, dB",
    "psnr_start_picture": "held",
    "psnr_wrong_actions": "wrong",
    "psnr_moving": "moved",
    "psnr_start_picture_moving": "held",
    "psnr_wrong_actions_moving": "wrong",
    "ssim": "SSIM",
    "ssim_start_picture": "held",
    "ssim_wrong_actions": "wrong",
}
"""The world, the start picture held still, the world under opposite actions; of the views that
moved alone; the same in SSIM."""
DRIFT_COLUMNS = ("distance", "sharpness", "motion")
ENDS = ("first", "last")


def tables(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """What `evaluate` gave, in its order."""
    yield _blocks(scores["blocks"])
    yield _shares(scores["actions"], float(scores["vae"]["psnr"]))
    yield _drift(scores["drift"])


def _blocks(blocks: Mapping[str, list[float | None]]) -> Table:
    table = Table(title="Against the simulator, block by block", title_justify="left")
    table.add_column("block", justify="right")
    for title in BLOCK_COLUMNS.values():
        table.add_column(title, justify="right")
    for index, row in enumerate(zip(*(blocks[name] for name in BLOCK_COLUMNS), strict=True)):
        cells = (
            "-" if value is None else f"{value:.{2 if name.startswith('ssim') else 1}f}"
            for name, value in zip(BLOCK_COLUMNS, row, strict=True)
        )
        table.add_row(str(index + 1), *cells)
    return table


def _shares(actions: Mapping[str, float], vae: float) -> Table:
    table = Table(title="Following the keys", title_justify="left")
    table.add_column("what")
    table.add_column("reached", justify="right")
    for name, value in actions.items():
        shown = f"{value:.2f}" if name == "turn_size" else f"{value:.0%}"
        table.add_row(name.replace("_", " "), shown)
    table.add_row("VAE alone on held-out clips", f"{vae:.1f} dB")
    return table


def _drift(drift: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title="A minute: first five seconds, last five", title_justify="left")
    table.add_column("keys")
    for name in DRIFT_COLUMNS:
        table.add_column(name, justify="right")
    for name, row in drift.items():
        for title, kind in ((name, ""), ("the simulator", "true_")):
            ends = ((row[f"{kind}{end}_{key}"] for end in ENDS) for key in DRIFT_COLUMNS)
            table.add_row(title, *(", ".join(f"{value:.1f}" for value in pair) for pair in ends))
    real = next(iter(drift.values()))["real_sharpness"]
    table.caption = f"real frames: distance 0, sharpness {real:.1f}"
    return table
