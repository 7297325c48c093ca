"""How the docs read: short sentences, and addressed to the reader."""

from __future__ import annotations

import re
from statistics import median

from tests.support.paths import ROOT
from tests.support.prose import pages, sentences

MOST_WORDS = 16  # the median sentence
LEAST_SECOND_PERSON = 0.25

MICROSECONDS_IN_ASCII = re.compile(r"\d ?us\b|\| us \|")
YOU = re.compile(r"\byou(?:rs?|rself)?\b", re.IGNORECASE)


def test_sentences_are_found() -> None:
    page = (
        "# No\n\nYou walk. It `draws` [a room](x.md),\nand more.\n\n| a | b |\n\n- One two three.\n"
    )
    assert [*sentences(page)] == ["It Code a room, and more.", "One two three."]


def test_the_median_sentence_is_short() -> None:
    lengths = [
        len(sentence.split())
        for page in pages()
        for sentence in sentences(page.read_text(encoding="utf-8"))
    ]
    assert len(lengths) > 300
    assert median(lengths) <= MOST_WORDS


def test_a_quarter_of_the_sentences_speak_to_the_reader() -> None:
    found = [s for page in pages() for s in sentences(page.read_text(encoding="utf-8"))]
    share = sum(bool(YOU.search(sentence)) for sentence in found) / len(found)
    assert share >= LEAST_SECOND_PERSON, f"{share:.3f}"


def test_microseconds_have_one_notation() -> None:
    for page in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]:
        assert not MICROSECONDS_IN_ASCII.search(page.read_text(encoding="utf-8")), page


def test_the_readme_fits_a_glance() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("\n") < 150
    assert (ROOT / "docs" / "demo.gif").stat().st_size < 1_500_000
