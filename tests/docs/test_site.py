"""The site builds without a warning, and loads nothing from other hosts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.hooks.commands import command_page
from docs.hooks.pages import error_page

LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|data)=[\"']?"
    r"((?:https?:)?//[^\"' >]+)"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|prefetch|preconnect|icon|manifest))"
    r"[^>]*\bhref=[\"']?((?:https?:)?//[^\"' >]+)"
)
"""What a browser fetches when it shows a page; links that a reader may follow are not among it."""
CSS_LOADED = re.compile(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')]+)")


def test_the_pattern_finds_what_a_page_loads() -> None:
    page = """<a href="https://a.example"></a><link rel="stylesheet" href="https://b.example/x.css">
        <script src=https://c.example/y.js></script><img alt="" src="z.png">"""
    assert ["".join(found) for found in LOADED.findall(page)] == [
        "https://b.example/x.css",
        "https://c.example/y.js",
    ]


def test_the_command_page_has_every_flag_of_generate() -> None:
    page = command_page()
    section = page.split("## glassworld generate\n")[1].split("\n## ")[0]
    for flag in ("--world", "--actions", "--enable-profile", "--accelerate"):
        assert f"`{flag}`" in section
    assert "## glassworld trace compare\n" in page
    assert "completion" not in page


def test_the_error_page_has_the_errors_of_every_room() -> None:
    page = error_page()
    for module in ("engine/actions/files.py", "trace/reading/source.py", "training/cli.py"):
        assert f"## {module}\n" in page


@pytest.mark.slow
def test_site_builds_strictly_and_is_whole(site: Path) -> None:
    for page in ("index.html", "reference/cli.html", "reference/api.html", "zh/tags.html"):
        assert (site / page).stat().st_size > 2000
    assert "num_latent_frames" in (site / "reference" / "api.html").read_text(encoding="utf-8")
    assert not list(site.rglob("*.py")) or {path.parent.name for path in site.rglob("*.py")} == {
        "files"
    }


@pytest.mark.slow
def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not LOADED.findall(page.read_text(encoding="utf-8")), page.name
    for style in site.rglob("*.css"):
        assert not CSS_LOADED.findall(style.read_text(encoding="utf-8")), style.name
