"""`glassworld generate`: from options to videos, a trace and a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from rich.console import Console
from torch import Tensor

from glassworld.engine.acceleration.parts import hint
from glassworld.engine.actions.files import (
    MAX_FRAMES,
    RecordedNoise,
    covered_frames,
    load_actions,
    recorded_noise,
)
from glassworld.engine.actions.track import ActionTrack
from glassworld.engine.arguments import default_length
from glassworld.engine.checkpoint.load import check_choices, load_from
from glassworld.engine.checkpoint.locate import EMBEDDED, LocatedWorld, is_on_hub, locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.media.images import MIN_SIDE, load_start_image
from glassworld.engine.media.latents import LatentsWriter, load_latents, read_latents
from glassworld.engine.media.overlay import draw_keys
from glassworld.engine.media.video import VideoWriter
from glassworld.engine.rollout import BlockReport
from glassworld.engine.session import Session
from glassworld.engine.session_file import check_light, read_header
from glassworld.engine.variants.registry import VARIANTS, action_space
from glassworld.engine.world import World
from glassworld.errors import ActionError, InputError, TraceError
from glassworld.files import DiskFullError, check_file, writable_file, writable_folder
from glassworld.profiling import registry as tags
from glassworld.profiling.capture import Capture, check_mode, profile
from glassworld.profiling.tags import tag
from glassworld.progress import BlockProgress, Interrupt, show_activity

if TYPE_CHECKING:
    from glassworld.profiling.capture import Mode

VIDEO, KEYS_VIDEO, TRACE = "demo.mp4", "demo_icon.mp4", "profile_trace.json"


@dataclass(frozen=True)
class GenerateOptions:
    """The flags of the command line; see its help for each."""

    load: LoadOptions = field(default_factory=LoadOptions)
    img_path: Path | None = None
    actions: str | None = None
    num_output_frames: int | None = None
    seed: int | None = None
    initial_latents: Path | None = None
    output_folder: Path = Path("outputs")
    save_latents: Path | None = None
    resume: Path | None = None
    save_session: Path | None = None
    light: bool = False
    enable_profile: bool = False
    profile_mode: str | None = None
    profile_blocks: str | None = None


def generate_video(options: GenerateOptions) -> bool:
    """Generate the videos and print a summary; return False if Ctrl-C ended the run early.

    Raises `InputError` for bad input: flags, paths, image, actions and latents before any
    weights are downloaded or read, and the weights before the first block.
    """
    console = Console()
    _check_flags(options)
    if is_on_hub(options.load):
        _check_files(options)
    located = locate_world(options.load)
    inputs = _check_inputs(options, located)
    with _memory_errors(), show_activity(console, "loading the world"):
        world = load_from(options.load, located)
        source = _Source(world, None if options.resume is None else world.resume(options.resume))
    advice = hint(world.device, options.load.accelerate, options.load.dtype)
    for note in filter(None, (world.note, advice)):
        console.print(note, highlight=False, soft_wrap=True)
    if options.load.random_weights:
        console.print("untrained weights: the video is noise, the timings are real")
    writable_folder(options.output_folder)  # not before: bad input creates no folder
    for path in filter(None, (options.save_latents, options.save_session)):
        writable_file(path)
    capture = None
    with ExitStack() as stack:
        stack.enter_context(_memory_errors())
        latents = None
        if options.save_latents is not None:
            latents = stack.enter_context(LatentsWriter(options.save_latents))
        with ExitStack() as profiled:
            if options.enable_profile:
                mode = cast("Mode", options.profile_mode or "full")
                trace = options.output_folder / TRACE
                capture = profiled.enter_context(profile(trace, mode, inputs.recorded))
            run = _generate(console, options, inputs, source, latents, capture)
        if run.failure is not None:
            raise run.failure
    if options.save_session is not None:
        assert source.session is not None
        source.session.save(options.save_session, options.light)
    _print_summary(console, options, run, capture)
    return run.blocks == run.total


@dataclass
class _Run:
    """How far a run is, how long it took, and why it cannot go on."""

    total: int  # blocks
    blocks: int = 0
    first_block: float = 0.0  # seconds from the start image to the first frames
    later_frames: int = 0  # without the first block's
    later_seconds: float = 0.0  # to generate them, decoding included
    failure: DiskFullError | None = None

    def add(self, report: BlockReport, seconds: float) -> None:
        """Count a block, `seconds` after the run began."""
        if self.blocks:
            self.later_frames += len(report.frames)
            self.later_seconds += report.seconds
        else:
            self.first_block = seconds
        self.blocks += 1


class _Source:
    """Where blocks come from: a new session of a world, or a saved one that goes on."""

    def __init__(self, world: World, session: Session | None) -> None:
        self.world, self.session = world, session

    def reports(
        self, options: GenerateOptions, inputs: _Inputs, stop: Callable[[], bool]
    ) -> Generator[BlockReport]:
        """Yield the blocks of a run, until `stop` returns True before one of them."""
        if self.session is not None:
            session, frames = self.session, inputs.latent_frames
            return session.stream(frames, inputs.actions, lambda _: stop())
        assert inputs.image is not None

        def note_session(session: Session) -> bool:
            self.session = session
            return stop()

        return self.world.stream(
            inputs.image,
            inputs.latent_frames,
            inputs.noise.seed if options.seed is None else options.seed,
            inputs.actions,
            inputs.initial,
            inputs.noise.mode,
            note_session,
        )


def _generate(
    console: Console,
    options: GenerateOptions,
    inputs: _Inputs,
    source: _Source,
    latents: LatentsWriter | None,
    capture: Capture | None,
) -> _Run:
    """Generate and write block by block, until the last one, Ctrl-C or a full disk.

    The videos of the blocks until then are kept, unless it is they that the disk does not hold.
    """
    began, run = time.perf_counter(), _Run(inputs.blocks)
    with ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt(console))
        progress = stack.enter_context(BlockProgress(console, inputs.blocks))
        videos = _Videos(options.output_folder, source.world, stack.enter_context(ExitStack()))
        # Not before the first block: a video needs a frame.
        reports = source.reports(options, inputs, lambda: interrupt.asked and run.blocks > 0)
        with closing(reports):  # its tag ends before those of the videos begin
            for report in reports:
                run.add(report, time.perf_counter() - began)
                progress.block(report)
                # A trace shows the world alone, and then the videos.
                videos.add(report, later=capture is not None and capture.running)
                try:
                    _save_latents(latents, report, inputs.initial)
                except DiskFullError as error:
                    run.failure = error
                if run.failure is not None:
                    break
        progress.stage("writing videos")
        videos.finish()
    return run


def _save_latents(
    latents: LatentsWriter | None, report: BlockReport, initial: Tensor | None
) -> None:
    """Write a block's latents, if wanted, the first one's after those it goes on from."""
    if latents is not None:
        if report.index == 0 and initial is not None:
            latents.write(initial.float())
        latents.write(report.latents)


class _Videos:
    """The videos of a run, without keys and with them, written as its blocks come.

    They appear with `finish`; if `files` is closed by an exception before, nothing is written.
    """

    def __init__(self, folder: Path, world: World, files: ExitStack) -> None:
        self._space, self._files = world.space, files
        self._plain, self._with_keys = (
            files.enter_context(VideoWriter(folder / name, world.spec.frame_rate))
            for name in (VIDEO, KEYS_VIDEO)
        )
        self._waiting: list[BlockReport] = []

    def add(self, report: BlockReport, later: bool) -> None:
        """Write a block's frames after those that wait, or let them wait too."""
        self._waiting.append(report)
        if not later:
            self._write()

    def finish(self) -> None:
        """Write the frames that wait, and finish the files."""
        self._write(self._files.close)

    def _write(self, finish: Callable[[], None] = lambda: None) -> None:
        with tag(tags.VIDEO_POSTPROCESSING):
            drawn = [draw_keys(each.frames, each.actions, self._space) for each in self._waiting]
        with tag(tags.VIDEO_EXPORT):
            for report, with_keys in zip(self._waiting, drawn, strict=True):
                self._plain.write(report.frames)
                self._with_keys.write(with_keys)
            finish()
        self._waiting.clear()


