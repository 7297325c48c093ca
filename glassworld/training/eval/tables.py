"""The scores of a world as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

BLOCK_COLUMNS = {
    "psnr": "PSNR, dB",
    "psnr_start_picture": "repeated",
    "psnr_wrong_actions": "mismatched",
    "psnr_gain": "gain",
    "psnr_gain_95": "±",
    "psnr_moving": "moving",
    "psnr_start_picture_moving": "repeated",
    "psnr_wrong_actions_moving": "mismatched",
    "ssim": "SSIM",
    "ssim_start_picture": "repeated",
    "ssim_wrong_actions": "mismatched",
}
BLOCK_CAPTION = (
    "repeated: the start image, repeated; mismatched: the world under the opposite actions; "
    "gain: PSNR gain over the repeated image, with half its 95 % interval; "
    "moving: PSNR over the starts whose view moves"
)
DRIFT_COLUMNS = ("distance", "sharpness", "motion")
DRIFT_ENDS = ("first", "last")


def score_tables(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """Yield the tables of what `evaluate_world` measured."""
    yield _block_table(scores["blocks"])
    yield _action_table(scores["actions"], float(scores["vae"]["psnr"]))
    if "keys" in scores:
        yield _key_table(scores["keys"])
    yield _drift_table(scores["drift"])


def _block_table(blocks: Mapping[str, list[float | None]]) -> Table:
    table = Table(title="Against the source, by second", title_justify="left")
    table.add_column("second", justify="right")
    for title in BLOCK_COLUMNS.values():
        table.add_column(title, justify="right")
    for index, row in enumerate(zip(*(blocks[name] for name in BLOCK_COLUMNS), strict=True)):
        cells = (
            "-" if value is None else f"{value:.{2 if name.startswith('ssim') else 1}f}"
            for name, value in zip(BLOCK_COLUMNS, row, strict=True)
        )
        table.add_row(str(index + 1), *cells)
    table.caption = BLOCK_CAPTION
    return table


def _action_table(actions: Mapping[str, Any], vae_psnr: float) -> Table:
    table = Table(title="Following actions", title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, interval in actions["intervals_95"].items():
        form = ".2f" if name == "turn_size" else ".0%"
        values = (format(value, form) for value in (actions[name], *interval))
        table.add_row(name.replace("_", " "), next(values), " to ".join(values))
    table.add_row("VAE alone, held-out clips", f"{vae_psnr:.1f} dB", "")
    return table


def _key_table(keys: Mapping[str, Any]) -> Table:
    table = Table(title="Keys that show what they do", title_justify="left")
    table.add_column("key")
    table.add_column("right", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, (low, high) in keys["intervals_95"].items():
        table.add_row(name, f"{keys[name]:.0%}", f"{low:.0%} to {high:.0%}")
    table.caption = f"{keys['cases']} held-out cases of each key, against the simulator"
    return table


def _drift_table(drift: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title="Drift: first and last 5 s of a minute", title_justify="left")
    table.add_column("session")
    for name in DRIFT_COLUMNS:
        table.add_column(name, justify="right")
    for name, row in drift.items():
        for title, prefix in ((name, ""), ("simulator", "true_")):
            ends = ((row[f"{prefix}{end}_{key}"] for end in DRIFT_ENDS) for key in DRIFT_COLUMNS)
            table.add_row(title, *(", ".join(f"{value:.1f}" for value in pair) for pair in ends))
    real = next(iter(drift.values()))["real_sharpness"]
    sharp = ", ".join(f"{row['sharp']:.0%} {name}" for name, row in drift.items())
    table.caption = (
        f"real frames: distance 0, sharpness {real:.1f}; "
        f"sessions as sharp at the end as the simulator, within 20 %: {sharp}"
    )
    return table
