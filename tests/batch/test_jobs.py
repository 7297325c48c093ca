"""Rows of jobs: read with their defaults, and refused with line, field and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from glassworld.batch.jobs import JobReader, PreparedJob
from glassworld.engine.actions.files import SUFFIXES
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from tests.support.release import write_release


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder


def read(folder: Path, *rows: dict[str, Any] | str) -> list[PreparedJob]:
    path = folder / "jobs.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return JobReader(path, LoadOptions(world=folder)).read()


def test_defaults_are_those_of_generate(folder: Path) -> None:
    first, second = read(
        folder,
        {"image": "picture.png"},
        "",
        {"image": "picture.png", "actions": "w*9 a*16", "seed": 3, "id": "b.1"},
    )
    assert (first.id, first.line, first.frames, first.seed) == ("000001", 1, 150, 5)
    assert first.image == str((folder / "picture.png").resolve())
    assert (second.id, second.line, second.frames, second.seed) == ("b.1", 3, 6, 3)
    assert second.video == "b.1.mp4"


def test_recorded_actions_bring_their_seed_and_noise(folder: Path) -> None:
    script = {"segments": "w*9", "seed": 11, "noise": "blocks"}
    (folder / "walk.json").write_text(json.dumps(script), encoding="utf-8")
    (job,) = read(folder, {"image": "picture.png", "actions": "walk.json"})
    assert (job.seed, job.noise, job.frames) == (11, "blocks", 3)
    assert job.actions == str((folder / "walk.json").resolve())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_action_files_lie_beside_the_jobs(folder: Path, suffix: str) -> None:
    table = "forward,back,left,right\n" + "1,0,0,0\n" * 9
    content = {".csv": table, ".tsv": table.replace(",", "\t"), ".json": '["w*9"]'}
    (folder / f"walk{suffix}").write_text(content.get(suffix, "w*9"), encoding="utf-8")
    (job,) = read(folder, {"image": "picture.png", "actions": f"walk{suffix}"})
    assert job.actions == str((folder / f"walk{suffix}").resolve())
    assert job.frames == 3


def test_edited_action_file_is_another_job(folder: Path) -> None:
    digests = []
    for segments in ("w*9", "a*9", "w*9"):
        (folder / "edited.txt").write_text(segments, encoding="utf-8")
        digests.append(read(folder, {"image": "picture.png", "actions": "edited.txt"})[0].digest)
    assert digests[0] == digests[2] != digests[1]


def test_world_folders_lie_beside_the_jobs(folder: Path) -> None:
    path = folder.parent / "jobs.jsonl"
    row = {"image": f"{folder.name}/picture.png", "world": folder.name}
    path.write_text(json.dumps(row), encoding="utf-8")
    (job,) = JobReader(path, LoadOptions()).read()
    assert job.world == str(folder.resolve())


def test_rows_end_at_line_feeds_alone(folder: Path) -> None:
    for separator in ("\u2028", "\x85"):
        name = f"a{separator}b.png"
        (folder / name).write_bytes((folder / "picture.png").read_bytes())
        row = json.dumps({"image": name}, ensure_ascii=False)
        first, second = read(folder, f"{row}\r", row)
        assert (first.line, second.line) == (1, 2)
        assert second.image == str((folder / name).resolve())


def test_jobs_of_one_world_follow_one_another(folder: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        {"image": "picture.png", "world": world} for world in (str(folder), "maze", None)
    ]
    worlds = [job.world for job in read(folder, *rows, *rows)]
    assert worlds == [None, None, str(folder), str(folder), "maze", "maze"]


def test_digest_changes_with_what_the_video_depends_on(folder: Path) -> None:
    row: dict[str, Any] = {"image": "picture.png", "frames": 3}
    (job,) = read(folder, row)
    (same,) = read(folder, {**row, "id": "renamed"})
    others: list[dict[str, Any]] = [
        {"seed": 6},
        {"frames": 6},
        {"actions": "w*9"},
        {"world": "maze"},
    ]
    digests = {read(folder, {**row, **other})[0].digest for other in others}
    assert same.digest == job.digest
    assert len(digests | {job.digest}) == len(others) + 1


BAD_ROWS = {
    "no JSON": ("{", "line 2: not a JSON object"),
    "a list": ("[1]", "line 2: not a JSON object"),
    "no image": ({}, "line 2: image: missing"),
    "unknown field": ({"images": "a"}, "line 2: images: no such field; a job has image, actions"),
    "missing image": ({"image": "none.png"}, "line 2: image: .*none.png: no such image"),
    "image of no possible name": ({"image": "a" * 5000}, "line 2: image: .*no such image"),
    "seed of a wrong type": ({"seed": "x"}, "line 2: seed: Expected `int | null`, got `str`"),
    "negative seed": ({"seed": -1}, "line 2: seed: -1: must lie"),
    "frames of no block": (
        {"frames": 4},
        "line 2: frames: 4: must be a positive",
    ),
    "too many frames": ({"frames": 300_000}, "line 2: frames: 300000: that is 1199997 pixel"),
    "unknown key": ({"actions": "x*9"}, "line 2: actions: unknown key 'x'"),
    "missing actions": (
        {"actions": "none.csv"},
        "line 2: actions: .*no such action file",
    ),
    "too few actions": ({"actions": "w*9", "frames": 6}, "line 2: frames: actions: 9 rows"),
    "unknown world": ({"world": "nowhere"}, "line 2: world: 'nowhere': no such world"),
    "name that leaves the folder": ({"id": "../a"}, "line 2: id: '../a': use letters"),
    "name given twice": ({"id": "000001"}, "line 2: id: '000001' is that of line 1 too"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_malformed_row_is_refused_with_line_field_and_reason(
    folder: Path, row: dict[str, Any] | str, message: str
) -> None:
    good = {"image": "picture.png", "frames": 3}
    if isinstance(row, dict) and row:
        row = {"image": "picture.png", **row}
    with pytest.raises(InputError, match=message.replace("|", r"\|")):
        read(folder, good, row)


def test_file_without_jobs_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no jobs"):
        read(folder, "", " ")
    with pytest.raises(InputError, match="cannot be read as text"):
        JobReader(tmp_path, LoadOptions()).read()
