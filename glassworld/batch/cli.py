"""The command `glassworld batch`; heavy imports wait until it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.load_flags import with_load_flags

app = typer.Typer(rich_markup_mode="markdown")

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

EXAMPLES = """A job is a line of JSON:

- `{"image": "street.png", "actions": "w*48", "seed": 7, "world": "maze", "frames": 12, "id": "a"}`

Only `image` is required. `frames` are latent frames. `id` names the video. Paths start at the
folder of the jobs file.
"""


@app.command(epilog=EXAMPLES)
@with_load_flags()
def batch(
    load: LoadOptions,
    jobs: Annotated[Path, typer.Argument(help="A JSON Lines file with one job per line.")],
    output: Annotated[
        Path, typer.Option("--output", help="The folder for the videos and index.parquet.")
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes to render with. Default: one per core with --device cpu, else one. "
            "With --cluster, the most actors.",
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(min=1, help="CPU threads of each worker. Other numbers round otherwise."),
    ] = 1,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Render on Ray: RAY_ADDRESS, or this machine.")
    ] = False,
) -> None:
    """Turn a list of jobs into MP4 files and one index; render only what is missing.

    All rows are checked before anything starts. A failed job does not stop the others. Ctrl-C keeps
    what is done (exit code 130). The exit code is 1 if a job failed.
    """
    from glassworld.batch.run import BatchOptions, run_batch

    outcome = run_batch(BatchOptions(jobs, output, workers, threads, cluster, load))
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(1)
