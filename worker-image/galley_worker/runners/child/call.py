"""One call of a handler: its input decoded, its result or its exception put in words."""

import os
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import CoroutineType, TracebackType
from typing import Any, Final, cast

import msgspec
from msgspec import Raw

from galley import file
from galley.current import CurrentTask
from galley.errors import GalleyError, NonRetryable, RetryAfter, Snooze
from galley.exception_text import describe
from galley.file import files_here
from galley.history import MESSAGE_LIMIT
from galley.json_value import encode_value
from galley.objects.node_cache import spooled, spooled_bytes
from galley.reference import INLINE_LIMIT, LARGEST
from galley.retry import LONGEST_BACKOFF_SECONDS, kinds_of
from galley.tracing import carried
from galley.typed import Misfit, Signature
from galley.usable import signature_of
from galley.workflow.continuation import Continuation, onward
from galley_worker.ending import Spool
from galley_worker.runners.frames import Again, Done, Failed, Onward, Run, Spooled

TRACEBACK_LIMIT: Final = 8 * 1024
"""Bytes kept of a traceback: its end, where the exception stands."""

PLAN_LIMIT: Final = 8 * 1024 * 1024
"""Bytes of a workflow that a handler may return."""

_FRAMES: Final = 3000
"""Frames of a traceback that are looked at: its last ones. A recursion may have a million."""

_TRACEBACK: Final[Any] = BaseException.__dict__["__traceback__"]

_decode = msgspec.json.Decoder().decode
_OURS: Final = os.path.dirname(__file__)  # noqa: PTH120 - runs in every child before its first task


class InputInvalid(Exception):
    """The input cannot be the handler's arguments; the message says why."""


def arguments_of(order: Run, types: Signature) -> dict[str, Any]:
    """Return the input of an order as keyword arguments of the annotated types.

    Raises:
        InputInvalid: if it is not a JSON object, or an argument is not of its type.
        OSError: if the file it is in cannot be read.
    """
    objects = order.objects
    if objects is None:
        return arguments(order.input, types)
    data = Path(objects.large).read_bytes() if objects.large else order.input
    with files_here(objects.files):
        return arguments(data, types)


def arguments(data: bytes, types: Signature) -> dict[str, Any]:
    """Return a task's input as keyword arguments of the annotated types.

    Raises:
        InputInvalid: if it is not a JSON object, or an argument is not of its type.
    """
    try:
        named = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputInvalid(f"the input is not JSON: {error}") from None
    if type(named) is not dict:
        raise InputInvalid(f"the input is a JSON {_kind(named)}, it must be an object of arguments by name")
    try:
        return types.decode(data, named)
    except Misfit as misfit:
        raise InputInvalid(f"the input does not fit the handler: {misfit}") from None


def trace_under(traceparent: str) -> None:
    """Make an attempt the parent of what its handler submits, publishes and does, in the present context."""
    carried.set(traceparent)
    try:
        from opentelemetry.context import attach  # noqa: PLC0415 - most handlers are not traced
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )
    except ImportError:  # then the handler begins no spans
        return
    attach(TraceContextTextMapPropagator().extract({"traceparent": traceparent}))


def task_of(order: Run, queue: str) -> CurrentTask:
    """Return the task of an order, as its handler sees it."""
    return CurrentTask(
        order.task,
        queue,
        order.lane,
        order.handler,
        order.attempt,
        datetime.fromtimestamp(order.submitted_at, UTC),
        datetime.fromtimestamp(order.deadline, UTC) if order.deadline else None,
        order.last_error,
        order.ancestors,
        Raw(order.checkpoint) if order.checkpoint else None,
        order.id,
    )


def awaited(value: "CoroutineType[Any, Any, Any]") -> object:
    """Return what a coroutine returns, run in an event loop of its own.

    Only a handler whose decorator hides that it is `async` gets here with a coroutine.
    """
    import asyncio  # noqa: PLC0415 - children of plain functions seldom need it

    return asyncio.run(value)


def done(order: int, seconds: float, value: object, spool: str = "") -> Done | Spooled | Onward | Failed:
    """Return the answer for a handler that returned `value`.

    Args:
        order: its number.
        seconds: how long the handler took.
        value: what it returned.
        spool: folder for what is to be stored as an object.
    """
    files = file.encoded
    try:
        result = encode_value(value)
    except BaseException as error:  # anything may hide in a value
        if issubclass(type(value), Continuation):  # `isinstance` would ask the value
            return _onward(order, seconds, cast("Continuation", value))
        problem = f"the result cannot be written as JSON: {describe(error)}"
        return Failed(order, seconds, "ResultInvalid", problem[:MESSAGE_LIMIT], "", retryable=False)
    if len(result) > INLINE_LIMIT or file.encoded != files:
        return _spooled(order, seconds, result, spool, may_have_files=file.encoded != files)
    return Done(order, seconds, result)