def _check_flags(options: GenerateOptions) -> None:
    """Raise `InputError` for an unknown choice, a flag without effect or an unwritable path."""
    check_choices(options.load)
    if options.profile_mode is not None:
        check_mode(options.profile_mode)
    for name in ("profile_mode", "profile_blocks"):
        if getattr(options, name) is not None and not options.enable_profile:
            raise InputError(
                f"{name}: has no effect without --enable-profile; give both or neither"
            )
    if options.light and options.save_session is None:
        raise InputError("light: has no effect without --save-session; give both or neither")
    for name in ("img_path", "seed", "initial_latents"):
        if getattr(options, name) is not None and options.resume is not None:
            raise InputError(f"{name}: a resumed session has its own; leave it out")
    own = [options.output_folder / name for name in (VIDEO, KEYS_VIDEO, TRACE)]
    named = list(filter(None, (options.save_latents, options.save_session)))
    for path in (*own, *named):
        check_file(path)
    for index, path in enumerate(named):
        if path.resolve() in {other.resolve() for other in (*own, *named[:index])}:
            raise InputError(f"{path}: this run writes another file of that name; choose another")


def _check_files(options: GenerateOptions) -> None:
    """Read the inputs of a run whose world is unknown still; raises `InputError`.

    Actions must fit the variant, or any of them where none is named.
    """
    if options.img_path is not None:
        load_start_image(options.img_path, MIN_SIDE, MIN_SIDE)
    if options.initial_latents is not None:
        load_latents(options.initial_latents)
    if options.resume is not None:
        read_header(options.resume)
    if options.actions is not None:
        named = options.load.variant
        variants = [VARIANTS[named]] if named in VARIANTS else list(VARIANTS.values())
        refused: list[ActionError] = []
        for variant in variants:
            try:
                load_actions(options.actions, variant.space)
            except ActionError as error:
                refused.append(error)
        if len(refused) == len(variants):
            raise refused[0]


