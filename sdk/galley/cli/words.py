"""Reads option values that are one of a few words."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TypeVar

from galley.cli.errors import Misuse

Word = TypeVar("Word", bound=StrEnum)


def one_of(what: str, words: Sequence[Word]) -> Callable[[str], Word]:
    """Return what reads one of the words, in any case.

    Args:
        what: what such a word is, with its article, such as "a lane".
        words: those allowed.
    """
    by_text = {word.casefold(): word for word in words}

    def read(text: str) -> Word:
        if (word := by_text.get(text.casefold())) is None:
            raise Misuse(f"{text[:40]!r} is not {what}", f"use one of {', '.join(words)}")
        return word

    return read
