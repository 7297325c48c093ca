"""One running server for the tests of a module."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.live import RATE, LiveServer


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with LiveServer(frame_rate=RATE) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Run headless Chromium; skip the test where Chromium or playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()