@dataclass(frozen=True)
class _Inputs:
    """Checked inputs of a run."""

    image: Path | None  # None: a session goes on
    latent_frames: int
    blocks: int
    actions: ActionTrack | None
    initial: Tensor | None
    recorded: tuple[int, int] | None
    noise: RecordedNoise


def _check_inputs(options: GenerateOptions, located: LocatedWorld) -> _Inputs:
    """Read and check the inputs of a run; raises `InputError`."""
    spec = located.spec
    space = action_space(spec.mode)
    if options.light:
        check_light(spec)
    saved = None if options.resume is None else read_header(options.resume)
    image = None
    if saved is None:
        image = options.img_path or _sample_image(located.folder)
        load_start_image(image, spec.height, spec.width)
    initial = read_latents(options.initial_latents, spec)
    initial_frames = 0 if initial is None else initial.shape[2]
    # Rows of actions before the new frames' own, and latent frames that are there already.
    before, earlier = 0, initial_frames
    if saved is not None:
        before, earlier = spec.pixel_frames(saved.start), saved.start
    actions, noise = None, RecordedNoise(None, "run")
    if options.actions is not None:
        actions = load_actions(options.actions, space)
        noise = recorded_noise(options.actions)
    frames = options.num_output_frames
    if frames is None and actions is not None:
        frames = covered_frames(len(actions), earlier, spec, before)
    elif frames is None:
        frames = (saved.frames_left if saved else 0) or default_length(spec)
    if frames <= 0 or frames % spec.frames_per_block:
        raise InputError(
            f"num_output_frames {frames}: must be a positive multiple of the "
            f"{spec.frames_per_block} latent frames of a block"
        )
    pixels = spec.pixel_frames(earlier + frames)
    if pixels > MAX_FRAMES:
        raise InputError(
            f"num_output_frames {frames}: that is {pixels} pixel frames; "
            f"ask for fewer, a run has at most {MAX_FRAMES}"
        )
    if actions is not None:
        actions = actions.fitted(space, pixels - before)
    blocks = frames // spec.frames_per_block
    first = 0 if saved is None else saved.block
    recorded = _block_range(options.profile_blocks, range(first, first + blocks))
    return _Inputs(image, frames, blocks, actions, initial, recorded, noise)


