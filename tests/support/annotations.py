"""The tags in a written trace."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from glassworld.profiling import registry


def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile(re.sub(r"\\\{\w+\\\}", r"(\\d+)", re.escape(pattern))), pattern)
        for pattern in registry.REGISTRY
    ]


def fold(name: str) -> str | None:
    """Return the registered pattern of a tag's name."""
    return next((pattern for form, pattern in _patterns() if form.fullmatch(name)), None)


def read_annotations(path: Path) -> list[tuple[str, str | None, str]]:
    """Return each annotation's name, its parent's pattern and its own, in order of time."""
    events = [
        event
        for event in json.loads(path.read_text())["traceEvents"]
        if event.get("cat") == "user_annotation" and event["ph"] == "X"
    ]
    events.sort(key=lambda event: (event["ts"], -event["dur"]))
    found: list[tuple[str, str | None, str]] = []
    stack: list[dict[str, Any]] = []
    for event in events:
        while stack and event["ts"] >= stack[-1]["ts"] + stack[-1]["dur"]:
            stack.pop()
        pattern = fold(event["name"])
        if pattern is None:
            continue
        found.append((event["name"], fold(stack[-1]["name"]) if stack else None, pattern))
        stack.append(event)
    return found
