"""Traces of a task: submit, wait, attempts, the spans of its handler; retries are linked to attempts."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from galley import AsyncClient, call
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.topic import Topic
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import WorkerProcess, a_task_queue

TOPICS: Final = [Declared(Topic(name, retention_seconds=600), ()) for name in ("orders", "parcels")]


class Collector:
    """A receiver of OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        spans = self.spans

        class Receive(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def named(self, name: str) -> list[Span]:
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


async def _subscribed(client: AsyncClient) -> bool:
    """Do what the operator does, and say whether all three handlers of `traced` subscribe."""
    await TopicKeeper(client.broker, client.namespace, "tests").keep(TOPICS)
    views = await client.topics.list()
    return sum(len(queue.subscriptions) for view in views for queue in view.queues) == 3


def _about(span: Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


def _by_id(collector: Collector, name: str) -> list[tuple[bytes, Span]]:
    return [(span.span_id, span) for span in collector.named(name)]


def _span(collector: Collector, span_id: bytes) -> Span:
    return next(span for span in collector.spans if span.span_id == span_id)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
async def traced(
    client: AsyncClient, namespace: str, start: StartWorkers, collector: Collector
) -> WorkerProcess:
    """A worker that sends spans, of the queue `drills` with the handlers of `traced`."""
    queue = a_task_queue(
        namespace,
        worker={"modules": ["traced"]},
        retry={"attempts": 3, "backoffSeconds": 0.1, "maxBackoffSeconds": 0.2},
    )
    await ensure(client.broker, layout_of(queue, "tests"))
    await TopicKeeper(client.broker, namespace, "tests").keep(TOPICS)
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    (worker,) = await start(queue, **settings)
    return worker


@pytest.fixture
def program(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """OpenTelemetry in the program that submits, here."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces")))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return provider


async def test_a_task_is_one_trace_from_its_submit_to_the_spans_of_its_handler(
    client: AsyncClient, traced: WorkerProcess, collector: Collector, program: TracerProvider, tmp_path: Path
) -> None:
    with program.get_tracer("shop").start_as_current_span("order") as order:
        handle = await client.submit(call("drills", "look_twice", path=str(tmp_path / "seen")))
        assert await handle.result(within=30) == "seen"
    await eventually(lambda: len(collector.named("attempt drills")) == 2, within=30)
    await eventually(lambda: len(collector.named("step")) == 2, within=30)

    [submit], [wait], attempts = (collector.named(f"{name} drills") for name in ("submit", "wait", "attempt"))
    trace_id = order.get_span_context().trace_id.to_bytes(16)
    assert {span.trace_id for span in collector.spans} == {trace_id}
    assert submit.parent_span_id == wait.parent_span_id == order.get_span_context().span_id.to_bytes(8)
    first, second = attempts
    assert first.parent_span_id == second.parent_span_id == submit.span_id
    assert [span.parent_span_id for span in collector.named("step")] == [first.span_id, second.span_id]
    assert not first.links
    assert [link.span_id for link in second.links] == [first.span_id]
    assert first.status.message.startswith("HandlerRaised: ")
    verdicts = [
        {each.key: each.value.string_value for each in span.attributes}["galley.verdict"] for span in attempts
    ]
    assert verdicts == ["RetryAt", "Succeed"]
    lines = [json.loads(line) for line in traced.log_file.read_text().splitlines() if line.startswith("{")]
    settled = [line for line in lines if line["event"] == "attempt settled"]
    assert {line["trace"] for line in settled} == {trace_id.hex()}


async def test_an_event_is_one_trace_from_its_publish_to_the_handlers_of_its_copies(
    client: AsyncClient, traced: WorkerProcess, collector: Collector, program: TracerProvider
) -> None:
    await eventually(lambda: _subscribed(client), within=60)
    with program.get_tracer("shop").start_as_current_span("order") as order:
        published = await client.publish("orders", {"order": 7}, {"region": "eu"})
    await eventually(lambda: len(collector.named("attempt drills")) == 4, within=60)
    await eventually(lambda: len(collector.named("copy drills")) == 3, within=60)

    trace_id = order.get_span_context().trace_id.to_bytes(16)
    assert {span.trace_id for span in collector.spans} == {trace_id}
    [publish] = collector.named("publish orders")
    assert publish.parent_span_id == order.get_span_context().span_id.to_bytes(8)
    handlers = {each: _about(span)["galley.handler"] for each, span in _by_id(collector, "copy drills")}
    copies = dict(zip(handlers.values(), handlers, strict=True))
    assert set(copies) == {"bill", "pack", "send"}
    parents = {name: _span(collector, copies[name]).parent_span_id for name in copies}
    # A handler that publishes goes on with the trace: under its own span.
    [_, packed] = collector.named("pack")
    [handed_on] = collector.named("publish parcels") or [packed]
    assert parents == {"bill": publish.span_id, "pack": publish.span_id, "send": handed_on.span_id}
    events = {_about(_span(collector, copies[name]))["galley.event"] for name in ("bill", "pack")}
    assert events == {f"orders/{published.id}"}
    attempts = collector.named("attempt drills")
    assert Counter(span.parent_span_id for span in attempts) == {
        copies["bill"]: 1, copies["pack"]: 2, copies["send"]: 1,
    }  # fmt: skip
    first, second = [span for span in attempts if span.parent_span_id == copies["pack"]]
    assert [link.span_id for link in second.links] == [first.span_id]


async def test_an_event_without_a_trace_begins_one_for_each_copy(
    client: AsyncClient, traced: WorkerProcess, collector: Collector
) -> None:
    await eventually(lambda: _subscribed(client), within=60)
    await client.publish("parcels", {"order": 1})
    await eventually(lambda: collector.named("attempt drills"), within=60)
    await eventually(lambda: collector.named("copy drills"), within=60)
    [copy], [attempt] = collector.named("copy drills"), collector.named("attempt drills")
    assert not copy.parent_span_id
    assert (attempt.trace_id, attempt.parent_span_id) == (copy.trace_id, copy.span_id)


async def test_async_handlers_run_under_their_attempt_and_untraced_tasks_begin_a_trace(
    client: AsyncClient, traced: WorkerProcess, collector: Collector
) -> None:
    handles = await client.submit_many([call("drills", "alook") for _ in range(3)])
    for handle in handles:
        assert await handle.result(within=30) == "seen"
    await eventually(lambda: len(collector.named("attempt drills")) == 3, within=30)
    await eventually(lambda: len(collector.named("astep")) == 3, within=30)
    attempts = {span.span_id: span.trace_id for span in collector.named("attempt drills")}
    assert len(set(attempts.values())) == 3
    assert {span.parent_span_id: span.trace_id for span in collector.named("astep")} == attempts
    assert traced.end() == 0


async def test_a_collector_that_is_away_holds_up_neither_tasks_nor_the_end_of_a_worker(
    client: AsyncClient, namespace: str, start: StartWorkers
) -> None:
    queue = a_task_queue(namespace)
    await ensure(client.broker, layout_of(queue, "tests"))
    (worker,) = await start(queue, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert await (await client.submit(call("drills", "echo", value=1))).result(within=30) == 1
    assert worker.end() == 0
