"""Check a page in headless Chromium: names, keyboard, contrast and width.

One checker for the site, the report and the play page. `watch_console` comes before the page is
opened, `accessibility_flaws` once it shows what is to be checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("accessibility.js").read_text(encoding="utf-8")
_NAMED_ROLES = {
    "button",
    "checkbox",
    "combobox",
    "image",
    "img",
    "link",
    "listbox",
    "radio",
    "searchbox",
    "slider",
    "spinbutton",
    "switch",
    "tab",
    "textbox",
    "treeitem",
}
"""Roles of the browser's accessibility tree that mean nothing without a name."""


def watch_console(page: Any) -> list[str]:
    """Return a list that grows by the console errors and uncaught exceptions of a page."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    return errors


def accessibility_flaws(page: Any, pointer_only: str = "") -> list[str]:
    """Return what keeps people from using a page, a line each; empty is good.

    Checks the language, the title, the images' texts, the width, the contrast of all visible text
    (WCAG AA), the names of controls, and that Tab reaches every control and shows the focus.

    Parameters
    ----------
    page
        An open page of playwright. The check moves its focus.
    pointer_only
        A selector of clickable elements whose keys do the same elsewhere.
    """
    page.evaluate(_SCRIPT)
    return [
        *page.evaluate("accessibility.pageFlaws()"),
        *page.evaluate("accessibility.contrastFlaws()"),
        *_unnamed(page),
        *_keyboard_flaws(page, pointer_only),
    ]


def _keyboard_flaws(page: Any, pointer_only: str) -> list[str]:
    """Press Tab until the focus comes round; return what it did not reach or did not show."""
    most = page.evaluate("(only) => accessibility.startTabbing(only)", pointer_only) + 10
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("accessibility.afterTab()"):
            break
    return list(page.evaluate("accessibility.keyboardFlaws()"))


def _unnamed(page: Any) -> list[str]:
    """Return the controls and images that the browser finds no name for."""
    session = page.context.new_cdp_session(page)
    flaws = []
    for node in session.send("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value", "")
        if node["ignored"] or role not in _NAMED_ROLES:
            continue
        if not node.get("name", {}).get("value", "").strip():
            answer = session.send("DOM.getOuterHTML", {"backendNodeId": node["backendDOMNodeId"]})
            html = answer["outerHTML"]
            if not html.startswith("<svg") or "role=" in html.partition(">")[0]:  # else: an icon
                flaws.append(f"no name: {role}: {html[:120]}")
    session.detach()
    return flaws
