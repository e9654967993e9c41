"""Who did what is written down, and no client can write it for others, or remove it."""

import asyncio
import logging
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from galley import AsyncClient, call
from galley.audit import Action, Actor, AuditLine, Entry, Writer, acting, encode, entry_of
from galley.broker import audit, topology
from galley.broker.connection import Broker
from galley.broker.counts import CountReader
from galley.broker.ensure import ensure, stream_info
from galley.broker.errors import BrokerRefused, NotAllowed
from galley.broker.lean_client import header_block
from galley.broker.permissions import Role
from galley_operator.audit import About, log, record
from galley_operator.audit_trail import AuditTrail
from galley_operator.figures import FiguresOfQueues
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats

FORGED = encode(Entry(Action.CANCEL, "alice", task="x"))


async def lines(operator: Broker, namespace: str = "ns", queue: str = "") -> list[AuditLine]:
    return [line async for line in audit.lines_of(operator, namespace, queue)]


@pytest.fixture
async def nats(own_guarded_nats: GuardedNats) -> GuardedNats:
    async with own_guarded_nats.operator() as operator:
        for namespace, name in (("ns", "mine"), ("ns", "theirs"), ("other", "mine")):
            await ensure(operator, a_queue(name, namespace=namespace))
    return own_guarded_nats


async def test_what_a_manager_does_is_written_down_and_no_submit_costs_a_line(nats: GuardedNats) -> None:
    creds = nats.write_creds(Role.MANAGER, "ns", "mine")
    async with nats.operator() as operator, Broker(nats.url, name="m", credentials=creds) as broker:
        client = AsyncClient.over(broker, "ns")
        for number in range(5):
            await client.submit(call("mine", "echo"), task_id=f"t{number}")
        await client.handle("mine", "t0").cancel()
        await client.queues.pause("mine")
        await AsyncClient.over(operator, "ns").queues.purge("mine")
        await client.queues.resume("mine")
        await client.schedules.create("nightly", call("mine", "echo"), "@daily")
        await client.schedules.create("nightly", call("mine", "echo"), "@daily")
        await client.schedules.suspend("mine", "nightly")
        await client.schedules.delete("mine", "nightly")
        found = await lines(operator, queue="mine")
        own = nats.write_gateway_creds()
        token = acting.set(Actor(Writer.GATEWAY, "alice", "10.0.0.7"))
        try:
            async with Broker(nats.url, name="gateway", credentials=own) as gateway:
                await AsyncClient.over(gateway, "ns").queues.pause("mine")
        finally:
            acting.reset(token)
        last = (await lines(operator))[-1]
    assert [(line.entry.action, line.entry.task, line.entry.count) for line in found] == [
        (Action.CANCEL, "t0", None), (Action.PAUSE, "", None), (Action.CANCEL, "", 4),
        (Action.RESUME, "", None), (Action.SCHEDULE, "nightly", None), (Action.PAUSE, "nightly", None),
        (Action.DELETE, "nightly", None),
    ]  # fmt: skip
    assert not any(line.attested for line in found)
    assert (last.writer, last.entry.user, last.entry.origin, last.attested) == (
        Writer.GATEWAY, "alice", "10.0.0.7", True,
    )  # fmt: skip


async def test_a_line_can_be_neither_forged_nor_removed_by_those_it_is_about(nats: GuardedNats) -> None:
    async with nats.operator() as operator:
        wrote = Entry(Action.CANCEL, "eve", task="theirs")
        for writer in Writer:
            await audit.store(operator, "ns", "mine", writer, wrote)
            await audit.store(operator, "other", "mine", writer, wrote)
        before = await lines(operator), await lines(operator, "other")
        for role in Role:
            creds = nats.write_creds(role, "ns", "mine")
            async with Broker(nats.url, name="evil", credentials=creds) as broker:
                for subject in (
                    *(topology.audit_subject("ns", "mine", each) for each in ("gateway", "operator")),
                    topology.audit_subject("ns", "theirs", Writer.CLIENT),
                    topology.audit_subject("other", "mine", Writer.CLIENT),
                ):
                    ack = await (await broker.pipeline.send(subject, FORGED, b""))
                    assert not ack.stored, (role, subject)
                for verb in ("PURGE", "DELETE", "UPDATE", "MSG.DELETE", "MSG.GET", "INFO"):
                    with pytest.raises(NotAllowed):
                        await broker.api("attack", f"STREAM.{verb}.GA_ns", {"seq": 1})
                # The answer of a request the role may make is no way either.
                stream = topology.work_stream("ns", "mine")
                for target in ("$JS.API.STREAM.PURGE.GA_ns", "galley.audit.ns.mine.operator"):
                    broker.publish(f"$JS.API.STREAM.INFO.{stream}", b"", target)
                await broker.reached(5)
        assert (await lines(operator), await lines(operator, "other")) == before
        # Nor can the operator itself change one: it can only remove the whole stream.
        for verb, request in (("PURGE", {}), ("MSG.DELETE", {"seq": 1})):
            with pytest.raises(BrokerRefused):
                await operator.api("attack", f"STREAM.{verb}.GA_ns", request)


