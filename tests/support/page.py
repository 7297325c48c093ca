"""The page in a headless browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.support.live import LiveServer


def opened(
    browser: Any, live: LiveServer, query: str = "", script: str = "", **options: Any
) -> Iterator[Any]:
    """Yield the page once it plays; fail on errors in its scripts. `script` runs before those."""
    context = browser.new_context(**options)
    if script:
        context.add_init_script(script)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://127.0.0.1:{live.port}/{query}")
    until(page, "globalThis.glassworld?.state.shown?.frame > 8")
    yield page
    context.close()
    assert not errors


def until(page: Any, expression: str, seconds: float = 30) -> None:
    """Wait until `expression` is true; the page's policy forbids `wait_for_function`."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < end, f"still not: {expression}"
        page.wait_for_timeout(50)


def text(page: Any, selector: str) -> str:
    return str(page.locator(selector).inner_text())
