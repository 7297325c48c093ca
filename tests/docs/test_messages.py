"""What the package says to a user: short, in American English, in field terms, and helpful."""

from __future__ import annotations

import re

import pytest

from docs.hooks.messages import Message, error_messages, help_messages
from tests.test_docstrings import BRITISH

MOST_ERROR_LETTERS = 240  # with the source of what is filled in
MOST_ERROR_WORDS = 34
MOST_HELP_WORDS = 36  # of one parameter

GLOSSARY = {
    "pictures?": "image",
    "spreads?": "standard deviation",
    "own time": "self time",
    "roof|ceilings?": "peak rate",
    "lessons?": "training example",
    "reach of": "receptive field",
    "laid out": "packed",
    "held picture": "repeat-first-frame baseline",
    "plain world": "unaccelerated model",
    "middle half": "interquartile range",
    "anew": "new",
    "the guide": "reference breakdown",
    "out of the box|please|sorry|oops": "nothing",
}
"""Words of an earlier idiom, and the term to write instead."""

WHAT_TO_DO = re.compile(
    r"\b(?:add|ask|call|change|check|choose|close|collect|compare|convert|copy|decompress|delete|end"
    r"|download|expected|export|fix|free|generate|get|give|go on|install|keep|leave|load|log in"
    r"|make|measure|merge|move|must|name|needs?|needed|open|pass|pip install|play|put|read|record"
    r"|remove|repeat|replace|run|save|see|send|set|show|start|step|stop|supports|switch|takes"
    r"|there (?:are|is)|try|unpack|upload|use|wait|write|at most|at least)\b",
    re.IGNORECASE,
)
FILLED_IN = re.compile(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")

REASONS = {"trace/reading/wire.py", "trace/reading/track_events.py"}
"""Modules whose errors are reasons inside another message."""

ADVICE = re.compile(r"\{\w*advice")  # is filled in
WORD = re.compile("[a-z]{2,}")
FEW_WORDS = 2

ERRORS = error_messages()


def _shown(message: Message) -> str:
    """Return a message with a short name for everything that is filled in."""
    return FILLED_IN.sub("X", message.text)


def _at(message: Message) -> str:
    return f"{message.where}:{message.line}: {message.text}"


def test_errors_are_one_short_line() -> None:
    wrong = [
        _at(message)
        for message in ERRORS
        if "\n" in message.text
        or len(_shown(message)) > MOST_ERROR_LETTERS
        or len(_shown(message).split()) > MOST_ERROR_WORDS
    ]
    assert not wrong, "\n".join(wrong)


def test_errors_say_what_to_do() -> None:
    wrong = [
        _at(message)
        for message in ERRORS
        if message.where not in REASONS
        and len(WORD.findall(_shown(message))) > FEW_WORDS  # else another message is filled in
        and not WHAT_TO_DO.search(_shown(message))
        and not ADVICE.search(message.text)
    ]
    assert not wrong, "\n".join(wrong)


def test_errors_are_no_sentences_with_a_period() -> None:
    assert not [_at(message) for message in ERRORS if message.text.endswith(".")]


def test_help_of_parameters_is_short_and_ends_with_a_period() -> None:
    wrong = [
        f"{message.where}: {message.text}"
        for message in help_messages()
        if " --" in message.where or " -" in message.where
        if len(message.text.split()) > MOST_HELP_WORDS or not message.text.endswith(".")
    ]
    assert not wrong, "\n".join(wrong)


def test_every_command_and_parameter_has_help() -> None:
    assert not [message.where for message in help_messages() if not message.text.strip()]


@pytest.mark.parametrize("word", GLOSSARY)
def test_messages_use_the_terms_of_the_field(word: str) -> None:
    old = re.compile(rf"\b(?:{word})\b", re.IGNORECASE)
    texts = [(_at(each), _shown(each)) for each in ERRORS]
    texts += [(f"{each.where}: {each.text}", each.text) for each in help_messages()]
    wrong = [where for where, text in texts if old.search(text)]
    assert not wrong, f"write {GLOSSARY[word]}:\n" + "\n".join(wrong)


def test_messages_are_in_american_english() -> None:
    texts = [each.text for each in (*ERRORS, *help_messages())]
    assert not [text for text in texts if BRITISH.search(text)]
