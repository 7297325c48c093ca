"""The scores of a world as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

BLOCK_TABLES = {
    "PSNR against the source, dB, by second": {
        "psnr": "world",
        "psnr_95": "±",
        "psnr_start_picture": "repeated",
        "psnr_wrong_actions": "mismatched",
        "psnr_gain": "gain",
        "psnr_gain_95": "±",
    },
    "The same over the starts whose view moves": {
        "psnr_moving": "world",
        "psnr_start_picture_moving": "repeated",
        "psnr_wrong_actions_moving": "mismatched",
    },
    "SSIM against the source, by second": {
        "ssim": "world",
        "ssim_95": "±",
        "ssim_start_picture": "repeated",
        "ssim_wrong_actions": "mismatched",
    },
}
"""Titles of the columns by score: each table fits a terminal of 80 columns."""
BLOCK_CAPTION = (
    "±: half the 95 % interval; repeated: the start image, repeated; mismatched: the world under "
    "the opposite actions; gain: over the repeated image"
)
DRIFT_COLUMNS = ("distance", "sharpness", "motion")
DRIFT_ENDS = ("first", "last")


def score_tables(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """Yield the tables of what `evaluate_world` measured."""
    tables = [_block_table(title, scores["blocks"]) for title in BLOCK_TABLES]
    tables[-1].caption = BLOCK_CAPTION
    yield from tables
    yield _action_table(scores["actions"], float(scores["vae"]["psnr"]))
    if "keys" in scores:
        yield _key_table(scores["keys"])
    yield _drift_table(scores["drift"])


def _block_table(title: str, blocks: Mapping[str, list[float | None]]) -> Table:
    columns = BLOCK_TABLES[title]
    digits = 2 if "ssim" in columns else 1
    table = Table(title=title, title_justify="left")
    table.add_column("second", justify="right")
    for column in columns.values():
        table.add_column(column, justify="right")
    for index, row in enumerate(zip(*(blocks[name] for name in columns), strict=True)):
        cells = ("-" if value is None else f"{value:.{digits}f}" for value in row)
        table.add_row(str(index + 1), *cells)
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