async def test_a_manager_who_floods_its_own_lines_pushes_out_no_others(nats: GuardedNats) -> None:
    creds = nats.write_creds(Role.MANAGER, "ns", "mine")
    async with nats.operator() as operator:
        await audit.store(operator, "ns", "mine", Writer.OPERATOR, Entry(Action.EDIT, "alice"))
        await audit.store(operator, "ns", "theirs", Writer.CLIENT, Entry(Action.PAUSE, "bob"))
        async with Broker(nats.url, name="evil", credentials=creds) as broker:
            subject = topology.audit_subject("ns", "mine", Writer.CLIENT)
            answers = [await broker.pipeline.send(subject, FORGED, b"") for _ in range(1100)]
            assert all([(await each).stored for each in answers])
            for headers, body in (
                ({"Nats-Rollup": "sub"}, FORGED), ({"Nats-Rollup": "all"}, FORGED),
                ({"Nats-TTL": "1"}, FORGED), ({}, b"x" * 4096),
            ):  # fmt: skip
                ack = await (await broker.pipeline.send(subject, body, header_block(headers)))
                assert not ack.stored, headers
            # What is not a line is passed over.
            assert (await (await broker.pipeline.send(subject, b"\xff{", b""))).stored
        found = await lines(operator)
        info = await stream_info(operator, "GA_ns")
    forged = ("mine", Writer.CLIENT)
    others = [line.entry.user for line in found if (line.queue, line.writer) != forged]
    assert others == ["alice", "bob"]
    assert info is not None
    assert info["state"]["messages"] == 1002


async def test_numbers_of_any_length_do_not_break_the_page_of_all_namespaces(nats: GuardedNats) -> None:
    creds = nats.write_creds(Role.MANAGER, "ns", "mine")
    async with nats.operator() as operator, Broker(nats.url, name="evil", credentials=creds) as broker:
        subject = topology.count_subject("ns", "mine", "high", "cancelled")
        for number in (f"+{10**400}", f"-{10**401}", "+1"):
            headers = header_block({topology.INCREMENT: number})
            assert (await (await broker.pipeline.send(subject, b"", headers))).stored, number
            figures, registry = FiguresOfQueues(), CollectorRegistry()
            registry.register(figures)
            figures.counted(("ns", "mine"), await CountReader(operator).read("ns", "mine"))
            assert b"galley_queue_outcomes_total" in generate_latest(registry)


async def test_a_line_that_cannot_be_stored_is_in_the_log_and_undoes_nothing(
    nats: GuardedNats, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats.operator() as operator:
        client = AsyncClient.over(operator, "ns")
        await operator.api("remove", "STREAM.DELETE.GA_ns")
        with caplog.at_level(logging.WARNING):
            await client.queues.pause("mine")
        assert (await client.queues.get("mine")).paused
        assert [each.getMessage() for each in caplog.records] == ["audit line not stored"]
        assert await lines(operator) == []


def test_each_line_has_the_length_it_may_have() -> None:

    entry = entry_of(Actor(Writer.GATEWAY, "u" * 9999, "o" * 9999), Action.EDIT, "t" * 9999, 1, "d" * 9999)
    assert len(encode(entry)) < 2048 - 100
    line = audit.read("galley.audit.ns.mine.gateway-submits", encode(entry), datetime.now(UTC))
    assert line is not None
    assert line.writer is Writer.GATEWAY


async def test_the_operator_stores_its_lines_and_logs_those_of_others(
    nats: GuardedNats, caplog: pytest.LogCaptureFixture
) -> None:
    creds = nats.write_creds(Role.MANAGER, "ns", "mine")
    async with nats.operator() as operator, Broker(nats.url, name="m", credentials=creds) as broker:
        trail = AuditTrail(operator)
        running = asyncio.create_task(trail.run())

        async def trail_there() -> bool:
            return trail in log.handlers

        await eventually(trail_there, within=20)
        await operator.reached(5)
        record(Action.EDIT, "ns", "mine", About(user="eve", manager="kubectl", generation=2))
        record(Action.SCALE, "ns", "mine", About(manager="autoscaler", workers=3, reason="for 30 tasks"))
        record(Action.SUBMIT, "ns", "mine", About(task="t1", user="eve"))
        await AsyncClient.over(broker, "ns").queues.pause("mine")
        # What is no line is passed over, and does not end the operator.
        subject = topology.audit_subject("ns", "mine", Writer.CLIENT)
        await (await broker.pipeline.send(subject, b"{", b""))

        async def stored() -> bool:
            return len(await lines(operator)) == 2

        async def logged() -> bool:
            return {"edit", "pause"} <= {told["action"] for told in audited(caplog)}

        await eventually(stored, within=20)
        await eventually(logged, within=20)
        found = {line.entry.action: line for line in await lines(operator)}
        for _ in range(1200):
            record(Action.EDIT, "ns", "mine", About())  # more than wait: none waits for room
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert (found[Action.EDIT].entry.user, found[Action.EDIT].attested) == ("eve", True)
    assert found[Action.PAUSE].writer is Writer.CLIENT
    told = next(each for each in audited(caplog) if each["action"] == "pause")
    assert (told["writer"], told["user"], told["queue"]) == ("client", "", "mine")
    assert told["says"]
    assert "audit line in the log alone" in {each.getMessage() for each in caplog.records}
    assert trail not in log.handlers


def audited(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [each.__dict__ for each in caplog.records if each.getMessage() == "audit"]
