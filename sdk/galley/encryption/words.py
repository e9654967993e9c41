"""The words of past attempts, which are encrypted apart from the rest of a history."""

from typing import TypeAlias

from msgspec.structs import replace

from galley.encryption.errors import PayloadAltered
from galley.history import History
from galley.record import Failure

Words: TypeAlias = tuple[tuple[str, str], ...]
"""Message and traceback of each past attempt."""


def words_of(history: History) -> Words:
    """Return the words of a history."""
    return tuple((past.message, past.traceback) for past in history.attempts)


def wordless(history: History) -> History:
    """Return a history without its words."""
    if not history.attempts:
        return history
    attempts = tuple(replace(past, message="", traceback="") for past in history.attempts)
    return replace(history, attempts=attempts)


def wordless_failure(failure: Failure | None) -> Failure | None:
    """Return a failure without its message and traceback."""
    return failure and Failure(failure.reason, "")


def with_words(history: History, words: Words, subject: str) -> History:
    """Return a history with its words again.

    Raises:
        PayloadAltered: if they are not of this history.
    """
    if len(words) != len(history.attempts):
        raise PayloadAltered(subject, "what is encrypted belongs to another history")
    if not words:
        return history
    attempts = tuple(
        replace(past, message=message, traceback=traceback)
        for past, (message, traceback) in zip(history.attempts, words, strict=True)
    )
    return replace(history, attempts=attempts)
