"""Handlers with spans of their own, which they send themselves."""

from pathlib import Path

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from galley import Client, Subscribe, current_task, on_start, task


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


@task(queue="drills", subscribe="orders")
def bill(order: int) -> int:
    with trace.get_tracer("traced").start_as_current_span("bill"):
        return order


@task(queue="drills", subscribe=Subscribe("orders", filter='attributes.region == "eu"'))
def pack(order: int) -> int:
    """Fail the first time, and publish an event the second."""
    with trace.get_tracer("traced").start_as_current_span("pack"):
        task_here = current_task()
        if task_here is not None and task_here.attempt == 1:
            raise RuntimeError("not yet")
        with Client() as client:
            client.publish("parcels", {"order": order})
    return order


@task(queue="drills", subscribe="parcels")
def send(order: int) -> int:
    return order
