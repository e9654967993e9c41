"""Spans of OpenTelemetry, for programs that use it; in others each call is one look into a table of modules.

A task carries the W3C `traceparent` of what submitted it, and after a comma the span of its last attempt, to
which a retry is linked.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

_API: Final = "opentelemetry.trace"
_NOTHING: Final = nullcontext()


def traceparent_of(span: Any) -> str:
    """Return the `traceparent` of a span; empty if it belongs to no trace."""
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def present() -> str:
    """Return the `traceparent` of the span we are in; empty without OpenTelemetry, and outside of a span."""
    api = sys.modules.get(_API)
    return "" if api is None else traceparent_of(api.get_current_span())


def span(step: str, queue: str, handler: str = "", *, kind: str = "CLIENT") -> AbstractContextManager[Any]:
    """Return a block that is a span, in a program that uses OpenTelemetry.

    Args:
        step: what is done: `submit` or `wait`.
        queue: of the task.
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
