"""Cut recorded videos into shards of episodes, as collected episodes are."""

import hashlib
import json
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from glassworld.engine.actions.track import ActionTrack
from glassworld.errors import InputError
from glassworld.files import replacing, write_file
from glassworld.progress import show_progress
from glassworld.training.data.collect import (
    CollectionConfig,
    Episodes,
    is_complete,
    load_first_frames,
    save_shard,
)
from glassworld.training.sources.recordings import RecordedVideo
from glassworld.training.sources.source import Frame, WorldFormat

HELD_OUT_SHARE = 1 / 16
"""Of all episodes, the first ones; at least one."""

MOST_BYTES = 2**28
"""Of the frames of a shard, so that little memory is needed."""

MANIFEST = "recordings.json"
"""Beside the shards: which recordings they are of, wherever these lie, and with which actions."""


class _Excerpt(NamedTuple):
    """An episode of a video, and the shard that it belongs to."""

    shard: Path
    video: RecordedVideo
    number: int


def collect_recordings(
    recordings: list[RecordedVideo],
    format: WorldFormat,
    config: CollectionConfig,
    held_out: Path,
    seconds: float | None = None,
) -> None:
    """Write the shards that are missing or damaged. Videos are decoded frame by frame.

    If a video turns out to be damaged, the episodes before are kept and the rest is skipped and
    named.

    Parameters
    ----------
    recordings
        The videos to learn from.
    format
        Size of the frames.
    config
        Folder, length and most episodes of the collection; the first ones count.
    held_out
        Takes shards of the first of these episodes, a sixteenth.
    seconds
        Start no further shards after so long, once there is one to train on. None: no limit.

    Raises
    ------
    InputError
        There are fewer than two episodes, or the folder holds shards of other recordings.
    """
    length, most = config.frames, config.shards * config.episodes
    numbered = [(video, number) for video in recordings for number in range(video.episodes(length))]
    if len(numbered) > most:
        print(f"recordings: the preset takes {most} of {len(numbered)} episodes, the first ones")
        numbered = numbered[:most]
    if len(numbered) < 2:
        raise InputError("recordings: 1 episode; at least 2 are needed, since one is held out")
    _check_manifest(recordings, format, config, held_out)
    first = max(1, round(len(numbered) * HELD_OUT_SHARE))
    episode_bytes = format.height * format.width * 3 * length
    shard_size = max(1, min(config.episodes, MOST_BYTES // episode_bytes))
    missing = [
        *_missing_episodes(held_out, numbered[:first], shard_size),
        *_missing_episodes(config.folder, numbered[first:], shard_size),
    ]
    _write_shards(missing, format, config, seconds)
    for part in (config.folder, held_out):
        if not _has_shard(part):
            raise InputError(f"{part}: no episode is left; replace the damaged recordings")


def _write_shards(
    missing: list[_Excerpt], format: WorldFormat, config: CollectionConfig, seconds: float | None
) -> None:
    """Write the shards of these episodes, in time if there is a limit."""
    started = time.monotonic()
    episodes = _read_episodes(missing, format, config.frames)
    read = show_progress(episodes, "reading recordings", len(missing))
    for shard, group in groupby(read, lambda pair: pair[0]):
        late = seconds is not None and time.monotonic() - started >= seconds
        if late and _has_shard(config.folder):
            break
        fields = zip(*(episode for _, episode in group), strict=True)
        save_shard(shard, Episodes(*map(np.stack, fields)))


def _has_shard(folder: Path) -> bool:
    return any(map(is_complete, folder.glob("shard-*.safetensors")))


def _missing_episodes(
    folder: Path, numbered: list[tuple[RecordedVideo, int]], shard_size: int
) -> Iterator[_Excerpt]:
    """Yield the episodes of the shards that are not in the folder yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(numbered), shard_size)):
        shard = folder / f"shard-{number:05d}.safetensors"
        if not is_complete(shard):
            for video, episode in numbered[start : start + shard_size]:
                yield _Excerpt(shard, video, episode)


def _check_manifest(
    recordings: list[RecordedVideo], format: WorldFormat, config: CollectionConfig, held_out: Path
) -> None:
    """Write which recordings the shards are of; raise `InputError` if they are of others."""
    files = [
        (video.path.name, video.path.stat().st_size, _digest(video.track)) for video in recordings
    ]
    shards = (config.shards, config.episodes, config.frames)
    size = (format.mode, format.height, format.width)
    settings = {"format": size, "shards": shards, "videos": files}
    content = json.dumps(settings, indent=1).encode()
    folder = config.folder
    manifest = folder / MANIFEST
    folder.mkdir(parents=True, exist_ok=True)
    if any(any(part.glob("shard-*.safetensors")) for part in (folder, held_out)):
        if not manifest.exists() or manifest.read_bytes() != content:
            raise InputError(
                f"{folder}: holds episodes of other recordings or actions, or cut with other "
                "flags; choose another --output"
            )
    else:
        write_file(manifest, content)


def _digest(actions: ActionTrack) -> str:
    """Return a digest of actions, so that corrected ones are noticed."""
    digest = hashlib.sha256(actions.keyboard.tobytes())
    if actions.mouse is not None:
        digest.update(actions.mouse.tobytes())
    return digest.hexdigest()[:16]


def _read_episodes(
    excerpts: list[_Excerpt], format: WorldFormat, length: int
) -> Iterator[tuple[Path, Episodes]]:
    """Decode each video once; yield the shard and the arrays, without first axis, of episodes."""
    for _, group in groupby(excerpts, lambda excerpt: excerpt.video.path):
        wanted = list(group)
        video = wanted[0].video
        starts = [excerpt.number * (length - 1) for excerpt in wanted]
        clips = _take_clips(video.decode(format.height, format.width), starts, length)
        for excerpt, start in zip(wanted, starts, strict=True):
            try:
                frames = next(clips)
            except InputError as problem:
                print(f"skipped the rest of {video.path.name}: {problem}")
                break
            yield excerpt.shard, _episode(frames, video.track.rows(start, start + length))


def _take_clips(frames: Iterator[Frame], starts: list[int], length: int) -> Iterator[Frame]:
    """Yield the clips of `length` frames that begin at `starts`; neighbors share a frame."""
    newest, position = np.empty(0, np.uint8), -1
    for start in starts:
        clip = [newest] if position == start else []
        while position < start + length - 1:
            newest, position = next(frames), position + 1
            if position >= start:
                clip.append(newest)
        yield np.stack(clip)


def _episode(frames: Frame, actions: ActionTrack) -> Episodes:
    """Return the arrays of one episode. Its first row of actions repeats the second."""
    mouse = np.empty((len(frames), 0), np.float32) if actions.mouse is None else actions.mouse
    keyboard, mouse = actions.keyboard.copy(), mouse.copy()
    keyboard[0], mouse[0] = keyboard[1], mouse[1]
    return Episodes(frames, keyboard, mouse, np.empty((len(frames), 0), np.float32))


def save_recorded_start_images(shards: Path, folder: Path, count: int = 8) -> None:
    """Write the first frames of episodes from all over the recordings as start images."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted(filter(is_complete, shards.glob("shard-*.safetensors")))
    images = np.concatenate([load_first_frames(path) for path in paths])
    for number, index in enumerate(np.linspace(0, len(images) - 1, min(count, len(images)))):
        with replacing(folder / f"recording-{number + 1}.png") as path:
            Image.fromarray(images[round(index)]).save(path)
