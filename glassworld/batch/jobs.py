"""Jobs: the rows of a JSON Lines file, all checked before anything starts."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from glassworld.engine.actions.files import (
    MAX_FRAMES,
    SUFFIXES,
    RecordedNoise,
    covered_frames,
    load_actions,
    recorded_noise,
)
from glassworld.engine.actions.track import ActionTrack
from glassworld.engine.arguments import checked_length, checked_seed, default_length
from glassworld.engine.checkpoint.locate import LocatedWorld, embedded_worlds, locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.sampling import NoiseMode
from glassworld.engine.variants.registry import action_space
from glassworld.errors import InputError

MAX_JOBS = 1_000_000

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

ActionRows = str | list[Any] | dict[str, Any]
"""Segments, the path of an action file, or what a JSON action file may hold."""


class Job(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """A video to generate, as its row describes it.

    `frames`: latent frames. `id` names the video; by default it is the number of the line.
    """

    image: str
    actions: ActionRows | None = None
    seed: int | None = None
    world: str | None = None
    frames: int | None = None
    id: str | None = None


class PreparedJob(msgspec.Struct, frozen=True):
    """A checked job with all defaults filled in: what a worker needs to generate the video."""

    line: int
    id: str
    image: str
    world: str | None  # None: the world of the command's flags
    frames: int
    seed: int
    actions: ActionRows | None
    noise: NoiseMode
    digest: str  # of the job and of the flags that load its world

    @property
    def video(self) -> str:
        """The file name of its video."""
        return f"{self.id}.mp4"


class JobReader:
    """Reads jobs and checks them against their worlds; loads no weights."""

    def __init__(self, path: Path, load: LoadOptions) -> None:
        self._path, self._load = path, load
        self._located: dict[str | None, LocatedWorld] = {}

    def read(self) -> list[PreparedJob]:
        """Return the jobs in the order of their worlds, so that each is loaded once.

        Raises `InputError` for the first malformed row, with its line, field and reason.
        """
        try:
            text = self._path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self._path}: cannot be read as text: {reason}") from None
        # Not `splitlines`: JSON strings may hold some of the characters that it splits at.
        rows = [row for row in enumerate(text.split("\n"), 1) if row[1].strip()]
        if not rows:
            raise InputError(f"{self._path}: has no jobs; write one JSON object per line")
        if len(rows) > MAX_JOBS:
            raise InputError(f"{self._path}: {len(rows)} jobs; give at most {MAX_JOBS}")
        jobs = [self._prepare(*row) for row in rows]
        self._check_ids(jobs)
        return sorted(jobs, key=lambda job: (job.world or "", job.line))

    def _prepare(self, line: int, text: str) -> PreparedJob:
        try:
            job = msgspec.json.decode(text, type=Job)
        except msgspec.MsgspecError as error:
            raise InputError(f"{self._path}: line {line}: {_reason(error)}") from None
        name = job.id or f"{line:06d}"
        if not SAFE_ID.fullmatch(name):
            raise self._error(
                line, "id", f"{name!r:.60}: use letters, digits, '.', '_' and '-', at most 100"
            )
        world = self._world(job.world)
        located = self._field(line, "world", lambda: self._locate(world))
        image = self._image(line, job.image)
        track, noise = self._field(line, "actions", lambda: self._actions(job.actions, located))
        frames = self._field(line, "frames", lambda: _frames(job.frames, track, located))
        given = job.seed if job.seed is not None else noise.seed
        seed = self._field(line, "seed", lambda: checked_seed(given, located.spec))
        actions = self._action_path(job.actions)
        loaded = [str(value) for value in self._load.keywords().values()]
        described = [image, actions, seed, job.world, frames, noise.mode, loaded]
        if isinstance(actions, str) and Path(actions).suffix.lower() in SUFFIXES:
            described.append(hashlib.sha256(Path(actions).read_bytes()).hexdigest())
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
        return PreparedJob(line, name, image, world, frames, seed, actions, noise.mode, digest)

    def _field(self, line: int, field: str, check: Callable[[], Any]) -> Any:
        """Return what `check` returns; its `InputError` names the line and the field."""
        try:
            return check()
        except InputError as error:
            reason = str(error).removeprefix(f"{field} ").removeprefix(f"{field}: ")
            raise self._error(line, field, reason) from None

    def _error(self, line: int, field: str, reason: str) -> InputError:
        return InputError(f"{self._path}: line {line}: {field}: {reason}")

    def _world(self, world: str | None) -> str | None:
        """Return a world's name; that of a folder is a path from the jobs file's folder."""
        if world is None or world in embedded_worlds():
            return world
        folder = self._path.parent / world
        return str(folder.resolve()) if os.path.isdir(folder) else world

    def _locate(self, world: str | None) -> LocatedWorld:
        if world not in self._located:
            self._located[world] = locate_world(options_for(world, self._load))
        return self._located[world]

    def _image(self, line: int, image: str) -> str:
        path = self._path.parent / image
        if not os.path.isfile(path):  # unlike Path's, no error for a name that no file can have
            raise self._error(line, "image", f"{path!s:.200}: no such image; name an image file")
        return str(path.resolve())

    def _action_path(self, actions: ActionRows | None) -> ActionRows | None:
        """Return actions; the path of a file is one from the jobs file's folder."""
        if isinstance(actions, str):
            path = self._path.parent / actions
            if path.suffix.lower() in SUFFIXES:
                return str(path.resolve())
        return actions

    def _actions(
        self, actions: ActionRows | None, located: LocatedWorld
    ) -> tuple[ActionTrack | None, RecordedNoise]:
        if actions is None:
            return None, RecordedNoise(None, "run")
        source = self._action_path(actions)
        assert source is not None
        track = load_actions(source, action_space(located.spec.mode))
        noise = recorded_noise(source) if isinstance(source, str) else RecordedNoise(None, "run")
        return track, noise

    def _check_ids(self, jobs: list[PreparedJob]) -> None:
        lines: dict[str, int] = {}
        for job in jobs:
            first = lines.setdefault(job.id.casefold(), job.line)
            if first != job.line:
                raise self._error(job.line, "id", f"{job.id!r} is that of line {first} too")


