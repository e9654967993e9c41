"""Traces: a span for each attempt and each copy of an event, sent by OTLP, if the worker is told where to."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from msgspec.structs import replace

from galley.address import TaskAddress
from galley.envelope import Envelope
from galley.tracing import parent_in, traceparent_of
from galley_worker.claim import Held
from galley_worker.verdict import Bury, RetryAt, Verdict

log = logging.getLogger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_LAST_SECONDS: Final = 2.0
"""How long sending the last spans may take, at the end of a worker."""


class Traces:
    """Begins and ends the spans of attempts and of copies."""

    def __init__(self, provider: Any) -> None:
        """Args: provider: a `TracerProvider` of OpenTelemetry."""
        self._tracer = provider.get_tracer("galley")

    def begin(self, held: Held) -> Any:
        """Return the span of an attempt; its task carries it on to the next attempt."""
        from opentelemetry import trace  # noqa: PLC0415 - only where spans are sent
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        envelope, address = held.envelope, held.delivery.address
        parent, _, last = envelope.trace.partition(",")
        context = TraceContextTextMapPropagator().extract({"traceparent": parent})
        links = []
        if last:
            of = trace.get_current_span(context).get_span_context()
            before = trace.SpanContext(of.trace_id, int(last, 16), is_remote=True, trace_flags=of.trace_flags)
            links = [trace.Link(before, {"galley.link": "last attempt"})]
        span = self._tracer.start_span(
            f"attempt {address.queue}", context, trace.SpanKind.CONSUMER, links=links,
            attributes={
                "messaging.system": "galley", "messaging.destination.name": address.queue,
                "galley.task": address.id, "galley.namespace": address.namespace,
                "galley.lane": address.lane, "galley.handler": envelope.handler,
                "galley.attempt": held.flags.attempt,
            },
        )  # fmt: skip
        own = traceparent_of(span)
        held.envelope = replace(envelope, trace=f"{parent or own},{own[36:52]}")
        return span

    @contextmanager
    def copying(self, topic: str, address: TaskAddress, task: Envelope) -> Iterator[Envelope]:
        """Put the copy of an event into its queue within a span; yields the task as it is to be stored."""
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        about = {
            "messaging.system": "galley", "messaging.destination.name": address.queue,
            "galley.topic": topic, "galley.event": task.event, "galley.task": address.id,
            "galley.namespace": address.namespace, "galley.handler": task.handler,
        }  # fmt: skip
        context = TraceContextTextMapPropagator().extract({"traceparent": parent_in(task.trace)})
        with self._tracer.start_as_current_span(
            f"copy {address.queue}", context, trace.SpanKind.PRODUCER, attributes=about
        ) as span:
            yield replace(task, trace=traceparent_of(span))

    @staticmethod
    def end(span: Any, verdict: Verdict | None) -> None:
        """End a span; no verdict means that another worker has the task by now."""
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        span.set_attribute("galley.verdict", type(verdict).__name__ if verdict is not None else "Lost")
        if isinstance(verdict, Bury | RetryAt):
            span.set_status(Status(StatusCode.ERROR, f"{verdict.failure.reason}: {verdict.failure.message}"))
        span.end()


def parent_of(envelope_trace: str, span: Any) -> str:
    """Return the `traceparent` a handler runs under."""
    return traceparent_of(span) if span is not None else parent_in(envelope_trace)


@contextmanager
def sent(environment: Mapping[str, str], namespace: str, queue: str) -> Iterator[Traces | None]:
    """Send spans for the duration of the block, if the environment says where to; yields None otherwise."""
    if not any(environment.get(name) for name in _ENDPOINTS):
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        log.warning("traces not sent", extra={"error": str(error), "hint": "install galley-tasks[otel]"})
        yield None
        return
    about = {"service.name": "galley-worker", "service.namespace": namespace, "galley.queue": queue}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield Traces(provider)
    finally:
        # A collector that is away must not hold up the end of a worker.
        ending = threading.Thread(target=provider.shutdown, name="galley traces", daemon=True)
        ending.start()
        ending.join(_LAST_SECONDS)
