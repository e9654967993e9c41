"""One call of a handler: its input decoded, its result or its exception put in words."""

import inspect
import os
import traceback
from collections.abc import Callable
from types import CoroutineType
from typing import Any, Final

import msgspec

from galley.errors import NonRetryable
from galley.history import MESSAGE_LIMIT
from galley.json_value import encode_value
from galley.record import RESULT_LIMIT
from galley_worker.runners.frames import Done, Failed

TRACEBACK_LIMIT: Final = 8 * 1024
"""Bytes kept of a traceback: its end, where the exception stands."""

_decode = msgspec.json.Decoder().decode
_OURS: Final = os.path.dirname(__file__)  # noqa: PTH120 - runs in every child before its first task


class InputInvalid(Exception):
    """The input cannot be the handler's arguments; the message says why."""


def arguments(data: bytes) -> dict[str, Any]:
    """Return a task's input as keyword arguments.

    Raises:
        InputInvalid: if it is not a JSON object.
    """
    try:
        named = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputInvalid(f"the input is not JSON: {error}") from None
    if type(named) is not dict:
        raise InputInvalid(f"the input is a JSON {_kind(named)}, it must be an object of arguments by name")
    return named


def awaited(value: object) -> object:
    """Return a handler's value; of a coroutine what it returns, run in an event loop of its own.

    Only a handler whose decorator hides that it is `async` gets here with a coroutine.
    """
    if type(value) is not CoroutineType:
        return value
    import asyncio  # noqa: PLC0415 - children of plain functions seldom need it

    return asyncio.run(value)


def done(order: int, seconds: float, value: object) -> Done | Failed:
    """Return the answer for a handler that returned `value`."""
    try:
        result = encode_value(value)
    except BaseException as error:  # anything may hide in a value
        problem = f"the result cannot be said in JSON: {_text(error)}"
        return Failed(order, seconds, "ResultInvalid", problem[:MESSAGE_LIMIT], "", retryable=False)
    if len(result) > RESULT_LIMIT:
        problem = (
            f"the result has {len(result)} bytes of JSON, the limit is {RESULT_LIMIT}; "
            "store the data elsewhere and return its place"
        )
        return Failed(order, seconds, "ResultTooLarge", problem, "", retryable=False)
    return Done(order, seconds, result)


def failed(
    order: int, seconds: float, function: Callable[..., Any], named: dict[str, Any] | None,
    error: BaseException,
) -> Failed:  # fmt: skip
    """Return the answer for a handler that raised `error`, or could not be called."""
    problem = _misfit(function, named, error)
    if problem:
        return Failed(order, seconds, "InputInvalid", problem[:MESSAGE_LIMIT], "", retryable=False)
    if isinstance(error, NonRetryable):
        return Failed(order, seconds, "NonRetryable", _text(error), _traceback(error), retryable=False)
    return Failed(order, seconds, "HandlerRaised", _text(error), _traceback(error), retryable=True)


def _misfit(function: Callable[..., Any], named: dict[str, Any] | None, error: BaseException) -> str:
    """Return why the handler could not be called with its input, or nothing if it was called."""
    if isinstance(error, InputInvalid):
        return f"{error}; the handler takes {_signature(function)}"
    if not isinstance(error, TypeError) or named is None:
        return ""
    if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
        return ""
    try:
        inspect.signature(function).bind(**named)
    except TypeError as misfit:
        return f"the input does not fit the handler: {misfit}; it takes {_signature(function)}"
    except ValueError:
        return ""
    return ""


def _signature(function: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(...)"


def _kind(value: object) -> str:
    names: dict[type, str] = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _text(error: BaseException) -> str:
    name = type(error).__name__
    try:
        message = str(error)
    except BaseException:  # it may do anything when asked for its text
        message = "(its message cannot be told)"
    text = f"{name}: {message}" if message else name
    # Not every str can travel: half a surrogate pair has no bytes.
    return text[:MESSAGE_LIMIT].encode(errors="backslashreplace").decode()[:MESSAGE_LIMIT]


def _traceback(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    try:
        lines = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:
        return ""
    data = lines.encode(errors="backslashreplace")
    if len(data) > TRACEBACK_LIMIT:
        data = b"..." + data[3 - TRACEBACK_LIMIT :]
    return data.decode(errors="ignore")
