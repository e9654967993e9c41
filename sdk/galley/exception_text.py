"""An exception in words. It is code of a user: asked for its class or its text, it may raise."""

from typing import Final

from galley.history import MESSAGE_LIMIT

_TOLD: Final = 5
"""Exceptions of a group whose messages are part of the group's."""


def describe(error: BaseException, depth: int = 2) -> str:
    """Return an exception's class and message; of a group, also those of the exceptions in it."""
    name = type.__getattribute__(type(error), "__name__")
    try:
        message = str(error)[:MESSAGE_LIMIT]
    except BaseException:  # it may do anything when asked for its text
        message = "(its message cannot be read)"
    text = f"{name}: {message}" if message else name
    if issubclass(type(error), BaseExceptionGroup) and depth:
        parts = BaseExceptionGroup.exceptions.__get__(error)[:_TOLD]
        text += f" [{'; '.join(describe(part, depth - 1) for part in parts)}]"
    # Not every str can travel: half a surrogate pair has no bytes.
    return text[:MESSAGE_LIMIT].encode(errors="backslashreplace").decode()[:MESSAGE_LIMIT]
