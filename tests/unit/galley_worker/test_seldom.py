"""What a worker seldom meets: it is told, and the worker goes on, or refuses to start."""

import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import Raw

from galley.address import Kind
from galley.broker import topology
from galley.broker.errors import BrokerUnreachable, NotAllowed
from galley.broker.flow_values import FlowGone, FlowsFull, Place
from galley.broker.flows import Flows
from galley.broker.lean_client import header_block
from galley.errors import EnvelopeInvalid
from galley.objects.store import Objects
from galley.record import Outcome, Record, State
from galley.topic import Subscribe
from galley.workflow.state import Root
from galley_worker import code_subscriptions, traces
from galley_worker import flows as worker_flows
from galley_worker.ending import Raised, ReturnedLarge, Spool
from galley_worker.errors import SettingsInvalid
from galley_worker.flows import Workflows
from galley_worker.ledger import Ledger, NoRoom
from galley_worker.objects import TaskObjects
from galley_worker.runners.frames import HandlerRules
from galley_worker.settings import read_queue, read_settings
from galley_worker.values import Unfit, Values, filled
from galley_worker.wake import parent_name, wake
from tests.support.builders import an_address, an_envelope
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import KEEP_SECONDS, Bench, a_bench


def test_settings_that_are_wrong_are_named() -> None:
    with pytest.raises(SettingsInvalid, match="GALLEY_"):
        read_settings({})


def test_a_manifest_that_cannot_be_read_is_told_by_its_variable(tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").write_text("kind: [")
    with pytest.raises(SettingsInvalid, match="GALLEY_QUEUE_MANIFEST: "):
        read_queue(tmp_path / "queue.yaml")


def test_without_the_library_no_traces_are_sent_and_the_log_says_which(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with traces.sent({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "default", "images") as sent:
        assert sent is None
    assert caplog.messages == ["traces not sent"]


async def test_steps_whose_task_or_input_is_none_are_unfit() -> None:
    with pytest.raises(Unfit, match="takes no arguments"):
        filled(Raw(b"[1]"), {"a": b"1"})
    node: Any = SimpleNamespace(task=Raw(b"[1]"), holes=())
    nothing = cast("Any", None)
    with pytest.raises(Unfit):
        await Values.task(nothing, nothing, nothing, an_address(), node, nothing)


async def test_a_result_whose_file_is_gone_is_a_failure_that_is_tried_again(tmp_path: Path) -> None:
    gone = Spool(str(tmp_path / "gone"), "a" * 64, 3)
    async with a_bench() as bench:
        objects = TaskObjects(Objects(bench.producer), cast("Any", None))
        stored = await objects.store(an_address(), ReturnedLarge(Raw(b"null"), (), gone))
    assert isinstance(stored, Raised)
    assert stored.retryable
    assert stored.failure.reason == "ResultNotStored"


@in_virtual_time
async def test_credentials_of_an_earlier_release_declare_no_subscriptions(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*_: Any) -> bool:
        raise NotAllowed("galley.subscribe.default.images")

    monkeypatch.setattr(code_subscriptions, "declare_code", refuse)
    async with a_bench() as bench:
        rules = {"resize": HandlerRules(subscribes=(Subscribe("uploads"),))}
        await code_subscriptions.subscribe(bench.producer, bench.layout, rules)
    assert "subscriptions not declared" in caplog.messages


@in_virtual_time
async def test_a_waiting_task_whose_flags_cannot_be_read_is_not_woken() -> None:
    async with a_bench() as bench:
        address = an_address(id="one", kind=Kind.DIRECT)
        headers = header_block({topology.FLAGS_HEADER: "what?"})
        await (await bench.producer.pipeline.send(topology.again_subject(address), b"", headers))
        before = len(bench.server.log)
        root: Any = SimpleNamespace(parent=parent_name(address))
        await wake(bench.producer, Place("default", "images", "flow"), root, bench.server.now())
        assert len(bench.server.log) == before


# -- workflows


def flows_of(bench: Bench) -> Workflows:
    broker = bench.producer
    return Workflows(broker, "default", "images", Ledger(broker), KEEP_SECONDS, bench.server.now)


async def a_root(bench: Bench, place: Place) -> Root:
    now = bench.server.now()
    root = Root(place.flow, 3, 4, (0,), 0, 3, now, now + timedelta(days=1), marks="...")
    assert await Flows(bench.producer).create(place, root, 60)
    return root


def raising(error: Exception) -> Any:
    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FlowsFull("full"), None),
        (FlowGone("gone"), "workflow gone"),
        (EnvelopeInvalid("no plan"), "workflow not readable"),
    ],
)
@in_virtual_time
async def test_a_workflow_that_cannot_go_on_waits_for_room_or_is_given_up(
    error: Exception, said: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_bench() as bench:
        flows, place = flows_of(bench), Place("default", "images", "flow")
        await a_root(bench, place)
        step, final = place.address(0, "images"), Record(State.DONE, 1, outcome=Outcome.SUCCEEDED)
        for name in ("_carry_on", "_follow"):
            monkeypatch.setattr(flows, name, raising(error))
        doing: list[Callable[[], Awaitable[Any]]] = [
            lambda: flows.start(step, an_envelope()),
            lambda: flows.settled(step, an_envelope(), final),
        ]
        with caplog.at_level(logging.INFO):
            for do in doing:
                if said is None:
                    with pytest.raises(NoRoom, match="workflowBytes"):
                        await do()
                else:
                    assert await do() is None
        assert caplog.messages == ([] if said is None else [said] * 2)
        assert await flows.settled(an_address(), None, final) is None, "it is no step"


@in_virtual_time
async def test_a_workflow_that_cannot_be_read_is_none(caplog: pytest.LogCaptureFixture) -> None:
    async with a_bench() as bench:
        place = Place("default", "images", "flow")
        await (await bench.producer.pipeline.send(topology.flow_subject(*place), b"\xff", b""))
        assert await flows_of(bench).root(place) is None
        assert caplog.messages == ["workflow not readable"]


@in_virtual_time
async def test_what_only_helps_a_workflow_is_not_insisted_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_bench() as bench:
        flows, place = flows_of(bench), Place("default", "images", "flow")
        root = await a_root(bench, place)
        away = raising(BrokerUnreachable("nats", "away"))
        monkeypatch.setattr(worker_flows, "wake", away)
        monkeypatch.setattr(flows._flows, "forget_parts", away)
        with caplog.at_level(logging.INFO):
            await flows._wake(place, root)
            await flows._forget(place)
        assert caplog.messages == ["task not woken", "workflow not cleared"]
        with pytest.raises(NotAllowed):
            await flows.insist(raising(NotAllowed("a.subject")), "ask")