def _onward(order: int, seconds: float, value: Continuation) -> Onward | Failed:
    try:
        plan = onward(value)
    except GalleyError as error:
        return Failed(order, seconds, error.reason, f"{error}; {error.hint}", "", retryable=False)
    if len(plan) > PLAN_LIMIT:
        problem = f"galley.then: a workflow of {len(plan)} bytes, the limit is {PLAN_LIMIT}; use fewer steps"
        return Failed(order, seconds, "WorkflowInvalid", problem, "", retryable=False)
    return Onward(order, seconds, plan)


def _spooled(
    order: int, seconds: float, result: bytes, spool: str, *, may_have_files: bool
) -> Done | Spooled | Failed:
    """Write what is to be stored as objects into files of the worker: the handler's own may soon be gone."""
    if len(result) > LARGEST:
        problem = f"the result has {len(result)} bytes of JSON, the limit is {LARGEST}; return a galley.File"
        return Failed(order, seconds, "ResultTooLarge", problem, "", retryable=False)
    kept: list[Spool] = []
    large = None
    try:
        for each in file.files_in(result) if may_have_files else ():
            if each.reference is not None:
                kept.append(Spool("", each.digest, each.size, each.name, reference=each.reference))
                continue
            with each.open() as content:
                path, digest, size = spooled(Path(spool), content)
            kept.append(Spool(str(path), digest, size, each.name, each.mark))
        if len(result) > INLINE_LIMIT:
            path, digest, size = spooled_bytes(Path(spool), result)
            result, large = b"null", Spool(str(path), digest, size)
    except (OSError, GalleyError, ValueError) as error:
        for copy in kept:
            if copy.path:
                Path(copy.path).unlink(missing_ok=True)
        hint = f"; {error.hint}" if isinstance(error, GalleyError) and error.hint else ""
        problem = f"the result cannot be stored: {describe(error)}{hint}"
        return Failed(order, seconds, "ResultInvalid", problem[:MESSAGE_LIMIT], "", retryable=False)
    return Spooled(order, seconds, result, kept, large) if kept or large else Done(order, seconds, result)


def failed(
    order: int, seconds: float, function: Callable[..., Any], named: dict[str, Any] | None,
    error: BaseException,
) -> Failed | Again:  # fmt: skip
    """Return the answer for a handler that raised `error`, or could not be called."""
    # An exception is the user's code: asked for its class, its text or its traceback, it may raise.
    try:
        problem = _misfit(function, named, error)
        if problem:
            return Failed(order, seconds, "InputInvalid", problem[:MESSAGE_LIMIT], "", retryable=False)
        text, trace = describe(error), _traceback(error)
        if issubclass(type(error), RetryAfter | Snooze):
            free, reason = issubclass(type(error), Snooze), type(error).__name__
            told = text.removeprefix(f"{reason}: ")
            return Again(order, seconds, _pause(error), free, reason, told, trace)
        if issubclass(type(error), NonRetryable):
            return Failed(order, seconds, "NonRetryable", text, trace, retryable=False)
        kinds = kinds_of(type(error))
        return Failed(order, seconds, "HandlerRaised", text, trace, retryable=True, kinds=kinds)
    except BaseException:
        problem = "it raised an exception that raises when it is described"
        return Failed(order, seconds, "HandlerRaised", problem, "", retryable=True)


def _pause(error: Any) -> float:
    """Return the seconds a handler asked for, in the range that a retry may have."""
    seconds = float(error.seconds)
    return min(max(seconds, 0.0), LONGEST_BACKOFF_SECONDS) if seconds == seconds else 0.0  # noqa: PLR0124 - NaN


def _misfit(function: Callable[..., Any], named: dict[str, Any] | None, error: BaseException) -> str:
    """Return why the handler could not be called with its input, or nothing if it was called."""
    kind = type(error)
    if issubclass(kind, InputInvalid):
        return f"{error}; the handler takes {_signature(function)}"
    if not issubclass(kind, TypeError) or named is None:
        return ""
    frames = _frames(error)
    if frames is not None and frames.tb_next is not None:
        return ""
    try:
        signature_of(function).bind(**named)
    except TypeError as misfit:
        return f"the input does not fit the handler: {misfit}; it takes {_signature(function)}"
    return ""


def _signature(function: Callable[..., Any]) -> str:
    try:
        return str(signature_of(function))
    except Exception:  # a default value may raise when it is asked for its text
        return "(...)"


def _kind(value: object) -> str:
    names: dict[type, str] = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _frames(error: BaseException) -> TracebackType | None:
    """Return the traceback without asking the exception's own class for it, which may raise."""
    frames: TracebackType | None = _TRACEBACK.__get__(error)
    return frames


def _traceback(error: BaseException) -> str:
    frames = _frames(error)
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    try:
        lines = "".join(traceback.format_exception(type(error), error, frames, limit=-_FRAMES))
    except BaseException:
        lines = (
            "Traceback (most recent call last):\n" + "".join(traceback.format_tb(frames)) + describe(error)
        )
    data = lines.encode(errors="backslashreplace")
    if len(data) > TRACEBACK_LIMIT:
        data = b"..." + data[3 - TRACEBACK_LIMIT :]
    return data.decode(errors="ignore")
