"""The page in headless Chromium; skipped where Chromium or playwright is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glassworld.engine.actions.files import load_actions, recorded_noise
from tests.support import tiny
from tests.support.live import LiveServer
from tests.support.page import opened, text, until
from tests.support.slow_blocks import slow_blocks

TOASTS = "document.getElementById('toasts').textContent"


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with LiveServer(frame_rate=24) as running:
        yield running


@pytest.fixture
def page(browser: Any, live: LiveServer) -> Iterator[Any]:
    yield from opened(browser, live, viewport={"width": 1280, "height": 800})


@pytest.fixture
def phone(browser: Any, live: LiveServer) -> Iterator[Any]:
    yield from opened(
        browser, live, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )


def shown(page: Any) -> dict[str, Any]:
    """Return the header of the frame on the canvas, and its pixels."""
    return dict(
        page.evaluate(
            """() => {
                const { canvas } = glassworld.screen;
                const context = canvas.getContext("2d");
                const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
                return { ...glassworld.state.shown, pixels: Array.from(data) };
            }"""
        )
    )


def pixels_of(frame: dict[str, Any]) -> np.ndarray:
    return np.array(frame["pixels"], np.uint8).reshape(32, 48, 4)[..., :3]


def test_keys_move_the_world_and_the_measurements_appear(page: Any) -> None:
    page.keyboard.down("w")
    until(page, "glassworld.state.shown.action >= 1")
    assert page.locator(".pad .held b").all_inner_texts() == ["W"]
    assert page.locator(".pad .seen b").all_inner_texts() == ["W"]
    page.keyboard.up("w")
    until(page, "document.querySelectorAll('.pad .seen').length === 0")
    until(page, "Number(document.getElementById('fps').textContent) > 0")
    assert float(text(page, "#p50")) > 0
    assert float(text(page, "#p95")) >= float(text(page, "#p50"))
    assert "Decode" in text(page, "#stages")
    assert "Denoise t=1000" in text(page, "#stages")
    assert "Wait for device" in text(page, "#stages")
    until(page, "parseFloat(document.getElementById('network').textContent) > 0")
    assert text(page, "#status") in ("live", "slow")


def test_tap_between_two_blocks_is_not_lost(page: Any) -> None:
    page.keyboard.press("a")
    until(page, "glassworld.state.shown.action >= 1")
    until(page, "glassworld.controls.held.size === 0")


def test_the_mouse_looks_around_in_pointer_lock(page: Any, tmp_path: Path) -> None:
    page.keyboard.press("v")
    until(page, "glassworld.state.recording !== null")
    box = page.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 300, y)
    until(page, "glassworld.controls.mouse.x === 0")  # no effect without pointer lock
    page.mouse.click(x, y)
    until(page, "document.pointerLockElement === document.getElementById('screen')")
    for step in range(1, 9):
        page.mouse.move(x + 20 * step, y - 5 * step)
    until(page, "document.querySelectorAll('.pad .seen').length === 2")
    assert sorted(page.locator(".pad .seen b").all_inner_texts()) == ["I", "L"]
    until(page, "Math.abs(glassworld.controls.mouse.x) < 1")  # a block has used the movement
    until(page, "document.querySelectorAll('.pad .seen').length === 0")
    page.evaluate("document.exitPointerLock()")
    until(page, "!document.getElementById('screen').classList.contains('locked')")
    page.keyboard.press("v")
    mouse = np.array(
        json.loads(downloaded(page, "Actions", tmp_path).read_text(encoding="utf-8"))["mouse"]
    )
    vertical, horizontal = mouse.sum(0)
    assert 0 < vertical < horizontal


def downloaded(page: Any, name: str, folder: Path) -> Path:
    """Click a link of the newest result card; return the downloaded file."""
    with page.expect_download() as download:
        page.click(f".result a:text('{name}')")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def due_times(page: Any, arrivals: list[float]) -> list[float]:
    """Return when frames at 10 a second are due in the page, by their arrival in ms."""
    return list(
        page.evaluate(
            """async (arrivals) => {
                const { FrameClock } = await import("./static/frame_clock.js");
                const clock = new FrameClock(100);
                return arrivals.map((time) => clock.schedule(time));
            }""",
            arrivals,
        )
    )


def test_frames_are_shown_sooner_once_they_arrive_early(page: Any) -> None:
    arrivals = [100.0 * number + 10 * (number % 2) for number in range(60)]
    due = due_times(page, arrivals)
    assert np.diff(due[:24]) == pytest.approx(100)
    assert due[0] - arrivals[0] == 60
    waits = np.subtract(due, arrivals)
    assert waits[30:].min() == pytest.approx(15)
    assert waits[30:].max() == pytest.approx(25)


def test_late_frame_makes_later_ones_wait_longer(page: Any) -> None:
    arrivals = [0.0, 100.0, 400.0, 500.0, 600.0]
    assert due_times(page, arrivals) == [60, 160, 460, 560, 660]


def test_frames_keep_more_time_to_spare_for_a_while_after_late_ones(page: Any) -> None:
    arrivals = [0.0, 100.0, 280.0, 380.0, 480.0]  # the third is late
    arrivals += [760.0 + 100 * number for number in range(500)]  # and the first of these
    waits = np.subtract(due_times(page, arrivals), arrivals)
    assert waits[2] == waits[5] == 60  # after each, the clock starts anew
    assert waits[35] == pytest.approx(60)  # 15, twice doubled
    assert waits[65] == pytest.approx(54)
    assert waits[-1] == pytest.approx(15)


def test_names_from_the_server_are_never_html(page: Any) -> None:
    assert page.locator("#gallery b").count() == 0
    assert page.locator("#gallery [data-id='1']").get_attribute("title") == "<b>gray</b>"


def test_pause_step_and_rewind(page: Any) -> None:
    page.keyboard.press(" ")
    until(page, "document.getElementById('status').textContent === 'paused'")
    page.wait_for_timeout(400)
    first = shown(page)
    page.wait_for_timeout(700)
    assert shown(page)["frame"] == first["frame"]
    page.keyboard.press(".")
    until(page, f"glassworld.state.shown.frame > {first['frame']}")
    page.wait_for_timeout(1200)
    second = shown(page)
    assert (second["frame"] + 1 - 9) % 12 == 0  # the end of a block
    page.keyboard.press("Backspace")
    until(page, "glassworld.state.shown.still")
    back = shown(page)["frame"]
    assert back <= second["frame"]
    page.keyboard.press("Backspace")
    until(page, f"glassworld.state.shown.frame < {back}")
    page.keyboard.press(" ")
    until(page, f"glassworld.state.shown.frame > {second['frame']}")


def test_record_and_replay_give_the_same_frames(
    page: Any, live: LiveServer, tmp_path: Path
) -> None:
    page.keyboard.press("r")
    until(page, "glassworld.state.shown.still || glassworld.state.shown.frame < 5")
    page.keyboard.press("v")
    until(page, "glassworld.state.recording !== null")
    page.keyboard.down("w")
    until(page, "glassworld.state.shown.frame > 30")
    page.keyboard.press(" ")
    page.wait_for_timeout(400)
    frame = shown(page)
    page.keyboard.press("v")
    for name in ("Video", "Actions", "Start image"):
        downloaded(page, name, tmp_path)
    assert text(page, ".result code") == live.state.replay
    assert (tmp_path / "walk.mp4").read_bytes()[4:8] == b"ftyp"

    world = tiny.world(frame_rate=24)
    track = load_actions(tmp_path / "walk.json", world.space)
    noise = recorded_noise(tmp_path / "walk.json")
    run = world.generate(
        tmp_path / "picture.png", (len(track) - 1) // 4 + 1, noise.seed, track, noise=noise.mode
    )
    np.testing.assert_array_equal(pixels_of(frame), run.frames[frame["frame"]])
    assert (
        json.loads((tmp_path / "walk.json").read_text(encoding="utf-8"))["keyboard"][-1][0] == 1.0
    )


def test_start_images_upload_and_seed(page: Any, tmp_path: Path) -> None:
    page.click("#gallery button[data-id='1']")
    until(page, "document.querySelector('#gallery .chosen').dataset.id === '1'")
    tiny.picture(64, 96).save(tmp_path / "mine.png")
    page.set_input_files("#file", tmp_path / "mine.png")
    until(page, "document.querySelector('#gallery .chosen').dataset.id === 'upload'")
    page.fill("#seed", "123")
    page.press("#seed", "Enter")
    until(page, "glassworld.state.seed === 123 && glassworld.state.started")
    (tmp_path / "none.png").write_bytes(b"no picture")
    page.set_input_files("#file", tmp_path / "none.png")
    page.wait_for_selector("#toasts p")
    assert "image" in text(page, "#toasts")

    page.evaluate("glassworld.connection.socket.close()")
    until(page, "!glassworld.state.started")
    until(page, "glassworld.state.started")  # from the image that the server took
    until(page, "document.querySelector('#gallery .chosen').dataset.id === 'upload'")


def test_image_that_is_uploaded_beside_another_does_not_take_its_place(
    page: Any, tmp_path: Path
) -> None:
    page.evaluate(
        """() => {
            const { connection } = glassworld, take = connection.onMessage;
            connection.onMessage = (message) => {
                if (message.type === "picture") globalThis.answer = () => take(message);
                else take(message);
            };
        }"""
    )
    tiny.picture(64, 96).save(tmp_path / "mine.png")
    page.set_input_files("#file", tmp_path / "mine.png")
    until(page, "globalThis.answer")  # which is still on its way to the page
    (tmp_path / "none.png").write_bytes(b"no picture")
    page.set_input_files("#file", tmp_path / "none.png")
    until(page, f"{TOASTS} === 'Wait until the server has read your last image.'")
    page.evaluate("answer()")
    until(page, "document.querySelector('#gallery .chosen').dataset.id === 'upload'")
    until(page, "document.querySelector('#gallery .upload img').naturalWidth === 96")


@pytest.mark.parametrize("name", ["images", "walk.gws"])
def test_folder_that_is_dropped_is_refused(page: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name / "inside").mkdir(parents=True)
    browser_session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(tmp_path / name)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 300, "y": 300, "data": data}
        browser_session.send("Input.dispatchDragEvent", event)
    until(page, f"{TOASTS} === 'That file could not be read. Choose another.'")


def test_equal_notices_are_shown_once(page: Any) -> None:
    counts = page.evaluate(
        """async () => {
            const { toast } = await import("/static/notices.js");
            const list = document.getElementById("toasts").children;
            return ["one", "two", "one", "one"].map((text) => (toast(text), list.length));
        }"""
    )
    assert counts == [1, 2, 2, 2]


def test_page_plays_in_a_browser_that_blocks_cookies(browser: Any, live: LiveServer) -> None:
    script = """Object.defineProperty(window, "sessionStorage", {
        get() { throw new DOMException("denied", "SecurityError"); } });"""
    pages = opened(browser, live, script=script)
    assert text(next(pages), "#status") in ("live", "slow")
    assert next(pages, None) is None


def test_capture_is_offered_again_when_its_session_is_replaced(page: Any) -> None:
    for message in (
        {"type": "loaded", "number": 1, "seed": 2},
        {"type": "joined", "number": 1, "seed": 2, "picture": "0"},
        {"type": "followed"},
    ):
        page.evaluate("document.getElementById('capture').disabled = true")
        page.evaluate("message => glassworld.connection.onMessage(message)", message)
        assert page.locator("#capture").is_enabled()


def test_session_is_asked_for_from_the_first_missing_frame_on(page: Any) -> None:
    body = page.evaluate(
        """async () => {
            const { connection } = glassworld;
            Object.assign(connection, { session: "t", next: 77 });
            const fetching = new Promise((resolve) => {
                globalThis.fetch = async (_, { body }) => (resolve(body), new Response("{}"));
            });
            await connection.askForSeat();
            return fetching;
        }"""
    )
    assert json.loads(body) == {"token": "t", "next": 77}


def test_capture_opens_its_report(page: Any) -> None:
    page.select_option("#capture-blocks", "1")
    page.click("#capture")
    link = page.wait_for_selector(".result a:text('Open the report')", timeout=60_000)
    with page.context.expect_page() as opening:
        link.click()
    opening.value.wait_for_load_state()
    assert opening.value.locator("body").inner_text()


def test_help_lists_the_keys(page: Any) -> None:
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    assert "forward" in text(page, "#help-keys")
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_full_screen_keeps_the_on_screen_keys(page: Any) -> None:
    page.keyboard.press("f")
    until(page, "document.fullscreenElement === document.getElementById('stage')")
    assert page.locator(".pad [data-key='w']").is_visible()
    assert not page.locator("#bar").is_visible()
    page.keyboard.press("f")
    until(page, "document.fullscreenElement === null")
    assert page.locator("#bar").is_visible()


def test_slow_server_is_announced(browser: Any) -> None:
    with LiveServer(frame_rate=2000) as live:
        pages = opened(browser, live)
        page = next(pages)
        until(page, "document.getElementById('status').textContent === 'slow'")
        assert page.locator("#slow").is_visible()
        assert "slower than real time" in text(page, "#slow")
        assert "2000 frames per second" in text(page, "#slow")
        assert next(pages, None) is None


def test_mode_with_one_key_at_a_time_and_no_mouse(browser: Any) -> None:
    dit = {"action": replace(tiny.DIT.action, keyboard_dim=7, mouse_dim=0)}
    with LiveServer(frame_rate=24, mode="templerun", dit=dit) as live:
        pages = opened(browser, live)
        page = next(pages)
        assert text(page, "#hint") == "Move with W A S D Z C"
        page.click("#canvas")
        page.keyboard.down("a")
        page.keyboard.down("w")
        until(page, "document.querySelector('.pad .seen b')?.textContent === 'W'")
        assert page.locator(".pad .seen").count() == 1
        page.keyboard.up("w")
        until(page, "document.querySelector('.pad .seen b')?.textContent === 'A'")
        assert page.evaluate("document.pointerLockElement") is None
        assert next(pages, None) is None


def test_on_screen_keys_react_to_touch_and_the_page_fits(phone: Any) -> None:
    box = phone.locator(".pad [data-key='w']").bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(phone, "glassworld.state.shown.action >= 1")
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert phone.locator(".pad [data-key='l']").bounding_box()["x"] < 390 - 40


def test_page_reconnects_when_the_server_is_back(browser: Any) -> None:
    with LiveServer(frame_rate=24) as first:
        pages = opened(browser, first)
        page = next(pages)
        page.keyboard.down("w")
        until(page, "glassworld.state.shown.action >= 1")
    until(page, "document.getElementById('status').textContent === 'reconnecting'")
    assert "Reconnecting" in text(page, "#overlay-text")
    with LiveServer(frame_rate=24, port=first.port):
        until(page, "document.getElementById('status').textContent === 'live'")
        until(page, "glassworld.state.shown.frame > 20")
        until(page, "document.querySelector('.pad .seen b')?.textContent === 'W'")  # down still
        page.keyboard.up("w")
        until(page, "document.querySelectorAll('.pad .seen').length === 0")
        assert next(pages, None) is None


def test_token_in_the_address_opens_everything(browser: Any) -> None:
    with LiveServer(token="secret", frame_rate=24) as live:
        pages = opened(browser, live, "?token=secret")
        page = next(pages)
        until(page, "[...document.querySelectorAll('#gallery img')].every((i) => i.naturalWidth)")
        assert page.locator("#gallery img").count() == 2
        assert next(pages, None) is None


def test_full_server_is_announced(browser: Any) -> None:
    with LiveServer(slots=1, frame_rate=24) as live, live.client():
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{live.port}/")
        until(page, "document.getElementById('overlay-text').textContent.includes('full')")
        context.close()


def test_saved_session_goes_on_when_it_is_loaded(page: Any, tmp_path: Path) -> None:
    page.click("#save")
    until(page, "document.querySelector('.result a')")
    assert "Saved the session before block" in text(page, ".result")
    number = int(text(page, ".result").split("block ")[1].split(".")[0])
    with page.expect_download() as downloads:
        page.click(".result a")
    assert downloads.value.suggested_filename == "walk.gws"
    downloads.value.save_as(tmp_path / "walk.gws")
    page.fill("#seed", "99")
    page.press("#seed", "Enter")
    until(page, "glassworld.state.seed === 99 && glassworld.state.shown.block < 3")
    with page.expect_file_chooser() as chooser:
        page.click("#load")
    chooser.value.set_files(tmp_path / "walk.gws")
    until(page, "glassworld.state.seed !== 99")
    assert f"Loaded the session. It continues with block {number}." in text(page, "#toasts")
    until(page, f"glassworld.state.shown.block >= {number}")

    (tmp_path / "walk.gws").write_bytes(b"no session")
    with page.expect_file_chooser() as chooser:
        page.click("#load")
    chooser.value.set_files(tmp_path / "walk.gws")
    until(page, "document.getElementById('toasts').textContent.includes('not a')")
    shown_before = page.evaluate("glassworld.state.shown.frame")
    until(page, f"glassworld.state.shown.frame > {shown_before}")


def test_late_frame_is_listed_with_its_report_also_after_a_reload(browser: Any) -> None:
    with LiveServer(frame_rate=24, flight_recorder_seconds=30) as server:
        for page in opened(browser, server, viewport={"width": 1280, "height": 800}):
            with slow_blocks(page.evaluate("glassworld.state.shown.block") + 4):
                until(page, "document.querySelector('#late-frames a')", 90)
            listed = text(page, "#late-frames li")
            assert re.search(r"frame \d+ of block \d+: \d+\.\d\d s late Report Trace", listed)
            with page.expect_popup() as popup:
                page.locator("#late-frames a", has_text="Report").click()
            report = popup.value
            report.wait_for_load_state()
            assert "late, at" in report.content()
            page.reload()
            until(page, "document.querySelector('#late-frames a')")
            assert text(page, "#late-frames li") == listed
