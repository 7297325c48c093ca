"""The report as one offline HTML page: data, style and script in a single file."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from glassworld.files import replacing
from glassworld.profiling.registry import FAMILIES
from glassworld.trace.report.html.data import page_data
from glassworld.trace.timeline.analysis import Analysis

_FOLDER = Path(__file__).parent
_SCRIPTS = (
    "base.js",
    "icicle.js",
    "charts.js",
    "findings.js",
    "run_sections.js",
    "operator_sections.js",
    "roofline_sections.js",
    "timeline_sections.js",
    "page.js",
)
"""The parts of the page's one script, in the order in which they are joined."""

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><noscript>Turn on JavaScript to see this report. It loads nothing but this file.</noscript>
<main id="report"></main>
<script type="application/json" id="data">{data}</script>
<script type="module">{script}</script></body></html>
"""


def page_path(trace: Path) -> Path:
    """Return where the report of `trace` goes: beside it, or here if its folder is read-only."""
    name = trace.name.removesuffix(".gz").removesuffix(".json")
    folder = trace.parent if os.access(trace.parent, os.W_OK) else Path()
    return folder / f"{name}_report.html"


def write_page(path: Path, analysis: Analysis) -> None:
    """Write the report; it needs no network and opens from a file."""
    data = msgspec.json.encode(page_data(analysis)).decode().replace("<", "\\u003c")
    page = _TEMPLATE.format(
        title="glassworld trace report",
        style=_family_colors() + (_FOLDER / "page.css").read_text(encoding="utf-8"),
        script="".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        data=data,
    )
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _family_colors() -> str:
    """Return the style that defines a variable for the color of each family of tags."""
    light = " ".join(f"--{family.name}: {family.light};" for family in FAMILIES)
    dark = " ".join(f"--{family.name}: {family.dark};" for family in FAMILIES)
    return (
        f":root {{ {light} }}\n"
        f'@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ {dark} }} }}\n'
        f':root[data-theme="dark"] {{ {dark} }}\n'
    )
