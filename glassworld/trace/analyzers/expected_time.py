"""Question 7: where the time goes in all, against what should be expected."""

from __future__ import annotations

from dataclasses import dataclass

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers import flops as work
from glassworld.trace.analyzers.breakdown import count, total_ms
from glassworld.trace.analyzers.flops import NOTHING, Config, Work
from glassworld.trace.analyzers.peak_rates import bytes_per_number, read_ceilings, run_config
from glassworld.trace.timeline.analysis import Analysis

GUIDE_BLOCKS, GUIDE_STEPS = 50, 50
"""The original guide's run: 150 latent frames are 50 blocks of 3."""


@dataclass(frozen=True)
class Expected:
    """A row of the table; work and what follows from it are None without a configuration.

    In a trace of a few blocks, which lacks the loop's own tag, the loop is the sum of its parts.
    `share` is of preparation, inference and post-processing together; `expected_share` is the
    same of the expected times (of the FLOPs, without ceilings); `roof_share` is how much of the
    ceiling the measured time reaches.
    """

    row: str
    tag: str
    measured_ms: float
    share: float
    gflop: float | None
    expected_ms: float | None
    expected_share: float | None
    roof_share: float | None
    guide: str


_OUTER = (tags.DATA_PREPARATION, tags.PIPELINE_INFERENCE, tags.VIDEO_POSTPROCESSING)
_IN_LOOP = (
    tags.CACHE_INIT,
    tags.CONDITION_ENCODE,
    tags.DENOISING_STEP,
    tags.VAE_DECODE,
    tags.UPDATE_CACHE,
)
_ROWS = (
    ("data preparation", tags.DATA_PREPARATION, "about 1 %"),
    ("inference loop", tags.PIPELINE_INFERENCE, "98 %"),
    ("  cache initialisation", tags.CACHE_INIT, "< 0.1 %"),
    ("  condition encode", tags.CONDITION_ENCODE, ""),
    ("  denoising", tags.DENOISING_STEP, "60 %"),
    ("  VAE decode", tags.VAE_DECODE, "38 %"),
    ("  cache update", tags.UPDATE_CACHE, "2 %"),
    ("post-processing", tags.VIDEO_POSTPROCESSING, "< 1 %"),
)


def expected_table(analysis: Analysis) -> list[Expected]:
    """The rows of the table; empty for a trace that is not of the engine."""
    measured = {tag: total_ms(analysis, tag) for _, tag, _ in _ROWS}
    if not any(measured.values()):
        return []
    if not measured[tags.PIPELINE_INFERENCE]:
        measured[tags.PIPELINE_INFERENCE] = sum(measured[tag] for tag in _IN_LOOP)
    config = run_config(analysis.trace.metadata)
    ceilings = read_ceilings(analysis.trace.metadata)
    done = run_work(analysis, config) if config else {}
    ideal = {tag: sum(w.flops for w in parts) for tag, parts in done.items()}
    if config and ceilings:
        size = bytes_per_number(config)
        ideal = {t: sum(ceilings.ideal_ms(w, size) for w in parts) for t, parts in done.items()}
    whole = sum(measured[tag] for tag in _OUTER)
    sum_ideal = sum(ideal.get(tag, 0.0) for tag in _OUTER) or 1.0
    made = []
    for name, tag, guide in _ROWS:
        ms, expected = measured[tag], ideal[tag] if tag in ideal and ceilings else None
        made.append(
            Expected(
                row=name,
                tag=tag,
                measured_ms=ms,
                share=ms / whole,
                gflop=sum(w.flops for w in done[tag]) / 1e9 if tag in done else None,
                expected_ms=expected,
                expected_share=ideal[tag] / sum_ideal if tag in ideal else None,
                roof_share=expected / ms if expected is not None and ms else None,
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
        f"update pass is one of {steps + 1} passes: up to {100 / (steps + 1):.0f} % of the "
        "transformer's time, not 2 %."
    )


def frames_seen(analysis: Analysis, config: Config, pattern: str) -> dict[int, int]:
    """How many latent frames a pass sees, and how many instances of `pattern` see so many."""
    seen: dict[int, int] = {}
    for block, instances in analysis.numbered[pattern, "block"].items():
        frames = min(config["window"], (block + 1) * config["frames_per_block"])
        seen[frames] = seen.get(frames, 0) + instances.count
    return seen


def passes(analysis: Analysis, config: Config) -> tuple[dict[str, Work], dict[str, Work]]:
    """The work of all denoising passes in the trace and of all update passes, by tag."""
    made = []
    for pattern, one in (
        (tags.DENOISING_STEP, work.transformer_pass),
        (tags.UPDATE_CACHE, work.update_pass),
    ):
        parts: dict[str, Work] = {}
        for frames, times in frames_seen(analysis, config, pattern).items():
            for tag, done in one(config, frames).items():
                parts[tag] = parts.get(tag, NOTHING) + done * times
        made.append(parts)
    return made[0], made[1]


def decodes(analysis: Analysis, config: Config) -> dict[str, Work]:
    """The work of all decoded latent frames in the trace, by tag."""
    blocks = analysis.numbered[tags.VAE_DECODE, "block"]
    clips = blocks[0].count if 0 in blocks else 0
    frames = config["frames_per_block"] * count(analysis, tags.VAE_DECODE)
    first, later = work.decode_frame(config, first=True), work.decode_frame(config, first=False)
    return {tag: first[tag] * clips + later[tag] * (frames - clips) for tag in later}


def run_work(analysis: Analysis, config: Config) -> dict[str, list[Work]]:
    """What each row had to do, in parts that each have a ceiling of their own."""
    denoise, update = (list(parts.values()) for parts in passes(analysis, config))
    decode = list(decodes(analysis, config).values())
    one, four = (work.encode_frames(config, first=first) for first in (True, False))
    blocks = config["frames_per_block"]

    def ran(tag: str) -> int:
        return count(analysis, tag)

    encode = [four * (blocks * ran(tags.CONDITION_ENCODE))]
    initialise = [work.cache_initialisation(config) * ran(tags.CACHE_INIT)]
    prepare = work.vision(config) * ran(tags.VISUAL_CONTEXT)
    first_encode = (one + four * (blocks - 1)) * ran(tags.VAE_ENCODE)
    pictures = 2 * work.pixel_bytes(config) / bytes_per_number(config)  # read once, written once
    return {
        tags.DATA_PREPARATION: [prepare, first_encode],
        tags.PIPELINE_INFERENCE: [*initialise, *encode, *denoise, *decode, *update],
        tags.CACHE_INIT: initialise,
        tags.CONDITION_ENCODE: encode,
        tags.DENOISING_STEP: denoise,
        tags.VAE_DECODE: decode,
        tags.UPDATE_CACHE: update,
        tags.VIDEO_POSTPROCESSING: [Work(numbers=pictures) * ran(tags.VIDEO_POSTPROCESSING)],
    }
