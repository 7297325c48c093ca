"""The site and the play page can be used by everybody, and the check notices where not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.accessibility import accessibility_flaws, watch_console
from tests.support.live import LiveServer
from tests.support.page import opened, until

FLAWED = """<!doctype html><title> </title>
<style>body { background: white; color: #111; margin: 0 } .quiet:focus { outline: none }</style>
<p style="color: #999">pale</p>
<p style="color: #888; font-size: 30px">pale but large</p>
<p style="background: linear-gradient(#333, #eee)">dark on dark</p>
<div style="position: relative"><canvas width="300" height="40"></canvas><b
  style="position: absolute; left: 0; top: 0; background: rgba(255, 255, 255, .2)">above</b></div>
<p><img src="data:,"></p>
<p style="width: 1500px">wide</p>
<button class="quiet">unseen</button>
<button tabindex="-1">unreached</button>
<button style="position: absolute; left: -300px">off</button>
<span style="cursor: pointer">mouse</span>
<p><input type="text"></p>
<script>console.error("broken")</script>
"""
GOOD = """<!doctype html><html lang="en"><title>good</title>
<style>body { background: white; color: #111 }</style>
<main><p style="color: #767676">just enough</p><img alt="a dot" src="data:,">
<button disabled style="color: #ddd">off</button><button>on</button>
<label>Name <input></label><a href="#x">more</a></main></html>
"""


def test_check_finds_every_flaw(browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    errors = watch_console(page)
    page.set_content(FLAWED)
    flaws = accessibility_flaws(page)
    page.close()
    assert errors == ["broken"]
    for part in (
        "no lang",
        "no title",
        "no alt text: data:,",
        "1500 pixels wide, of 1280",
        'contrast 2.85 of 4.5 for "pale"',
        'for "dark on dark"',
        'for "above"',
        "no visible focus: <button",
        "not reached by Tab: <button",
        "only for the mouse: <span",
        "focus off the page: <button",
        "no name: textbox",
        "no name: image",
    ):
        assert sum(part in flaw for flaw in flaws) == 1, (part, flaws)
    assert len(flaws) == 13, flaws


def test_check_finds_nothing_on_a_good_page(browser: Any) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    errors = watch_console(page)
    page.set_content(GOOD)
    assert accessibility_flaws(page) == []
    page.close()
    assert errors == []


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with LiveServer(frame_rate=24) as running:
        yield running


@pytest.mark.parametrize("width", [1280, 390])
def test_play_page_is_usable_by_everybody(browser: Any, live: LiveServer, width: int) -> None:
    size = {"width": width, "height": 844}
    for page in opened(browser, live, viewport=size, reduced_motion="reduce"):
        errors = watch_console(page)
        assert accessibility_flaws(page, pointer_only=".pad span") == []  # WASD does the same
        page.keyboard.press("v")
        until(page, "glassworld.state.recording !== null")
        page.wait_for_timeout(600)
        page.keyboard.press("v")
        page.wait_for_selector(".result")
        assert accessibility_flaws(page, pointer_only=".pad span") == []
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        assert accessibility_flaws(page, pointer_only=".pad span") == []
        assert errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_site_is_usable_by_everybody(browser: Any, site: Path, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
    )
    for name in ("index", "trace", "reference/protocol", "zh/tags"):
        page = context.new_page()
        errors = watch_console(page)
        page.goto((site / f"{name}.html").as_uri())
        assert accessibility_flaws(page) == [], name
        assert errors == []
        page.close()
    context.close()


def test_site_has_no_wide_page_and_no_console_error(browser: Any, site: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    errors = watch_console(page)
    for path in sorted(set(site.rglob("*.html")) - {site / "404.html"}):  # its paths begin with /
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.title(), path
        assert errors == [], path
    page.close()


@pytest.mark.parametrize("key", ["Enter", " "])
def test_menu_of_the_site_opens_by_the_keyboard(browser: Any, site: Path, key: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((site / "index.html").as_uri())
    page.focus(".md-header__button[for=__drawer]")
    page.keyboard.press(key)
    assert page.is_checked("#__drawer")
    page.focus(".md-nav__link[href='quickstart.html']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/quickstart.html")
    page.close()
