"""Action files: every documented form, round trips, and what bad ones are told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glassworld.engine.actions.files import load_actions, parse_segments, save_actions
from glassworld.engine.actions.track import Action, ActionTrack
from glassworld.engine.variants.registry import ACTION_SPACES, action_space
from glassworld.errors import ActionError
from tests.support.paths import ROOT

UNIVERSAL = action_space("universal")
RIGHT_THEN_TURN = parse_segments("d*2 j", UNIVERSAL)


def _file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "d*2 j\n"),
        ("a.txt", "# a comment\nright*2   # strafe\ncamera_left*1"),
        (
            "a.csv",
            "forward,back,left,right,mouse_vertical,mouse_horizontal\n"
            "0,0,0,1,0,0\n0,0,0,1,0,0\n0,0,0,0,0,-0.1\n",
        ),
        (
            "a.csv",
            "mouse_horizontal, mouse_vertical, right, left, back, forward\r\n"
            "0,0,1,0,0,0\r\n0,0,1,0,0,0\r\n-0.1,0,0,0,0,0\r\n\r\n",
        ),
        ("a.json", "[[0,0,0,1,0,0],[0,0,0,1,0,0],[0,0,0,0,0,-0.1]]"),
        ("a.json", '["d*2", "j"]'),
        ("a.json", '"d*2 j"'),
        ("a.json", '{"segments": "d*2 j", "mode": "universal"}'),
        ("a.json", '[{"keys": "d", "frames": 2}, {"keys": "j"}]'),
        (
            "a.json",
            '[{"keyboard":[0,0,0,1]},{"keyboard":[0,0,0,1],"mouse":[0,0]},'
            '{"keyboard":[0,0,0,0],"mouse":[0,-0.1]}]',
        ),
        (
            "a.json",
            '{"keyboard":[[0,0,0,1],[0,0,0,1],[0,0,0,0]],"mouse":[[0,0],[0,0],[0,-0.1]]}',
        ),
    ],
)
def test_load_actions_reads_every_form_as_the_same_track(
    tmp_path: Path, name: str, text: str
) -> None:
    assert load_actions(_file(tmp_path, name, text), UNIVERSAL) == RIGHT_THEN_TURN


HEADER = "forward,back,left,right,mouse_vertical,mouse_horizontal"
ROWS = ["0,0,0,1,0,0", "0,0,0,1,0,0", "0,0,0,0,0,-0.1"]


def european(delimiter: str) -> str:
    """Return the table as a spreadsheet writes it where the comma is the decimal point."""
    lines = [HEADER, *ROWS]
    return "\n".join(line.replace(",", delimiter).replace(".", ",") for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        european(";"),
        "sep=;\n" + european(";"),
        european("\t"),
        "\ufeff" + european(";"),
        "\ufeff" + "\r\n".join([HEADER, *ROWS]),
        "\n".join(["," + HEADER, *(f"{index},{row}" for index, row in enumerate(ROWS))]),
        "\n".join(["Unnamed: 0," + HEADER, *(f"{index},{row}" for index, row in enumerate(ROWS))]),
        european(";").replace("forward;", ";forward;").replace("\n", "\n7;"),
        "\n".join([HEADER + ",,", *(row + ",," for row in ROWS), "," * 8]),
        '"' + HEADER.replace(",", '","') + '"\n' + "\n".join(ROWS).replace("-0.1", '"-0,1"'),
        "\n".join([HEADER, *ROWS]).replace("1,0,0\n", "TRUE,0,0\n"),
        "\n".join(["frame," + HEADER, *(f"{index},{row}" for index, row in enumerate(ROWS, 1))]),
        "\n".join([HEADER, *(row + "," for row in ROWS)]),
        "\n".join([HEADER.upper().replace("_", " "), *ROWS]),
        "\n".join(["w,s,a,d,mouse-vertical,mouse-horizontal", *ROWS]),
        "\n".join(["# my walk", HEADER, *ROWS]),
        "\n".join([HEADER, *ROWS]).replace("-", "\u2212"),
        '"sep=,"\r\n' + "\r\n".join([HEADER, *ROWS]),
        "\r".join(["", HEADER, "", *ROWS]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_load_actions_reads_the_tables_of_spreadsheets(
    tmp_path: Path, text: str, encoding: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.removeprefix("\ufeff" * (encoding != "utf-8")).encode(encoding))
    assert load_actions(path, UNIVERSAL) == RIGHT_THEN_TURN


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_load_actions_reads_utf_16_without_its_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(european("\t").encode(encoding))
    assert load_actions(path, UNIVERSAL) == RIGHT_THEN_TURN


def test_a_column_that_does_not_count_is_no_index(tmp_path: Path) -> None:
    text = "speed,forward,back,left,right\n1,0,0,0,1\n1,0,0,0,1\n"
    with pytest.raises(ActionError, match=r"columns speed,forward.* do not fit universal"):
        load_actions(_file(tmp_path, "a.csv", text), UNIVERSAL)


KEYBOARD: np.ndarray = RIGHT_THEN_TURN.keyboard
MOUSE: Any = RIGHT_THEN_TURN.mouse
ACTIONS = [Action((0, 0, 0, 1)), Action((0, 0, 0, 1), (0, 0)), Action((0, 0, 0, 0), (0, -0.1))]


@pytest.mark.parametrize(
    "source",
    [
        RIGHT_THEN_TURN,
        ACTIONS,
        tuple(ACTIONS),
        np.hstack([KEYBOARD, MOUSE]),
        torch.from_numpy(np.hstack([KEYBOARD, MOUSE])),
        np.hstack([KEYBOARD, MOUSE]).tolist(),
        list(np.hstack([KEYBOARD, MOUSE])),
        {"keyboard": KEYBOARD, "mouse": MOUSE},
        {"keyboard": torch.from_numpy(KEYBOARD.copy()), "mouse": MOUSE.tolist()},
        dict(zip(UNIVERSAL.columns, np.hstack([KEYBOARD, MOUSE]).T, strict=True)),
        [{"keyboard": row, "mouse": mouse} for row, mouse in zip(KEYBOARD, MOUSE, strict=True)],
        ["d*2", "j"],
        "d*2 j",
    ],
    ids=lambda source: type(source).__name__,
)
def test_load_actions_reads_the_data_of_a_program(source: Any) -> None:
    assert load_actions(source, UNIVERSAL) == RIGHT_THEN_TURN
    again = source if isinstance(source, str) or not isinstance(source, list) else iter(source)
    assert load_actions(again, UNIVERSAL) == RIGHT_THEN_TURN


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (3, "neither a list of rows"),
        (None, "neither a list of rows"),
        ([], "no actions"),
        ([ACTIONS[0], "w"], "row 1: .*'w'.* not an Action"),
        ([Action((1, 0))], "row 0: action: 2 keyboard numbers"),
        (np.zeros((3, 5)), "row 0: 6 numbers are needed"),
        (np.zeros((0, 6)), "no actions"),
        (np.full((3, 4), 2.0), "row 0, column 0 is 2"),
        (np.zeros((3, 4, 2)), "not all numbers"),
        ({"keyboard": np.zeros((2, 3))}, "3 keyboard columns, but universal has 4"),
        ({"keyboard": np.zeros((2, 4)), "mouse": np.zeros((3, 2))}, "2 rows of 2 are needed"),
        ({"forward": [1, 0]}, "do not fit universal"),
        ({"forward": [1], "back": [], "left": [], "right": []}, "different lengths"),
        ({"forward": 1, "back": 0, "left": 0, "right": 0}, "a column is a list"),
    ],
    ids=str,
)
def test_load_actions_names_the_problem_of_bad_data(source: Any, reason: str) -> None:
    with pytest.raises(ActionError, match=f"^actions: .*{reason}") as caught:
        load_actions(source, UNIVERSAL)
    assert "\n" not in str(caught.value)


def test_load_actions_reads_segments_instead_of_a_file() -> None:
    track = load_actions("w*12 w+left*24", UNIVERSAL)
    assert len(track) == 36
    np.testing.assert_array_equal(track.keyboard[11], [1, 0, 0, 0])
    np.testing.assert_array_equal(track.keyboard[12:], np.tile([1, 0, 1, 0], (24, 1)))


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("mode", ACTION_SPACES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_saved_actions_read_back_exactly(
    tmp_path: Path, mode: str, suffix: str, data: st.DataObject
) -> None:
    space = action_space(mode)
    count = data.draw(st.integers(1, 20))
    pressed = st.floats(0, 1, width=32)
    moved = st.floats(-1, 1, width=32)
    keyboard = data.draw(arrays(np.float32, (count, len(space.keyboard)), elements=pressed))
    mouse = data.draw(arrays(np.float32, (count, 2), elements=moved)) if space.has_mouse else None
    track = ActionTrack(keyboard, mouse)
    path = tmp_path / f"actions{suffix}"
    save_actions(path, track, space)
    assert load_actions(path, space) == track
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@given(words=st.lists(st.tuples(st.sampled_from("wasdijklq"), st.integers(1, 30)), min_size=1))
def test_segments_hold_each_action_for_its_frames(words: list[tuple[str, int]]) -> None:
    track = parse_segments(" ".join(f"{key}*{frames}" for key, frames in words), UNIVERSAL)
    assert len(track) == sum(frames for _, frames in words)
    start = 0
    for key, frames in words:
        held = UNIVERSAL.fill(UNIVERSAL.press(key), frames)
        assert track.rows(start, start + frames) == held
        start += frames


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "forward,back,left,right,mouse_vertical,mouse_horizontal"),
        ("a.csv", "forward,back\n1,0\n", "do not fit universal"),
        ("a.csv", "0,0,0,1,0,0\n", "do not fit universal"),
        ("a.csv", "forward,back,left,right\n", "no rows"),
        ("a.csv", "forward,back,left,right\n1,0,0\n", "row 0: 4 numbers"),
        ("a.csv", "forward,back,left,right\n1,0,0,0\n1,x,0,0\n", "row 1.*not all numbers"),
        ("a.csv", "forward,back,left,right\n1,nan,0,0\n", "row 0, column 1 is nan"),
        ("a.csv", "forward,back,left,right\n1,0,0,1e300\n", "out of|must be in"),
        ("a.csv", "forward,back,left,right\n1,0,0," + "1" * 200_000, "not a table.*field limit"),
        ("a.csv", ",".join(map(str, range(9_000))), "do not fit universal"),
        ("a.json", "[[1,0,0,0],[7,0,0,0]]", "row 1, column 0 is 7"),
        ("a.json", "[[1,0,0]]", "row 0: 6 numbers"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "no actions"),
        ("a.json", '{"segments": []}', "no actions"),
        ("a.json", "{}", "neither a list of rows"),
        ("a.json", "[1, 2]", "a flat list of numbers"),
        ("a.json", '[[1,0,0,0], "w"]', "row 1"),
        ("a.json", "<!DOCTYPE html>", r"is a web page \(download it again\)"),
        ("a.json", '[{"keyboard":[0,0,0,1]},{"keyboard":[0,0,1]}]', "row 1"),
        ("a.json", '{"mode": "gta_drive", "segments": "w"}', "mode 'gta_drive'"),
        ("a.json", '[{"keys": "w", "frames": "many"}]', "frames"),
        ("a.json", '[{"keys": "w", "frames": 1' + "0" * 400 + "}]", "at most 1000000"),
        ("a.json", '{"keyboard": [[1' + "0" * 400 + ",0,0,0]]}", "not a table of numbers"),
        (
            "a.json",
            '[{"forward":1,"back":0,"left":0,"right":0},'
            '{"forward":1,"back":0,"left":0,"right":0,"mouse_vertical":0,"mouse_horizontal":1}]',
            "row 1: 4 numbers are needed, not {'forward': 1",
        ),
        ("a.json", '{"segments": "w", "rows": [], "segments": "s"}', "'segments' is there twice"),
        ("a.csv", "n,forward,back,left,right\n" + "9" * 5_000 + ",1,0,0,0\n", "do not fit"),
        ("a.txt", " ", "no actions"),
        ("a.txt", "w*" + "9" * 5_000, "at most 1000000"),
        ("a.txt", "w*" + "9" * 4_000, "at most 1000000"),
        ("a.txt", "w" * 5_000, "unknown key 'www"),
        ("a.txt", "w*0", "at least 1 frame"),
        ("a.txt", "w*99999999999", "at most"),
        ("a.txt", "w*-3", "not keys\\*frames"),
        ("a.txt", "w*12,s*12", "not keys\\*frames"),
        ("a.txt", "x*12", "unknown key 'x'"),
    ],
)
def test_load_actions_names_the_problem_of_a_bad_file(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(ActionError, match=said) as caught:
        load_actions(_file(tmp_path, name, text), UNIVERSAL)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_segments_of_too_many_digits_are_refused() -> None:
    with pytest.raises(ActionError, match="at most 1000000"):
        load_actions("w*" + "9" * 5_000, UNIVERSAL)


def test_load_actions_names_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match="no such action file"):
        load_actions(tmp_path / "nowhere.csv", UNIVERSAL)
    (tmp_path / "noise.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ActionError, match="cannot be read as text: byte 0 is not UTF-8"):
        load_actions(tmp_path / "noise.csv", UNIVERSAL)
    (tmp_path / "sheet.csv").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(500))
    with pytest.raises(ActionError, match=r"sheet\.csv: is an Excel workbook \(export it as CSV"):
        load_actions(tmp_path / "sheet.csv", UNIVERSAL)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ActionError, match=r"folder\.csv: cannot be read \("):
        load_actions(tmp_path / "folder.csv", UNIVERSAL)


def test_load_actions_does_not_take_another_file_for_keys(tmp_path: Path) -> None:
    path = _file(tmp_path, "walk.yaml", "w*12")
    with pytest.raises(ActionError, match=r"walk\.yaml: action files are \.csv, .*, \.txt$"):
        load_actions(str(path), UNIVERSAL)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("walk.xlsx", r"^walk\.xlsx: no such action file; action files are"),
        ("my walk.cvs", r"^my walk\.cvs: no such action file"),
        ("{folder}", "is a folder; action files are"),
        ("{folder}/sheet.xlsx", r"sheet\.xlsx: is an Excel workbook .*; action files are"),
        ("w*1.5", "not keys"),
    ],
)
def test_load_actions_tells_files_from_keys(tmp_path: Path, source: str, reason: str) -> None:
    (tmp_path / "sheet.xlsx").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(500))
    with pytest.raises(ActionError, match=reason):
        load_actions(source.format(folder=tmp_path), UNIVERSAL)


PAGE = ROOT / "docs" / "actions.md"
EXAMPLES = re.findall(r"```(csv|json|txt)\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_examples_of_the_docs_load(tmp_path: Path, kind: str, text: str) -> None:
    space = UNIVERSAL if "left" in text or kind != "csv" else ACTION_SPACES["gta_drive"]
    track = load_actions(_file(tmp_path, f"example.{kind}", text), space)
    assert track.keyboard[0].tolist() == [1] + [0] * (len(space.keyboard) - 1)


def test_docs_show_every_kind_of_file() -> None:
    assert {kind for kind, _ in EXAMPLES} == {"csv", "json", "txt"}
    for space in ACTION_SPACES.values():
        assert ", ".join(space.keyboard) in PAGE.read_text()
