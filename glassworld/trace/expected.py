"""Question 7: where the time goes in all, against what should be expected."""

from __future__ import annotations

from dataclasses import dataclass

from glassworld.profiling import registry as tags
from glassworld.trace.analysis import Analysis
from glassworld.trace.expectation import (
    Ceilings,
    Config,
    decode_parts,
    encode_flops,
    read_ceilings,
    run_config,
    transformer_pass,
    vision_flops,
)
from glassworld.trace.questions import duration

GUIDE_BLOCKS, GUIDE_STEPS = 50, 50
"""The original guide's run: 150 latent frames are 50 blocks of 3."""


@dataclass(frozen=True)
class Expected:
    """A row of the table. `gflop` and what follows from it are None where nothing is counted.

    `share` is of preparation, inference and post-processing together; `expected_share` is the
    same of the expected times (of the FLOPs, without ceilings); `roof_share` is how much of the
    ceiling the measured time reaches.
    """

    row: str
    measured_ms: float
    share: float
    gflop: float | None
    expected_ms: float | None
    expected_share: float | None
    roof_share: float | None
    guide: str


_ROWS = (
    ("data preparation", tags.DATA_PREPARATION, "about 1 %"),
    ("inference loop", tags.PIPELINE_INFERENCE, "98 %"),
    ("  cache initialisation", tags.CACHE_INIT, "< 0.1 %"),
    ("  denoising", tags.DENOISING_STEP, "60 %"),
    ("  VAE decode", tags.VAE_DECODE, "38 %"),
    ("  cache update", tags.UPDATE_CACHE, "2 %"),
    ("post-processing", tags.VIDEO_POSTPROCESSING, "< 1 %"),
)


def expected_table(analysis: Analysis) -> list[Expected]:
    """The rows of the table; empty for a trace that is not of the engine."""
    measured = {tag: float(duration(analysis, tag).sum()) for _, tag, _ in _ROWS}
    if not any(measured.values()):
        return []
    outer = (tags.DATA_PREPARATION, tags.PIPELINE_INFERENCE, tags.VIDEO_POSTPROCESSING)
    whole = sum(measured[tag] for tag in outer) or 1.0
    config = run_config(analysis.trace.metadata)
    ceilings = read_ceilings(config) if config else None
    work = _work(analysis, config) if config else {}
    times = {tag: _ideal_ms(flops, ceilings) for tag, flops in work.items()}
    sum_expected = times.get(tags.DATA_PREPARATION, 0) + times.get(tags.PIPELINE_INFERENCE, 0)
    made = []
    for name, tag, guide in _ROWS:
        known = tag in work
        ideal = times[tag] if known and ceilings else None
        made.append(
            Expected(
                row=name,
                measured_ms=measured[tag],
                share=measured[tag] / whole,
                gflop=sum(work[tag]) / 1e9 if known else None,
                expected_ms=ideal,
                expected_share=times[tag] / sum_expected if known and sum_expected else None,
                roof_share=ideal / measured[tag] if ideal and measured[tag] else None,
                guide=guide,
            )
        )
    return made


def guide_note(analysis: Analysis) -> str:
    """Why this run's shares differ from the guide's, where they do."""
    config = run_config(analysis.trace.metadata)
    if config is None:
        return ""
    steps = len(config["denoising_steps"])
    if steps == GUIDE_STEPS:
        return ""
    return (
        f"The guide's shares are those of {GUIDE_STEPS} steps; this run takes {steps}, so the "
        f"update pass is one of {steps + 1} passes: {100 / (steps + 1):.0f} % of the "
        "transformer's time, not 2 %."
    )


Work = tuple[float, float]
"""FLOPs in matrix products, FLOPs in convolutions."""


def _ideal_ms(work: Work, ceilings: Ceilings | None) -> float:
    """Time at the ceilings; without any, an arbitrary time proportional to the FLOPs."""
    products, convolutions = work
    if ceilings is None:
        return (products + convolutions) / 1e9
    return products / ceilings.matmul_gflops / 1e6 + convolutions / ceilings.conv_gflops / 1e6


def _work(analysis: Analysis, config: Config) -> dict[str, Work]:
    """FLOPs of each row, for the blocks that are in the trace."""
    tree = analysis.tree
    per_block, window = config["frames_per_block"], config["window"]
    steps = tree.dims["block"][tree.where(tags.DENOISING_STEP)].tolist()
    updates = tree.dims["block"][tree.where(tags.UPDATE_CACHE)].tolist()
    decodes = tree.dims["block"][tree.where(tags.VAE_DECODE)].tolist()

    def passes(blocks: list[int]) -> Work:
        seen = [min(window, (block + 1) * per_block) for block in blocks]
        cost = {n: transformer_pass(config, n).total for n in set(seen)}
        return sum(cost[n] for n in seen), 0.0

    first, later = (sum(decode_parts(config, first=f).values()) for f in (True, False))
    frames = per_block * len(decodes)
    decode = later * frames - (later - first if 0 in decodes else 0.0)
    denoise, update = passes(steps), passes(updates)
    one, four = (encode_flops(config, first=f) for f in (True, False))
    encode = four * per_block * len(tree.where(tags.CONDITION_ENCODE))
    work: dict[str, Work] = {
        tags.DENOISING_STEP: denoise,
        tags.UPDATE_CACHE: update,
        tags.VAE_DECODE: (0.0, decode),
        tags.PIPELINE_INFERENCE: (denoise[0] + update[0], decode + encode),
    }
    if len(tree.where(tags.VAE_ENCODE)):
        work[tags.DATA_PREPARATION] = (vision_flops(config), one + four * (per_block - 1))
    return work
