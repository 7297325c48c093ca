"""A trace that is kept under a name compares like its file, also as Markdown."""

import pytest

from glassworld.errors import InputError, TraceError
from glassworld.trace.writing.baselines import baseline_names
from tests.support.traces import engine_run, invoke, write


@pytest.fixture
def runs(tmp_path):
    slow = engine_run(slow=lambda **where: 400.0 if where["layer"] == 1 else 0.0)
    return write(tmp_path / "a.json", engine_run()), write(tmp_path / "b.json", slow)


def test_baseline_compares_like_its_file(runs):
    before, after = runs
    assert "no baselines" in invoke("baseline", "list").output
    assert invoke("baseline", "save", "main", before).exit_code == 0
    assert invoke("baseline", "list").output.split() == ["main"]
    assert baseline_names() == ["main"]
    named = invoke("compare", "main", after, "--json").output
    assert named == invoke("compare", before, after, "--json").output
    assert invoke("baseline", "delete", "main").exit_code == 0
    assert baseline_names() == []


def test_compare_markdown_shows_what_changed_and_folds_the_rest(runs):
    text = invoke("compare", *runs, "--markdown").output
    changed, _, others = text.partition("<details>")
    assert "DiT_Layer_1`" in changed
    assert "slower" in changed
    assert "DiT_Layer_2`" in others
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {7}


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("baseline", "save", "../up", "b.json"), InputError, "no name of a baseline"),
        (("baseline", "delete", "other"), InputError, "no baseline of that name"),
        (("compare", "other", "b.json"), TraceError, "no such trace, and no baseline"),
    ],
)
def test_baseline_bad_arguments_are_one_clear_line(runs, monkeypatch, arguments, kind, words):
    monkeypatch.chdir(runs[1].parent)
    result = invoke(*arguments)
    assert isinstance(result.exception, kind)
    assert words in str(result.exception)
    assert baseline_names() == []


def test_baseline_of_what_is_no_trace_is_not_kept(tmp_path):
    (tmp_path / "t.json").write_text("{}", encoding="utf-8")
    assert isinstance(invoke("baseline", "save", "main", tmp_path / "t.json").exception, TraceError)
    assert baseline_names() == []
