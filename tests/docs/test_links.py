"""Every link and command in the docs leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from docs.hooks.commands import parameters, walk_commands
from tests.support.paths import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("glassworld/worlds/*/CARD.md")]
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

MADE_WITH_THE_SITE = {ROOT / "docs" / "reference" / name for name in ("cli.md", "errors.md")}

LINK = re.compile(r"\]\(([^()#\s]*)(?:#([^()\s]*))?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(glassworld [a-z][^`]*)`")


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub and mkdocs give a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", text))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if ":" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        if path in MADE_WITH_THE_SITE:
            continue
        assert path.exists(), f"{target} is missing"
        if anchor and path.suffix == ".md":
            text = FENCE.sub("", path.read_text(encoding="utf-8"))
            headings = {_anchor(line) for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
            assert anchor in headings, f"{target}#{anchor}"


def _commands(text: str) -> list[str]:
    """Return the calls of `glassworld` in a page's shell blocks and inline code."""
    shell = "\n".join(SHELL.findall(text)).replace("\\\n", " ")
    lines = [line.strip() for line in shell.splitlines()]
    return [line for line in lines if line.startswith("glassworld ")] + INLINE.findall(text)


def _unknown(call: str, known: dict[str, set[str]]) -> str:
    """Return what of a call does not exist, or ""."""
    words = shlex.split(call.replace("...", ""), comments=True)
    name = next((" ".join(words[:n]) for n in (4, 3, 2) if " ".join(words[:n]) in known), "")
    if not name:
        groups = {" ".join(each.split()[:2]) for each in known}
        bare = len(words) == 2 or words[2].startswith(("-", "/")) or not words[2].islower()
        return "" if " ".join(words[:2]) in groups and bare else call
    flags = [word.partition("=")[0] for word in words if word.startswith("-")]
    return " ".join(flag for flag in flags if flag.replace("_", "-") not in known[name])


def test_commands_in_the_docs_exist_with_their_flags() -> None:
    known = {
        words: {flag for each in parameters(command) for flag in each.opts} | {"--help", "-h"}
        for words, command in walk_commands()
    }
    wrong = [
        f"{page.name}: {call}: {unknown}"
        for page in PAGES
        for call in _commands(page.read_text(encoding="utf-8"))
        if (unknown := _unknown(call, known))
    ]
    assert not wrong, "\n".join(wrong)
