"""Recorded videos: each beside a file of the actions that its player gave, with the same stem.

    recordings/walk-1.mp4    recordings/walk-1.csv
    recordings/walk-2.mkv    recordings/walk-2.json

An action file has one row per frame of its video; `docs/actions.md` shows the formats. Video and
actions are brought to the frame rate of the world: a content frame is the nearest frame of the
video. What was pressed at any time since the content frame before counts as pressed, and the mouse
moves by the mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glassworld.engine.actions.files import SUFFIXES, load_actions
from glassworld.engine.actions.track import ActionSpace, ActionTrack
from glassworld.engine.media.images import crop_and_resize
from glassworld.engine.variants.registry import ACTION_SPACES, action_space
from glassworld.errors import ActionError, ActionModeError, InputError
from glassworld.training.sources.source import Frame, WorldFormat

SLOWEST = 0.95
"""Of the world's frame rate: a slower video would have to repeat frames."""


class FrameTimes(NamedTuple):
    """When a video shows its frames.

    Attributes
    ----------
    seconds
        Of each frame, in the order shown; the first is 0.
    stamps
        Time stamps in the file, in the same order; None where it has none.
    """

    seconds: NDArray[np.float64]
    stamps: NDArray[np.int64] | None


@dataclass(frozen=True)
class RecordedVideo:
    """A video and its actions at the frame rate of the world.

    Parameters
    ----------
    path
        The video.
    times
        When it shows its frames.
    shown
        Number of the video's frame for each content frame, not decreasing.
    track
        Actions with one row per content frame: what was held until it was shown.
    """

    path: Path
    times: FrameTimes
    shown: NDArray[np.intp]
    track: ActionTrack

    def episodes(self, length: int) -> int:
        """Return the number of episodes of `length` content frames; neighbors share a frame."""
        return (len(self.shown) - 1) // (length - 1)

    def decode(self, height: int, width: int) -> Iterator[Frame]:
        """Yield the content frames, uint8 [height, width, 3], one after another.

        Raises
        ------
        InputError
            The video is damaged. The frames before are good.
        """
        position = 0
        for number, frame, pixel_aspect in self._decode_all():
            if position == len(self.shown):
                return
            if self.shown[position] > number:
                continue
            if self.shown[position] < number:
                break
            fitted = np.asarray(crop_and_resize(_as_shown(frame, pixel_aspect), height, width))
            while position < len(self.shown) and self.shown[position] == number:
                yield fitted
                position += 1
        if position < len(self.shown):
            raise InputError(f"damaged after {self._seconds(position):.1f} s; use another copy")

    def _decode_all(self) -> Iterator[tuple[int, av.VideoFrame, Fraction]]:
        """Yield the frames that can be decoded: number, frame, width of a pixel by its height."""
        stamps = self.times.stamps
        try:
            with _open_video(self.path) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
                for count, frame in enumerate(container.decode(stream)):
                    if stamps is None:
                        yield count, frame, pixel_aspect
                    elif frame.pts is not None:
                        yield int(np.searchsorted(stamps, frame.pts)), frame, pixel_aspect
        except av.FFmpegError:
            return

    def _seconds(self, position: int) -> float:
        return float(self.times.seconds[self.shown[position]])


def find_videos(folder: Path) -> list[Path]:
    """Return all files of a folder but hidden ones and action files, sorted.

    Raises
    ------
    InputError
        There is no such folder, or nothing is in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of recordings; name one that is there")
    videos = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix.lower() not in SUFFIXES and path.name[0] != "."
    ]
    if not videos:
        raise InputError(f"{folder}: holds no videos; put each beside its actions, a.mp4 and a.csv")
    return videos


def recordings_mode(folder: Path, wanted: str | None = None) -> str:
    """Return the mode that most action files of a folder fit, or at least have the columns of.

    Parameters
    ----------
    folder
        The recordings.
    wanted
        Mode of the world to be trained. None takes the mode of the recordings.

    Raises
    ------
    InputError
        The recordings are of another mode than the world, or fit several modes equally well, or
        there is no action file.
    """
    if wanted is not None:
        action_space(wanted)
    fitting = dict.fromkeys(ACTION_SPACES, 0)
    meant = dict.fromkeys(ACTION_SPACES, 0)
    for video in find_videos(folder):
        for path in _action_files(video):
            for mode, space in ACTION_SPACES.items():
                problem = _problem(path, space)
                fitting[mode] += problem is None
                meant[mode] += not isinstance(problem, ActionModeError)
    most = max(fitting.values())
    if not most:  # `read_recordings` names each file's problem
        return wanted or max(meant, key=meant.__getitem__)
    best = [mode for mode in fitting if fitting[mode] == most]
    if wanted is not None and wanted not in best:
        raise InputError(
            f"{folder}: recordings of mode {best[0]}, but the world's mode is {wanted}; choose "
            f"another world, or recordings of {wanted}"
        )
    if wanted is None and len(best) > 1:
        raise InputError(
            f"{folder}: the actions fit {' and '.join(best)}; name one of them with --mode"
        )
    return wanted or best[0]


def _problem(path: Path, space: ActionSpace) -> ActionError | None:
    try:
        load_actions(path, space)
    except ActionError as problem:
        return problem
    return None


def _action_files(video: Path) -> list[Path]:
    files = (video.with_suffix(suffix) for suffix in SUFFIXES)
    return [path for path in files if path.is_file()]


def read_recordings(folder: Path, format: WorldFormat, length: int) -> list[RecordedVideo]:
    """Check the recordings of a folder without decoding them; name and skip what does not fit.

    Parameters
    ----------
    folder
        Videos and action files.
    format
        Mode and frame rate of the world.
    length
        Content frames per episode.

    Raises
    ------
    InputError
        Nothing is left.
    """
    videos = find_videos(folder)
    recordings: list[RecordedVideo] = []
    for video in videos:
        try:
            recording = _read_recording(video, format, length)
            for other in recordings:
                if other.path.stem == video.stem:
                    raise InputError(f"its actions are those of {other.path.name} too; keep one")
            recordings.append(recording)
        except InputError as problem:
            print(f"skipped {video.name}: {problem}")
    if not recordings:
        raise InputError(f"{folder}: none of {len(videos)} videos can be used; see above")
    minutes = sum(recording.times.seconds[-1] for recording in recordings) / 60
    episodes = sum(recording.episodes(length) for recording in recordings)
    print(
        f"recordings: {len(recordings)} of {len(videos)} videos, {minutes:.1f} minutes, "
        f"{episodes} episodes of {length} frames, mode {format.mode}"
    )
    return recordings


def _read_recording(video: Path, format: WorldFormat, length: int) -> RecordedVideo:
    """Read one video's frame times and actions; raise `InputError` if they do not fit."""
    actions = _action_files(video)
    if not actions:
        names = ", ".join(f"{video.stem}{suffix}" for suffix in SUFFIXES)
        raise InputError(f"no actions beside it; looked for {names}; put one there")
    if len(actions) > 1:
        names = " and ".join(path.name for path in actions)
        raise InputError(f"more than one action file, {names}; keep one")
    times = read_frame_times(video)
    track = load_actions(actions[0], format.space)
    count, seconds = len(times.seconds), float(times.seconds[-1])
    if len(track) != count:
        raise InputError(
            f"{count} frames, but {actions[0].name} has {len(track)} rows; write one row per frame"
        )
    needed = (length - 1) / format.frame_rate
    if seconds < needed:
        raise InputError(f"lasts {seconds:.1f} s; an episode takes {needed:.1f} s")
    frame_rate = (count - 1) / seconds
    if frame_rate < SLOWEST * format.frame_rate:
        raise InputError(f"{frame_rate:.3g} frames a second; {format.frame_rate} are needed")
    shown = _nearest_frames(times.seconds, format.frame_rate)
    track = _resample(track.fitted(format.space, count), shown, format.space)
    return RecordedVideo(video, times, shown, track)


