"""Spans of OpenTelemetry, for programs that use it; in others each call is one look into a table of modules.

A task carries the W3C `traceparent` of what submitted it, and after a comma the span of its last attempt, to
which a retry is linked. An event carries that of what published it, and hands it on to its tasks.
"""

import re
import sys
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Final

_API: Final = "opentelemetry.trace"
_NOTHING: Final = nullcontext()


def traceparent_of(span: Any) -> str:
    """Return the `traceparent` of a span; empty if it belongs to no trace."""
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


carried: Final[ContextVar[str]] = ContextVar("carried", default="")
"""The `traceparent` of a request that this code works for; it counts where there is no span of our own."""

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent_in(text: str) -> str:
    """Return a `traceparent` as it came in a header; empty if it is none that we can read."""
    return text if _TRACEPARENT.fullmatch(text) else ""


def present() -> str:
    """Return the `traceparent` of the span we are in, or of the request we work for; empty without both."""
    api = sys.modules.get(_API)
    own = "" if api is None else traceparent_of(api.get_current_span())
    return own or carried.get()


def span(step: str, queue: str, handler: str = "", *, kind: str = "CLIENT") -> AbstractContextManager[Any]:
    """Return a block that is a span, in a program that uses OpenTelemetry.

    Args:
        step: what is done: `submit`, `publish` or `wait`.
        queue: of the task, or the topic of the event.
        handler: its handler, if it is known.
        kind: of `opentelemetry.trace.SpanKind`.
    """
    api = sys.modules.get(_API)
    if api is None:
        return _NOTHING
    attributes = {"messaging.system": "galley", "messaging.destination.name": queue}
    if handler:
        attributes["galley.handler"] = handler
    block: AbstractContextManager[Any] = api.get_tracer("galley").start_as_current_span(
        f"{step} {queue}", kind=api.SpanKind[kind], attributes=attributes
    )
    return block


def parent_in(trace: str) -> str:
    """Return the `traceparent` that a task carries."""
    return trace.partition(",")[0]


def id_in(trace: str) -> str:
    """Return the id of the trace that a task belongs to; empty if it belongs to none."""
    return trace[3:35]
