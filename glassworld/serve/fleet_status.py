"""The state of a fleet as a page, as JSON and as Prometheus metrics."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urljoin

from glassworld.play.server_state import BUCKETS, Metrics
from glassworld.play.traces.flight_recorder import late_frame_line
from glassworld.serve.seats import WorkerReport

Status = list[dict[str, Any]]
"""What the directory says: see `Directory.status`."""

_COLUMNS = ("worker", "state", "seats", "connected", "block p50", "frames", "stalls", "memory", "")


def status_json(status: Status) -> Status:
    """Return the status as JSON values."""
    return [
        {
            **world,
            "workers": [
                {
                    "name": report.name,
                    "state": report.state,
                    "address": f"{report.host or report.node}:{report.port}",
                    "seats": report.seats,
                    "taken": taken,
                    "connected": report.connected,
                    "block_p50_seconds": report.block_p50,
                    "frames": report.metrics.frames,
                    "stalls": report.metrics.stalls,
                    "memory_bytes": report.memory,
                    "process": report.process,
                    "reason": report.reason,
                    "late_frames": [
                        {
                            "time": late.time,
                            "block": late.block,
                            "frame": late.frame,
                            "late_seconds": late.late,
                            "trace": urljoin(report.address, late.trace),
                            "report": late.report and urljoin(report.address, late.report),
                        }
                        for late in report.late_frames
                    ],
                }
                for report, taken in world["workers"]
            ],
        }
        for world in status
    ]


def status_page(status: Status) -> str:
    """Return the status as a page, which loads itself again every two seconds."""
    body = "".join(_world_section(world) for world in status)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>glassworld fleet</title>'
        '<meta http-equiv="refresh" content="2"><link rel="stylesheet" href="/static/fleet.css">'
        f"<h1>Fleet</h1>{body}</html>"
    )


def _world_section(world: dict[str, Any]) -> str:
    rows = "".join(_row(report, taken) for report, taken in world["workers"])
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    facts = [f"waiting: {world['waiting']}", f"starting: {len(world['starting'])}"]
    facts.append(f"stalls per frame: {100 * world['missed_share']:.1f} %")
    if world["failure"]:
        facts.append(f"failure: {world['failure']}")
    return (
        f"<h2>{html.escape(world['world'])}</h2><p>{html.escape(', '.join(facts))}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"{_late_frames(report for report, _ in world['workers'])}"
    )


def _late_frames(reports: Iterable[WorkerReport]) -> str:
    """Return a list of the workers' late frames with their reports, the newest first."""
    late = [(frame, report) for report in reports for frame in report.late_frames]
    late.sort(key=lambda entry: entry[0].time, reverse=True)
    items = ""
    for frame, report in late:
        text, _, url = late_frame_line(frame, report.address).rpartition(": ")
        link = f'<a href="{html.escape(url)}">{html.escape(text)}</a>'
        items += f"<li>{html.escape(report.name)}: {link}</li>"
    return f"<ul>{items}</ul>" if items else ""


def _row(report: WorkerReport, taken: int) -> str:
    cells = (
        report.name,
        report.state,
        f"{taken} of {report.seats}",
        report.connected,
        f"{1e3 * report.block_p50:.0f} ms",
        report.metrics.frames,
        report.metrics.stalls,
        f"{report.memory / 1e6:.0f} MB",
        report.reason,
    )
    row = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
    return f'<tr class="{report.state}">{row}</tr>'


def fleet_metrics(status: Status) -> str:
    """Return the metrics of all workers in the Prometheus text format."""
    lines: list[str] = []
    for world in status:
        label = f'world="{_escaped(world["world"])}"'
        workers = world["workers"]
        lines.append(f"glassworld_fleet_waiting{{{label}}} {world['waiting']}")
        lines.append(f"glassworld_fleet_starting{{{label}}} {len(world['starting'])}")
        for state in ("loading", "ready", "draining", "failed"):
            count = sum(report.state == state for report, _ in workers)
            lines.append(f'glassworld_fleet_workers{{{label},state="{state}"}} {count}')
        for report, taken in workers:
            lines += _worker_lines(report, taken, f'{label},worker="{_escaped(report.name)}"')
    kinds = sorted({line.partition("{")[0] for line in lines})
    return "".join(f"{line}\n" for kind in kinds for line in _family(kind, lines))


def _escaped(value: str) -> str:
    """Return a label's value with what its format escapes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _family(kind: str, lines: list[str]) -> Iterator[str]:
    """Yield the type and the lines of one metric; a histogram's parts belong together."""
    base = kind
    for suffix in ("_bucket", "_sum", "_count"):
        base = base.removesuffix(suffix)
    if base == kind:
        yield f"# TYPE {kind} {'counter' if kind.endswith('_total') else 'gauge'}"
    elif kind.endswith("_bucket"):
        yield f"# TYPE {base} histogram"
    yield from (line for line in lines if line.partition("{")[0] == kind)


def _worker_lines(report: WorkerReport, taken: int, label: str) -> Iterator[str]:
    metrics: Metrics = report.metrics
    values = {
        "seats": report.seats,
        "seats_taken": taken,
        "connected": report.connected,
        "memory_bytes": report.memory,
        "block_p50_seconds": report.block_p50,
        "players_total": metrics.players,
        "faults_total": metrics.faults,
        "frames_total": metrics.frames,
        "stalls_total": metrics.stalls,
    }
    for name, value in values.items():
        yield f"glassworld_fleet_{name}{{{label}}} {value}"
    total = 0
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], metrics.buckets, strict=True):
        total += count
        yield f'glassworld_fleet_block_seconds_bucket{{{label},le="{bound}"}} {total}'
    yield f"glassworld_fleet_block_seconds_sum{{{label}}} {metrics.block_seconds}"
    yield f"glassworld_fleet_block_seconds_count{{{label}}} {total}"
