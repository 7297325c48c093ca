"""The report page in a headless browser."""

import shutil

import pytest

from glassworld.trace import analyze
from glassworld.trace.report.html.page import write_page


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Return a function that opens a trace's page; errors and requests fail the test."""
    problems, contexts = [], []

    def note_request(request):
        if not request.url.startswith("file:"):
            problems.append(request.url)

    def open_page(trace, width=1280, **options):
        path = tmp_path / "page.html"
        write_page(path, analyze(trace))
        context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", note_request)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
