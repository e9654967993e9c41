"""Handlers with spans of their own, which they send themselves."""

from pathlib import Path

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from galley import on_start, task


@on_start
def send_spans() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@task
def look_twice(path: str) -> str:
    """Fail the first time."""
    with trace.get_tracer("traced").start_as_current_span("step"):
        if not Path(path).exists():
            Path(path).touch()
            raise RuntimeError("not yet")
    return "seen"


@task
async def alook() -> str:
    with trace.get_tracer("traced").start_as_current_span("astep"):
        return "seen"
