"""A trace alone in an archive is read; an archive of several is named as one."""

import gzip
import io
import itertools
import json
import os
import sys
import tarfile
import zipfile

import pytest

from glassworld.errors import TraceError
from glassworld.trace.reading.reader import read_trace
from tests.support.traces import engine_run, invoke

EVENTS = engine_run(blocks=1)
TEXT = json.dumps({"traceEvents": EVENTS}).encode()


def tar(path, count, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for i in range(count):
            info = tarfile.TarInfo(f"ranks/rank{i}.json")
            info.size = len(TEXT)
            archive.addfile(info, io.BytesIO(TEXT))
    return path


def zipped(path, count):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(count):
            archive.writestr(f"rank{i}.json", TEXT)
    return path


@pytest.mark.parametrize(
    "archive",
    [
        lambda p: tar(p / "t.tar.gz", 1),
        lambda p: tar(p / "t.tar", 1, "w"),
        lambda p: zipped(p / "t.zip", 1),
    ],
)
def test_only_trace_in_an_archive_is_read(tmp_path, archive):
    trace = read_trace(archive(tmp_path))
    assert trace.events == len(EVENTS)
    assert trace.losses == []


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (lambda p: tar(p / "ranks.tar.gz", 8), "a tar archive of 8 files"),
        (lambda p: zipped(p / "ranks.zip", 3), "a zip archive of 3 files"),
        (lambda p: zipped(p / "none.zip", 0), "a zip archive of 0 files"),
        (lambda p: tar(p / "t.tar.xz", 1, "w:xz"), "compressed with xz"),
        (lambda p: tar(p / "t.tar.bz2", 1, "w:bz2"), "compressed with bzip2"),
    ],
)
def test_archive_of_several_files_is_one_clear_line(tmp_path, archive, words):
    path = archive(tmp_path)
    with pytest.raises(TraceError, match=words):
        read_trace(path)
    result = invoke("top", path)
    assert result.exit_code != 0


def test_damaged_archive_is_one_clear_line(tmp_path):
    path = zipped(tmp_path / "t.zip", 1)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TraceError, match="damaged archive"):
        read_trace(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_folder_or_pipe_is_told_what_to_name(tmp_path):
    with pytest.raises(TraceError, match="is a folder; name a trace in it"):
        read_trace(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    os.write(writer, TEXT[:1000])
    with pytest.raises(TraceError, match="write it to a file"):
        read_trace(pipe)
    os.close(writer)


def test_byte_order_mark_is_no_damage(tmp_path):
    for i, text in enumerate((TEXT, json.dumps(EVENTS).encode())):
        path = tmp_path / f"{i}.json"
        path.write_bytes(b"\xef\xbb\xbf" + text)
        trace = read_trace(path)
        assert trace.events == len(EVENTS)
        assert trace.losses == []


def test_text_in_utf_16_is_read(tmp_path, small_pieces):
    path = tmp_path / "wide.json"
    path.write_bytes(TEXT.decode().encode("utf-16"))
    trace = read_trace(path)
    assert trace.events == len(EVENTS)
    assert trace.losses == []


OTHER = {"schemaVersion": 1, "deviceProperties": [{"id": 0}, {"id": 1}], "traceEvents": EVENTS}
WRITTEN = {
    "one line": TEXT,
    "indented": json.dumps(OTHER, indent=1).encode(),
    "metadata behind": json.dumps(dict(reversed(OTHER.items()))).encode(),
    "one event": json.dumps({"traceEvents": EVENTS[:1]}).encode(),
    "no events": b'{"traceEvents": []}',
    "cut short": TEXT[: len(TEXT) // 2],
}


def joined(kind, first, second):
    return gzip.compress(first) + gzip.compress(second) if kind == "gzip" else first + second


@pytest.mark.parametrize("kind", ["plain", "gzip"])
@pytest.mark.parametrize("second", WRITTEN)
@pytest.mark.parametrize("first", WRITTEN)
def test_two_traces_in_one_file_are_one_clear_line(tmp_path, first, second, kind, small_pieces):
    path = tmp_path / "joined.json"
    path.write_bytes(joined(kind, WRITTEN[first] + b"\n", WRITTEN[second]))
    for tags_only in (False, True):
        with pytest.raises(TraceError, match="holds two traces, one behind the other") as caught:
            read_trace(path, tags_only=tags_only)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tags_only", [False, True])
def test_two_arrays_of_events_in_one_file_are_one_clear_line(tmp_path, small_pieces, tags_only):
    text = json.dumps(EVENTS)
    path = tmp_path / "joined.json"
    path.write_text(text + text, encoding="utf-8")
    assert json.JSONDecoder().raw_decode(path.read_text(encoding="utf-8")) == (EVENTS, len(text))
    with pytest.raises(TraceError, match="holds two traces"):
        read_trace(path, tags_only=tags_only)


def test_two_traces_in_one_file_are_refused_by_what_merges_and_compares(tmp_path):
    whole, twice = tmp_path / "whole.json", tmp_path / "twice.json"
    whole.write_bytes(TEXT)
    twice.write_bytes(TEXT + TEXT)
    for command in ("compare", "merge", "ranks"):
        written = ["-o", tmp_path / "out.json"] if command == "merge" else []
        error = invoke(command, whole, twice, *written).exception
        assert isinstance(error, TraceError)
        assert f"{twice}: holds two traces" in str(error)
    assert not (tmp_path / "out.json").exists()


def test_one_trace_in_several_gzip_members_is_read_whole(tmp_path, small_pieces):
    path = tmp_path / "members.json.gz"
    third = len(TEXT) // 3
    cuts = (0, third, 2 * third, len(TEXT))
    path.write_bytes(b"".join(gzip.compress(TEXT[a:b]) for a, b in itertools.pairwise(cuts)))
    for tags_only in (False, True):
        trace = read_trace(path, tags_only=tags_only)
        assert len(trace.tags) == sum(e["cat"] == "user_annotation" for e in EVENTS)
        assert trace.losses == []


def test_trace_that_quotes_the_begin_of_another_is_read(tmp_path, small_pieces):
    events = [event | {"args": {"text": '{"traceEvents": [{'}} for event in EVENTS]
    path = tmp_path / "quotes.json"
    path.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    for tags_only in (False, True):
        trace = read_trace(path, tags_only=tags_only)
        assert len(trace.tags) == sum(e["cat"] == "user_annotation" for e in EVENTS)
        assert trace.losses == []
