"""What a handler submits and publishes belongs to the trace of its attempt, also without OpenTelemetry."""

import sys
from contextvars import copy_context

import pytest

from galley import tracing
from galley_worker.runners.child.call import trace_under

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("absent", ["opentelemetry.trace", "opentelemetry.context"])
def test_a_handler_goes_on_with_the_trace_of_its_attempt(
    monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    """Without a module of its own in `sys.modules`, the handler has no OpenTelemetry, or cannot import it."""
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    context = copy_context()
    context.run(trace_under, TRACE)
    assert context.run(tracing.present) == TRACE
    assert copy_context().run(tracing.present) == ""