def _sample_image(folder: Path | None) -> Path:
    """Return the first start image of a world's folder, or else of the embedded world."""
    folders = (EMBEDDED,) if folder is None else (folder, EMBEDDED)
    samples = [path for root in folders for path in sorted((root / "pictures").glob("*.png"))]
    if not samples:
        raise InputError("img_path: needed, because this installation has no sample images")
    return samples[0]


def _block_range(text: str | None, blocks: range) -> tuple[int, int] | None:
    """Return the blocks to profile, of those of a run, by their numbers in the session."""
    if text is None:
        return None
    try:
        first, end = map(int, text.split(":"))
    except ValueError:
        first = end = 0
    if not 0 <= first < end:
        raise InputError(f"profile_blocks {text!r:.80}: must be A:B with 0 <= A < B")
    if first >= blocks.stop or end <= blocks.start:
        raise InputError(
            f"profile_blocks {text!r:.80}: this run has blocks {blocks.start} to {blocks.stop - 1}"
        )
    return first, end


def _print_summary(
    console: Console,
    options: GenerateOptions,
    run: _Run,
    capture: Capture | None,
) -> None:
    """Print where the files are, how fast the run was, and what to look at next."""
    folder = options.output_folder
    traced = capture is not None and capture.written

    def line(name: str, text: object) -> None:
        console.print(f"{name:<12} {text}", highlight=False, soft_wrap=True, markup=False)

    report = _report(console, folder / TRACE) if traced else ""
    if run.blocks < run.total:
        line("ended", f"after block {run.blocks} of {run.total}; the videos until then are kept")
    line("video", folder / VIDEO)
    line("with keys", folder / KEYS_VIDEO)
    if options.save_latents is not None:
        line("latents", options.save_latents)
    if options.save_session is not None:
        line("session", options.save_session)
    if traced:
        line("trace", folder / TRACE)
        line("report", report)
    elif capture is not None:
        earlier = f"; {folder / TRACE} is from an earlier run" if (folder / TRACE).exists() else ""
        line("trace", f"none: the run ended before blocks {options.profile_blocks}{earlier}")
    line("first block", f"{run.first_block:.2f} s from the start image to the first frames")
    if run.later_frames:
        rate = run.later_frames / run.later_seconds
        speed = f"{rate:.1f} frames per second after the first block, decoding included"
        line("speed", f"{speed}, while profiling" if traced else speed)
    if traced:
        line("next", "open the report in a browser, or the trace at https://ui.perfetto.dev")
        line("", "or in chrome://tracing; more: glassworld trace --help")
    else:
        line("next", f"open {folder / KEYS_VIDEO}; --enable-profile shows where the time goes")


def _report(console: Console, trace: Path) -> str:
    """Write the trace's report beside it, print its top and return its path or the reason."""
    from glassworld.trace import analyze
    from glassworld.trace.report.html.page import page_path, write_page
    from glassworld.trace.report.terminal import show_top

    try:
        with show_activity(console, "writing the report"):
            analysis = analyze(trace)
            write_page(page_path(trace), analysis)
    except TraceError as error:
        return f"not written: {error}"
    show_top(console, analysis)
    return str(page_path(trace))


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn running out of memory into an `InputError` with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(
            error
        ):
            reason = str(error).splitlines()[0] if str(error) else "allocation failed"
            raise InputError(
                f"out of memory ({reason}); try --dtype bfloat16, a smaller world or fewer frames"
            ) from None
        raise
