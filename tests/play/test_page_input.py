"""Keyboards, focus and fingers on the page, in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support import tiny
from tests.support.live import LiveServer
from tests.support.live import until as server_until
from tests.support.page import opened, text, until

AZERTY = {"KeyW": "z", "KeyA": "q", "KeyQ": "a", "KeyZ": "w", "Slash": "!"}
COLEMAK = {"KeyS": "r", "KeyR": "p", "KeyT": "g", "KeyE": "f", "KeyF": "t"}
LAYOUT = """
    navigator.keyboard.getLayoutMap = async () => new Map(Object.entries({
        KeyS: "s", KeyD: "d", KeyR: "r", ...%s }));
"""


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with LiveServer(frame_rate=24) as running:
        yield running


@pytest.fixture
def page(browser: Any, live: LiveServer) -> Iterator[Any]:
    yield from opened(browser, live, viewport={"width": 1280, "height": 800})


def press(page: Any, code: str, key: str, kind: str = "keydown") -> None:
    """Press a key as a keyboard of some layout does: at the place `code`, with the text `key`."""
    page.evaluate(
        f"""document.activeElement.dispatchEvent(new KeyboardEvent({kind!r},
            {{ code: {code!r}, key: {key!r}, bubbles: true, cancelable: true }}))"""
    )


def record_actions(page: Any) -> None:
    """Note the types of the messages that the page sends, except pings."""
    page.evaluate(
        """() => {
            const { connection } = glassworld, send = connection.send.bind(connection);
            globalThis.sent = [];
            connection.send = (type, fields) => {
                if (!["ping", "seen"].includes(type)) sent.push(type);
                send(type, fields);
            };
        }"""
    )


def sent(page: Any) -> list[str]:
    return list(page.evaluate("sent.splice(0)"))


def test_key_of_a_control_is_no_shortcut_on_any_layout(page: Any) -> None:
    record_actions(page)
    for code, key in (("KeyS", "r"), ("KeyJ", "t"), ("KeyD", "v"), ("KeyA", "f")):
        press(page, code, key)
        press(page, code, key, "keyup")
        assert set(sent(page)) == {"act"}
    until(page, "glassworld.controls.held.size === 0")


def test_shortcuts_work_on_a_cyrillic_layout(page: Any) -> None:
    record_actions(page)
    press(page, "KeyR", "\u043a")
    assert sent(page) == ["start"]
    press(page, "KeyV", "\u043c")
    assert sent(page) == ["record"]
    until(page, "glassworld.state.recording !== null")
    assert page.get_attribute("#record", "aria-pressed") == "true"


def test_labels_are_those_of_the_layout(browser: Any, live: LiveServer) -> None:
    for layout, keys, reset in ((AZERTY, "Z Q S D", "(R)"), (COLEMAK, "W A R D", "(P)")):
        pages = opened(browser, live, script=LAYOUT % layout)
        page = next(pages)
        until(page, f"document.querySelector('.pad b').textContent === {keys[0]!r}")
        assert sorted(page.locator(".pad b").all_inner_texts()[:4]) == sorted(keys.split())
        assert all(key in text(page, "#hint-how") for key in keys.split())
        assert page.get_attribute("#reset", "title").endswith(reset)
        page.keyboard.press("?")
        assert keys[0] in page.locator("#help-keys dt").all_inner_texts()
        assert next(pages, None) is None


def test_space_and_enter_press_the_focused_button_and_keep_the_focus(page: Any) -> None:
    record_actions(page)
    page.focus("#reset")
    for key in (" ", "Enter"):
        page.keyboard.press(key)
        assert sent(page) == ["start"]
        assert page.evaluate("document.activeElement.id") == "reset"
    page.click("#reset")
    sent(page)
    page.keyboard.press(" ")
    assert set(sent(page)) == {"pause"}  # again once the new session has started, if it had not
    page.keyboard.press(" ")


def test_space_pauses_also_after_a_download(page: Any) -> None:
    page.evaluate("const link = Object.assign(document.createElement('a'), { href: '#' });"
                  "document.body.append(link); link.focus();")  # fmt: skip
    page.keyboard.press("Space")
    assert page.evaluate("glassworld.state.playing") is False


def test_keys_move_the_world_while_the_select_has_the_focus(page: Any) -> None:
    page.focus("#capture-blocks")
    page.keyboard.down("w")
    until(page, "glassworld.controls.keys.includes('w')")
    page.keyboard.up("w")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#capture-blocks") == "4"
    assert page.evaluate("glassworld.controls.held.has('k')") is False


def test_hidden_page_releases_the_keys_and_still_sends_pings(page: Any) -> None:
    page.keyboard.down("w")
    page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { value: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    until(page, "glassworld.controls.held.size === 0")
    ping = page.evaluate("glassworld.state.ping.id")
    until(page, f"glassworld.state.ping.id > {ping + 1}")


def touch(page: Any, kind: str, finger: int, key: str = "w") -> None:
    page.evaluate(
        f"""() => {{
            const cell = document.querySelector(".pad [data-key='{key}']");
            const {{ x, y, width, height }} = cell.getBoundingClientRect();
            const pads = document.getElementById("pads");
            pads.setPointerCapture = () => {{}};
            cell.dispatchEvent(new PointerEvent({kind!r}, {{ pointerId: {finger}, bubbles: true,
                cancelable: true, clientX: x + width / 2, clientY: y + height / 2 }}));
        }}"""
    )


def test_key_under_two_fingers_is_held_until_both_are_lifted(page: Any) -> None:
    touch(page, "pointerdown", 1)
    touch(page, "pointerdown", 2)
    touch(page, "pointerup", 1)
    page.wait_for_timeout(1500)  # longer than a block
    assert page.evaluate("glassworld.controls.keys") == ["w"]
    pressed = ".pad [data-key='w'][role=button][aria-pressed=true]"
    assert page.locator(pressed).count() == 1
    touch(page, "pointerup", 2)
    until(page, "glassworld.controls.keys.length === 0")
    page.locator(".pad [data-key='w']").dispatch_event("click")  # of a screen reader
    until(page, "glassworld.controls.keys.length === 0")


def test_keys_are_not_stuck_when_the_browser_keeps_their_release(page: Any) -> None:
    page.keyboard.down("w")
    page.locator("#canvas").click(button="right")  # a menu opens: it would get the keyup
    assert page.evaluate("glassworld.controls.keys") == []
    page.keyboard.up("w")
    page.keyboard.down("s")
    press(page, "MetaLeft", "Meta")
    press(page, "MetaLeft", "Meta", "keyup")
    assert page.evaluate("glassworld.controls.keys") == []
    page.keyboard.up("s")
    pad = page.locator(".pad [data-key='a']")
    pad.hover()
    page.mouse.down(button="right")
    assert page.evaluate("glassworld.controls.keys") == []
    page.mouse.up(button="right")
    touch(page, "pointerdown", 1)
    touch(page, "contextmenu", 1)  # of a finger that rests on the key
    assert page.evaluate("glassworld.controls.keys") == ["w"]


def test_mouse_moves_only_what_a_control_moves(page: Any) -> None:
    movement = """mouse => {
        const { controls, state } = glassworld;
        controls.configure({ ...state.hello, controls: [{ name: "left", key: "a", mouse }] });
        Object.assign(controls.mouse, { x: 500, y: 500 });
        return controls.movement.map(Math.sign);
    }"""
    assert page.evaluate(movement, [0, -0.1]) == [0, 1]
    assert page.evaluate(movement, [0.1, 0]) == [1, 0]


def drop(page: Any, name: str, size: int) -> None:
    page.evaluate(
        """([name, size]) => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([new Uint8Array(size)], name));
            document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
        }""",
        [name, size],
    )


def test_file_that_is_no_session_does_not_end_the_one_that_runs(page: Any) -> None:
    record_actions(page)
    for size, reason in (0, "empty"), (2**26 + 1, "larger than 64 MiB"), (9, "not a saved session"):
        drop(page, "walk.gws", size)
        until(page, f"document.getElementById('toasts').textContent.includes({reason!r})")
    assert sent(page) == ["load"]
    frame = page.evaluate("glassworld.state.shown.frame")
    until(page, f"glassworld.state.shown.frame > {frame + 12}")
    assert "start" not in sent(page)


@pytest.mark.parametrize("reload", [False, True])
def test_recording_is_offered_after_the_connection_was_lost(page: Any, reload: bool) -> None:
    page.keyboard.press("v")
    until(page, "glassworld.state.recording !== null")
    first = page.evaluate("glassworld.state.shown.frame")
    until(page, f"glassworld.state.shown.frame > {first + 13}")  # a block has been recorded
    if reload:
        page.reload()
    else:
        page.evaluate("glassworld.connection.socket.close()")
    until(page, "document.querySelector('.result')?.textContent.startsWith('Recorded')")
    assert not page.locator("#recording").is_visible()
    link = page.locator(".result a:text('Video')").get_attribute("href")
    assert page.request.get(page.url.rstrip("/") + link).body()[4:8] == b"ftyp"
    assert page.evaluate("history.state.recording") is None
    until(page, "document.getElementById('status').textContent === 'live'")


def test_page_has_a_heading_and_no_motion_where_it_is_unwanted(
    browser: Any, live: LiveServer
) -> None:
    pages = opened(browser, live, reduced_motion="reduce")
    page = next(pages)
    assert text(page, "h1") == "glassworld"
    style = "getComputedStyle(document.querySelector('.spinner')).animationName"
    assert page.evaluate(style) == "none"
    assert next(pages, None) is None
    assert live.get("/").headers["cross-origin-resource-policy"] == "same-origin"
    assert server_until(lambda: live.state.slots_taken == 0)


def test_on_screen_keys_of_one_pad_leave_the_middle_of_the_picture_free(browser: Any) -> None:
    dit = {"action": replace(tiny.DIT.action, keyboard_dim=7, mouse_dim=0)}
    size = {"width": 844, "height": 390}
    with LiveServer(frame_rate=24, mode="templerun", dit=dit) as live:
        pages = opened(browser, live, viewport=size, has_touch=True, is_mobile=True)
        page = next(pages)
        note = "what a world says of itself, such as that it is small, in about that many words"
        page.evaluate(f"document.getElementById('hint-note').textContent = {note!r}")
        assert page.locator("#hint").is_visible()
        for full_screen in (False, True):
            if full_screen:
                page.keyboard.press("f")
                until(page, "document.fullscreenElement === document.getElementById('stage')")
            hint = page.locator("#hint").bounding_box()
            for key in page.locator(".pad [data-key]").all():
                box = key.bounding_box()
                assert box["x"] + box["width"] < 844 / 3
                is_beside = box["x"] + box["width"] <= hint["x"]
                assert is_beside or box["y"] >= hint["y"] + hint["height"]
        assert next(pages, None) is None