def read_frame_times(video: Path) -> FrameTimes:
    """Read when a video shows its frames, without decoding them.

    Raises
    ------
    InputError
        It is unreadable or holds no frames.
    """
    try:
        with _open_video(video) as container:
            if not container.streams.video:
                raise InputError("holds no video; move it elsewhere")
            stream = container.streams.video[0]
            packets = [packet.pts for packet in container.demux(stream) if _shows_frame(packet)]
            time_base, frame_rate = stream.time_base, stream.average_rate
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"not readable as a video: {reason}; convert it to MP4") from None
    stamps = np.unique([stamp for stamp in packets if stamp is not None]).astype(np.int64)
    if len(packets) and len(stamps) == len(packets):
        return FrameTimes((stamps - stamps[0]) * float(time_base), stamps)
    if not packets or not frame_rate:
        raise InputError("its frames have no times; convert it to MP4")
    return FrameTimes(np.arange(len(packets)) / float(frame_rate), None)


def _shows_frame(packet: av.Packet) -> bool:
    """Tell whether a packet is a frame that players show, and not one that was trimmed off."""
    return packet.size > 0 and not packet.is_discard


def _open_video(path: Path) -> av.container.InputContainer:
    # Absolute: to FFmpeg, what a relative path has before a colon is a protocol.
    return av.open(str(path.absolute()))


def _as_shown(frame: av.VideoFrame, pixel_aspect: Fraction) -> Image.Image:
    """Return a frame as players show it: with square pixels, and upright as phones held it."""
    image: Image.Image = frame.to_image()
    if pixel_aspect != 1:
        image = image.resize((max(1, round(image.width * pixel_aspect)), image.height))
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _nearest_frames(seconds: NDArray[np.float64], frame_rate: float) -> NDArray[np.intp]:
    """Return the number of the nearest frame for every content frame."""
    rounding = 1e-3  # of a content frame; half way between two frames the first one counts
    count = int(seconds[-1] * frame_rate + rounding) + 1
    halfway = (seconds[1:] + seconds[:-1]) / 2
    return np.searchsorted(halfway, (np.arange(count) - rounding) / frame_rate)


def _resample(track: ActionTrack, shown: NDArray[np.intp], space: ActionSpace) -> ActionTrack:
    """Return what was held between the content frames.

    A key counts by the most that it was pressed, the mouse by its mean. Where keys exclude each
    other, the one that was held longest beside the idle one counts.
    """
    numbers, which = np.unique(shown, return_inverse=True)
    starts = np.concatenate([numbers[:1], numbers[:-1] + 1])
    rows = slice(0, int(numbers[-1]) + 1)
    keyboard = np.maximum.reduceat(track.keyboard[rows], starts)
    if space.idle:
        held = np.add.reduceat(track.keyboard[rows], starts)
        held[:, space.keyboard.index(space.idle)] = 1e-6
        keyboard = np.eye(len(space.keyboard), dtype=np.float32)[held.argmax(1)]
    mouse = None
    if track.mouse is not None:
        lengths = np.diff(np.append(starts, rows.stop))[:, None]
        mouse = (np.add.reduceat(track.mouse[rows], starts) / lengths).astype(np.float32)[which]
    return ActionTrack(keyboard[which], mouse)