def options_for(world: str | None, load: LoadOptions) -> LoadOptions:
    """Return the options that load a job's world."""
    if world is None:
        return load
    return replace(
        load, world=world, config_path=None, checkpoint_path=None, pretrained_model_path=None
    )


def _frames(given: int | None, track: ActionTrack | None, located: LocatedWorld) -> int:
    """Return a job's latent frames: given, as many as the actions cover, or 150."""
    spec = located.spec
    if given is None and track is not None:
        given = covered_frames(len(track), 0, spec)
    elif given is None:
        given = default_length(spec)
    try:
        frames = checked_length(given, spec)
    except InputError as error:
        raise InputError(str(error).removeprefix("num_latent_frames ")) from None
    pixels = spec.pixel_frames(frames)
    if pixels > MAX_FRAMES:
        raise InputError(f"{frames}: that is {pixels} pixel frames; at most {MAX_FRAMES}")
    if track is not None:
        track.fitted(action_space(spec.mode), pixels)
    return frames


def _reason(error: msgspec.MsgspecError) -> str:
    """Return why a row is malformed, with its field in front."""
    text = str(error)
    if " - at `$." in text:
        text, _, field = text.removesuffix("`").partition(" - at `$.")
        return f"{field}: {text}"
    missing = re.search(r"missing required field `(\w+)`", text)
    unknown = re.search(r"contains unknown field `(.+)`", text)
    if missing:
        return f"{missing[1]}: missing"
    if unknown:
        names = ", ".join(Job.__struct_fields__)
        return f"{unknown[1]:.40}: no such field; a job has {names}"
    return f"not a JSON object: {text}"
