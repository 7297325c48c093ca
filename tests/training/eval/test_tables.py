"""The tables of an evaluation, as a terminal shows them."""

from io import StringIO
from typing import Any

from rich.console import Console

from glassworld.training.eval.tables import BLOCK_TABLES, score_tables

ROW = dict.fromkeys(
    (f"{end}_{name}" for end in ("first", "last") for name in ("distance", "sharpness", "motion")),
    12.3,
)


def test_score_tables_show_every_number_whole_in_80_columns() -> None:
    names = [name for columns in BLOCK_TABLES.values() for name in columns]
    minute = {**ROW, **{f"true_{name}": 12.3 for name in ROW}, "real_sharpness": 2.0, "sharp": 1.0}
    scores: dict[str, dict[str, Any]] = {
        "vae": {"psnr": 29.1},
        "blocks": {name: [-28.43] * 9 + [None] for name in names},
        "actions": {"turn_size": 0.9, "intervals_95": {"turn_size": [0.8, 1.1]}},
        "keys": {"jump": 0.9, "cases": 64, "intervals_95": {"jump": [0.8, 0.95]}},
        "drift": {"playing": minute, "standing": minute},
    }
    output = StringIO()
    console = Console(file=output, width=80)
    for table in score_tables(scores):
        console.print(table)
    text = output.getvalue()
    assert "…" not in text
    assert text.count("-28.4") == 9 * len(names)
