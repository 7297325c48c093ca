"""Action files: CSV, JSON and segments, read and written; `docs/actions.md` shows them.

Segments are the short form: `w*12 w+left*24` holds W for 12 pixel frames, then W and left for 24.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor, strided

from glassworld.engine.actions.tables import column_name, parse_table, read_unicode
from glassworld.engine.actions.track import (
    MOUSE_COLUMNS,
    Action,
    ActionSpace,
    ActionTrack,
    join_tracks,
)
from glassworld.engine.sampling import MAX_SEED, NoiseMode
from glassworld.errors import ActionError, ActionModeError
from glassworld.file_signatures import describe_content, read_head
from glassworld.files import replacing
from glassworld.specs import TIME_FACTOR, WorldSpec

SUFFIXES = (".csv", ".tsv", ".json", ".txt")

_FILE_NAME = re.compile(r"[^*\n]{1,200}\.[A-Za-z][A-Za-z0-9]{1,6}")
"""What a text looks like that is meant as the name of a file and not as keys."""

MAX_FRAMES = 1_000_000
"""More pixel frames than this (23 hours of play) are refused as a typing error."""

LENGTHS = f"a segment is at least 1 frame long, all together at most {MAX_FRAMES}"


ActionSource = (
    ActionTrack
    | Action
    | str
    | Path
    | Iterable[Any]
    | Mapping[str, Any]
    | npt.NDArray[np.number[Any]]
    | Tensor
)
"""Actions with one row per pixel frame, in any form that `load_actions` reads.

