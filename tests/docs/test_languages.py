"""The Chinese pages say the same as the English ones, as far as names can tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from glassworld.profiling.registry import REGISTRY
from tests.support.paths import ROOT

CHINESE = ROOT / "docs" / "zh"
PAIRS = [
    (ROOT / "docs" / "profiling.md", CHINESE / "profiling.md"),
    (ROOT / "docs" / "trace.md", CHINESE / "trace.md"),
    (ROOT / "docs" / "tags.md", CHINESE / "tags.md"),
    (ROOT / "README.md", ROOT / "README.zh-CN.md"),
]
NAMES = [english.stem for english, _ in PAIRS]

COMMAND = re.compile(r"glassworld (?:trace |bench )?[a-z-]+")
BLOCK = re.compile(r"^```(?:sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d[\d,.]*(?<![,.])")
CODE = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^\*\*[^*]+\*\* \((`.+?`)\)", re.MULTILINE)


def _calls(page: Path) -> list[str]:
    """Return the calls in a page's shell blocks, without comments."""
    code = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ")
    lines = [line.partition(" #")[0].split() for line in code.splitlines()]
    return [" ".join(words) for words in lines if words[:1] == ["glassworld"]]


def _commands(page: Path) -> set[str]:
    return set(COMMAND.findall(page.read_text(encoding="utf-8")))


def _tags(page: Path) -> set[str]:
    return {tag for tag in REGISTRY if f"`{tag}`" in page.read_text(encoding="utf-8")}


@pytest.mark.parametrize(("english", "chinese"), PAIRS[:2], ids=NAMES[:2])
def test_guides_have_the_same_calls(english: Path, chinese: Path) -> None:
    assert _calls(chinese) == _calls(english)


def test_the_guide_to_profiling_names_the_same_commands() -> None:
    english, chinese = PAIRS[0]
    assert _commands(chinese) == _commands(english)


def test_the_guide_to_traces_names_the_command_of_every_section() -> None:
    english, chinese = (page.read_text(encoding="utf-8") for page in PAIRS[1])
    named = {name for names in SECTION.findall(english) for name in re.findall("`([a-z]+)`", names)}
    assert len(named) > 10
    assert {f"glassworld trace {name}" for name in named} <= set(COMMAND.findall(chinese))


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=NAMES)
def test_pages_name_the_same_tags_and_link_to_each_other(english: Path, chinese: Path) -> None:
    assert _tags(chinese) == _tags(english)
    for page, other in ((english, chinese), (chinese, english)):
        links = re.findall(r"\]\(([^()#\s]+)\)", page.read_text(encoding="utf-8"))
        assert other in {(page.parent / link).resolve() for link in links}


def test_the_chinese_readme_names_only_what_the_english_one_has() -> None:
    english, chinese = _readmes()
    for command in re.findall(r"make [a-z]+|--[a-z-]+", chinese):
        assert command in english, command


def _readmes() -> tuple[str, str]:
    return tuple(page.read_text(encoding="utf-8") for page in PAIRS[3])  # type: ignore[return-value]


def test_the_readmes_have_the_same_sections_code_and_links() -> None:
    english, chinese = _readmes()
    assert chinese.count("\n## ") == english.count("\n## ")
    codes = [
        [re.sub(r" *#.*", "", code) for _, code in CODE.findall(text)]
        for text in (english, chinese)
    ]
    assert codes[1] == codes[0]
    links = [set(re.findall(r"\]\(([^()\s]+)\)", text)) for text in (english, chinese)]
    assert links[0] - {PAIRS[3][1].name} <= {link.replace("docs/zh/", "docs/") for link in links[1]}


def test_the_tables_of_the_readmes_have_the_same_numbers() -> None:
    tables = [
        [set(NUMBER.findall(line)) for line in text.splitlines() if line.startswith("|")]
        for text in (_readmes()[0], _readmes()[1].replace("146 \u4e07", "1.46"))
    ]
    assert tables[1] == tables[0]
