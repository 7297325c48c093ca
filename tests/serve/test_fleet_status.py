"""The status page and the metrics of a fleet."""

from __future__ import annotations

import re
from typing import Any

from glassworld.play.protocol import LateFrameInfo
from glassworld.play.server_state import Metrics
from glassworld.serve.fleet_status import fleet_metrics, status_json, status_page
from glassworld.serve.seats import WorkerReport


def status() -> list[dict[str, Any]]:
    metrics = Metrics(frames=10, stalls=1)
    metrics.count_block(0.2)
    report = WorkerReport("w-1", 'a "world"', "node", state="draining", metrics=metrics)
    report.reason = "<b>"
    report.host, report.port = "127.0.0.1", 99
    for second, made in enumerate(("/files/report", None)):
        late = LateFrameInfo(1e9 + second, 28, 345, 17, 0.41, f"/files/trace{second}", made)
        report.late_frames.append(late)
    world = {"world": 'a "world"', "failure": "", "waiting": 2, "missed_share": 0.5}
    return [world | {"starting": ["w-2"], "workers": [(report, 3)]}]


def test_metrics_have_one_type_line_for_each_name() -> None:
    lines = fleet_metrics(status()).splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    label = '{world="a \\"world\\"",worker="w-1"}'
    assert f"glassworld_fleet_frames_total{label} 10" in lines
    assert f"glassworld_fleet_block_seconds_count{label} 1" in lines
    assert 'glassworld_fleet_workers{world="a \\"world\\"",state="draining"} 1' in lines
    assert types.count("glassworld_fleet_block_seconds") == 1


def test_page_escapes_what_it_shows() -> None:
    page = status_page(status())
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "draining" in page


def test_late_frames_are_listed_with_their_files_the_newest_first() -> None:
    page = status_page(status())
    links = re.findall(
        r'<li>w-1: <a href="(.*?)">.*? frame 345 of block 28 was 0.41 s late</a>', page
    )
    assert links == ["http://127.0.0.1:99/files/trace1", "http://127.0.0.1:99/files/report"]
    ((first, second),) = [w["late_frames"] for w in status_json(status())[0]["workers"]]
    assert (first["block"], first["frame"], first["late_seconds"]) == (28, 345, 0.41)
    assert first["report"] == "http://127.0.0.1:99/files/report"
    assert (second["trace"], second["report"]) == ("http://127.0.0.1:99/files/trace1", None)


def test_status_has_json_values() -> None:
    (world,) = status_json(status())
    assert world["workers"][0]["taken"] == 3
    assert world["workers"][0]["state"] == "draining"