A track; the path of an action file, or segments such as "w*12 w+left*24"; a list with one `Action`
per pixel frame; an array or a list of rows `[N, columns]`, the mouse's two last or left out; a
dictionary of "keyboard" `[N, K]` and "mouse" `[N, 2]`, or of one column `[N]` per name; anything
else that a JSON action file may hold. A single `Action` is one row (`World.generate` holds it).
"""


def load_actions(source: ActionSource, space: ActionSpace) -> ActionTrack:
    """Read actions for `space` from a .csv, .tsv, .json or .txt file, or the caller's own data.

    `source`: see `ActionSource`. Raises `ActionError`, naming the file and the row, for anything
    that does not fit the mode.
    """
    if isinstance(source, ActionTrack):
        return source
    if not isinstance(source, str | os.PathLike):
        return _from_data(source, space)
    path = Path(source)
    if path.suffix.lower() not in SUFFIXES and isinstance(source, str):
        return _parse_argument(source, space)
    text = read_unicode(path)
    readers = {".csv": _from_csv, ".tsv": _from_csv, ".json": _from_json}
    read = readers.get(path.suffix.lower(), parse_segments)
    try:
        return read(text, space)
    except ActionError as error:
        raise type(error)(f"{path}: {error}") from None


def _from_data(source: object, space: ActionSpace) -> ActionTrack:
    """Read the actions of a program: `Action` objects, arrays, or what JSON may hold."""
    if isinstance(source, Action):
        return space.fill(source, 1)
    if isinstance(source, Iterator):
        source = list(source)
    if isinstance(source, Sequence) and any(isinstance(item, Action) for item in source):
        return join_tracks([_one_action(index, item, space) for index, item in enumerate(source)])
    try:
        return _from_content(_plain(source), space)
    except ActionError as error:
        raise ActionError(f"actions: {str(error).removeprefix('actions: ')}") from None


def _one_action(index: int, action: Action, space: ActionSpace) -> ActionTrack:
    try:
        return space.fill(action, 1)
    except ActionError as error:
        raise ActionError(f"actions: row {index}: {error}") from None


def _plain(value: Any) -> Any:
    """Return arrays, tensors and tuples inside `value` as lists, as JSON has them."""
    if isinstance(value, Tensor) and (value.is_meta or value.layout is not strided):
        raise ActionError("a sparse tensor, or one without data; give a dense one")
    if isinstance(value, np.ndarray | np.generic | Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return value


def _parse_argument(text: str, space: ActionSpace) -> ActionTrack:
    try:
        return parse_segments(text, space)
    except ActionError:
        kinds = f"action files are {', '.join(SUFFIXES)}"
        if os.path.isfile(text):  # unlike Path's, no error for a text that no file could be called
            kind = describe_content(read_head(Path(text)))
            raise ActionError(f"{text}: {f'is {kind}; ' if kind else ''}{kinds}") from None
        if os.path.isdir(text):
            raise ActionError(f"{text}: is a folder; {kinds}; name one") from None
        if _FILE_NAME.fullmatch(text):
            raise ActionError(
                f"{text}: no such action file; {kinds}; or write segments such as w*12"
            ) from None
        raise


class RecordedNoise(NamedTuple):
    """The seed and noise mode of the session that an action file records."""

    seed: int | None
    mode: NoiseMode


def recorded_noise(source: str | Path) -> RecordedNoise:
    """Return the "seed" and "noise" of an action file that live play recorded.

    Without them, as in any other action file: no seed, and "run". The file has been read by
    `load_actions` before. Raises `ActionError` for values that no recording has.
    """
    path = Path(source)
    content = json.loads(read_unicode(path)) if path.suffix.lower() == ".json" else None
    if not isinstance(content, dict):
        return RecordedNoise(None, "run")
    seed, mode = content.get("seed"), content.get("noise", "run")
    if seed is not None and not (type(seed) is int and 0 <= seed <= MAX_SEED):
        raise ActionError(f"{path}: seed {seed!r:.40} is not a whole number from 0 up; give one")
    if mode not in get_args(NoiseMode):
        raise ActionError(f"{path}: noise {mode!r:.40} is neither 'run' nor 'blocks'")
    return RecordedNoise(seed, mode)


def covered_frames(rows: int, earlier: int, spec: WorldSpec, before: int = 0) -> int:
    """Return how many new latent frames `rows` of actions are enough for, in whole blocks.

    `earlier`: latent frames before the new ones. The rows cover them too, from pixel frame `before`
    on. Raises `ActionError` if they are not enough for a block.
    """
    step = spec.frames_per_block
    frames = ((before + rows - 1) // TIME_FACTOR + 1 - earlier) // step * step
    if frames < step:
        needed = spec.pixel_frames(earlier + step) - before
        raise ActionError(
            f"actions: {rows} rows, but the first block needs {needed}, "
            "one per pixel frame; give more actions"
        )
    return frames


def save_actions(path: str | Path, track: ActionTrack, space: ActionSpace) -> None:
    """Write `track` as .csv or .json, so that `load_actions` returns the very same numbers."""
    path = Path(path)
    keyboard, mouse = track.keyboard, track.mouse
    rows = keyboard if mouse is None else np.concatenate([keyboard, mouse], axis=1)
    columns = space.keyboard + (() if mouse is None else MOUSE_COLUMNS)
    if rows.shape[1] != len(columns):
        raise ActionError(
            f"actions: {keyboard.shape[1]} keyboard columns do not fit {space.mode}"
            f"; give {len(space.keyboard)}"
        )
    lines = [[_shortest(number) for number in row] for row in rows]
    if path.suffix.lower() == ".csv":
        text = "\n".join(",".join(line) for line in [list(columns), *lines]) + "\n"
    elif path.suffix.lower() == ".json":
        body = ",\n".join(f"  [{', '.join(line)}]" for line in lines)
        header = f'{{\n "mode": {json.dumps(space.mode)},\n "columns": {json.dumps(columns)},\n'
        text = f'{header} "rows": [\n{body}\n ]\n}}\n'
    else:
        raise ActionError(f"{path}: actions are written as .csv or .json; name such a file")
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def parse_segments(text: str, space: ActionSpace) -> ActionTrack:
    """Read `keys*frames` words separated by white space; without `*frames` a word is one frame."""
    words = [word for line in text.splitlines() for word in line.split("#")[0].split()]
    if not words:
        raise ActionError("no actions; write segments such as w*12 w+left*24")
    return _hold((_split_word(word) for word in words), space)


def _split_word(word: str) -> tuple[str, int]:
    keys, star, count = word.partition("*")
    if not keys or (star and not count.isdecimal()):
        raise ActionError(
            f"segment {word!r:.80} is not keys*frames, such as w+left*24; write it so"
        )
    try:
        return keys, int(count) if star else 1
    except ValueError:  # more digits than Python reads
        raise ActionError(f"segment {word:.80}: {LENGTHS}") from None


def _hold(segments: Iterable[tuple[str, int]], space: ActionSpace) -> ActionTrack:
    tracks: list[ActionTrack] = []
    total = 0
    for keys, frames in segments:
        total += frames
        if frames < 1 or total > MAX_FRAMES:
            raise ActionError(f"segment {f'{keys}*{frames}':.80}: {LENGTHS}")
        tracks.append(space.fill(space.press(keys), frames))
    return join_tracks(tracks)


def _from_csv(text: str, space: ActionSpace) -> ActionTrack:
    letters = [control.key.lower() for control in space.controls if control.column]
    names, rows = parse_table(text, [*space.columns, *letters])
    if not names:
        raise ActionError(
            f"empty; the first line names the columns: {','.join(space.columns)}; write them there"
        )
    return _from_rows(names, rows, space)


def _from_rows(columns: list[Any], lines: list[Any], space: ActionSpace) -> ActionTrack:
    """Read rows under named columns, in any order: all of the keyboard's, the mouse's if any."""
    columns = [_column(name, space) for name in columns]
    wanted = space.columns if any(name in columns for name in MOUSE_COLUMNS) else space.keyboard
    if sorted(map(str, columns)) != sorted(wanted):
        raise ActionModeError(
            f"columns {','.join(map(str, columns)):.80} do not fit {space.mode}, "
            f"which has {','.join(space.columns)}"
            "; name them so"
        )
    if not lines:
        raise ActionError("no rows under the column names; one row per pixel frame is needed")
    order = [columns.index(name) for name in wanted]
    rows = np.empty((len(lines), len(wanted)))
    for index, line in enumerate(lines):
        if not isinstance(line, list) or len(line) != len(columns):
            raise ActionError(f"row {index}: {len(columns)} numbers are needed, not {line!r:.80}")
        try:
            rows[index] = [float(line[column]) for column in order]
        except (TypeError, ValueError, OverflowError):
            raise ActionError(
                f"row {index}: {line!r:.80} are not all numbers; write numbers only"
            ) from None
    keys = len(space.keyboard)
    mouse: Any = rows[:, keys:] if len(wanted) > keys else None
    keyboard: Any = rows[:, :keys]
    return ActionTrack(keyboard, mouse).fitted(space, len(rows))


def _column(name: Any, space: ActionSpace) -> Any:
    """Return the mode's name of a column: names in any case, and the keys' letters, are known."""
    if not isinstance(name, str):
        return name
    plain = column_name(name)
    keys = {control.key.lower(): control.column for control in space.controls if control.column}
    return keys.get(plain, plain)


def _from_json(text: str, space: ActionSpace) -> ActionTrack:
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except ActionError:
        raise
    except (ValueError, RecursionError) as error:
        raise ActionError(f"not JSON: {error}; write JSON, or use .csv or .txt") from None
    return _from_content(content, space)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, of which Python would keep the last of two values of one name."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ActionError(f"{twice!r:.80} is there twice in one object; remove one of them")
    return content


def _from_content(content: Any, space: ActionSpace) -> ActionTrack:
    """Read what a JSON action file may hold."""
    if isinstance(content, dict):
        if content.get("mode", space.mode) != space.mode:
            raise ActionModeError(
                f"actions of mode {content['mode']!r:.40}, but the world is {space.mode}"
                "; give actions of that mode"
            )
        if "segments" in content:
            content = content["segments"]
        elif "rows" in content:
            columns, rows = content.get("columns", list(space.columns)), content["rows"]
            if not isinstance(columns, list) or not isinstance(rows, list):
                raise ActionError("'columns' and 'rows' must be lists")
            return _from_rows(columns, rows, space)
        elif "keyboard" in content:
            track = ActionTrack(content["keyboard"], content.get("mouse"))
            return track.fitted(space, len(track))
        elif any(_column(name, space) in space.columns for name in content):
            return _from_columns(content, space)
    if isinstance(content, str):
        return parse_segments(content, space)
    if content == []:
        raise ActionError("no actions; give rows, objects or segments such as w*12")
    if isinstance(content, list):
        return _from_list(content, space)
    raise ActionError(
        "neither a list of rows nor an object with 'rows' or 'segments'; give one of them"
    )


def _from_columns(content: dict[str, Any], space: ActionSpace) -> ActionTrack:
    """Read one list of numbers per column."""
    named = {name: values for name, values in content.items() if name != "mode"}
    if not all(isinstance(values, list) for values in named.values()):
        raise ActionError("a column is a list with one number per pixel frame; give such lists")
    lengths = {name: len(values) for name, values in named.items()}
    if len(set(lengths.values())) > 1:
        raise ActionError(f"columns of different lengths: {lengths}; give all the same")
    return _from_rows(list(named), [list(row) for row in zip(*named.values(), strict=True)], space)


def _from_list(items: list[Any], space: ActionSpace) -> ActionTrack:
    first = items[0]
    if isinstance(first, str):
        return parse_segments(" ".join(map(str, items)), space)
    if isinstance(first, list):
        short = len(first) == len(space.keyboard)
        return _from_rows(list(space.keyboard if short else space.columns), items, space)
    if isinstance(first, bool | int | float):
        raise ActionError("a flat list of numbers; give a list of rows, one per pixel frame")
    if not all(isinstance(item, dict) for item in items):
        raise ActionError("the list mixes kinds; give rows, objects or segments throughout")
    if "keys" in first:
        return _hold((_segment(item) for item in items), space)
    if "keyboard" in first:
        return join_tracks([_row(index, item, space) for index, item in enumerate(items)])
    columns = list(first)
    rows = [
        # One with a column that the first row lacks is passed on as it is, and refused.
        [item.get(name) for name in columns] if item.keys() <= first.keys() else item
        for item in items
    ]
    return _from_rows(columns, rows, space)


def _segment(item: dict[str, Any]) -> tuple[str, int]:
    keys, frames = item.get("keys"), item.get("frames", 1)
    if not isinstance(keys, str) or not isinstance(frames, int):
        raise ActionError(f'{item!r:.80} is not {{"keys": "w+left", "frames": 24}}; write it so')
    return keys, frames


def _row(index: int, item: dict[str, Any], space: ActionSpace) -> ActionTrack:
    keyboard: Any = [item.get("keyboard")]
    mouse: Any = [item["mouse"]] if item.get("mouse") is not None else None
    try:
        return ActionTrack(keyboard, mouse).fitted(space, 1)
    except ActionError as error:
        raise ActionError(f"row {index}: {error}") from None


def _shortest(number: np.float32) -> str:
    """Return the shortest decimal that reads back as the same float32."""
    return str(int(number)) if number in (0, 1, -1) else str(number)
