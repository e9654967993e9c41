"""What the account of a role may take of the server, and what happens beyond that."""

import asyncio
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.json import encode

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.control import Heartbeat, hearing
from galley.broker.ensure import ensure
from galley.broker.lean_client import header_block
from galley.broker.permissions import Role
from galley.broker.records import Records
from galley.broker.stream_config import records_definition
from galley.errors import GalleyError
from galley.record import Outcome, Record, State
from galley_operator.credentials import authority
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats

MINE, THEIRS = a_queue("mine", namespace="ns", record_bytes=4 * 1024**2), a_queue("theirs", namespace="ns")
DONE = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED)


def connection(server: GuardedNats, path: Path) -> Broker:
    return Broker(server.url, name="test", connect_seconds=5, credentials=path)


async def test_a_role_has_so_many_connections_and_no_more(
    own_guarded_nats: GuardedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(authority._CONNECTIONS, Role.PRODUCER, 3)
    mine, theirs = (own_guarded_nats.write_creds(Role.PRODUCER, "ns", queue) for queue in ("mine", "theirs"))
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(connection(own_guarded_nats, mine))
        with pytest.raises(GalleyError):
            await stack.enter_async_context(connection(own_guarded_nats, mine))
        await stack.enter_async_context(connection(own_guarded_nats, theirs))


@pytest.mark.parametrize(("size", "accepted"), [(890 * 1024, True), (900 * 1024, False)])
async def test_a_producer_sends_no_more_than_a_dead_letter_has_room_for(
    own_guarded_nats: GuardedNats, size: int, accepted: bool
) -> None:
    async with own_guarded_nats.operator() as operator:
        await ensure(operator, MINE)
        path = own_guarded_nats.write_creds(Role.PRODUCER, "ns", "mine")
        async with connection(own_guarded_nats, path) as producer:
            subject = topology.task_subject(an_address(of=MINE))
            ack = await (await producer.pipeline.send(subject, bytes(size)))
            assert ack.stored is accepted
        info = await operator.api("look", f"STREAM.INFO.{topology.work_stream('ns', 'mine')}")
        assert info["state"]["messages"] == accepted


async def test_a_worker_cannot_evict_the_records_of_another_queue(own_guarded_nats: GuardedNats) -> None:
    """It could: all records of a namespace were in one stream, whose oldest went."""
    async with own_guarded_nats.operator() as operator:
        for layout in (MINE, THEIRS):
            await ensure(operator, layout)
        theirs = an_address(of=THEIRS)
        await Records(operator).write(theirs, DONE, 0)
        path = own_guarded_nats.write_creds(Role.WORKER, "ns", "mine")
        async with connection(own_guarded_nats, path) as worker:
            for _ in range(20):
                subject = topology.record_subject(an_address(of=MINE))
                assert (await (await worker.pipeline.send(subject, bytes(500_000)))).stored
        info = await operator.api("look", f"STREAM.INFO.{topology.records_stream('ns', 'mine')}")
        assert info["state"]["bytes"] <= MINE.record_bytes
        assert info["state"]["messages"] < 20
        stored = await Records(operator).read(theirs)
        assert stored is not None


async def test_the_control_experiment_records_in_a_shared_stream_are_evicted(
    own_guarded_nats: GuardedNats,
) -> None:
    """As in a namespace that was used with 0.1, whose stream is kept."""
    async with own_guarded_nats.operator() as operator:
        shared = records_definition(MINE, 1) | {
            "name": topology.shared_records_stream("ns"),
            "subjects": ["galley.result.ns.>"],
            "republish": {"src": "galley.result.ns.>", "dest": "galley.done.ns.>", "headers_only": True},
        }
        await operator.api("create", f"STREAM.CREATE.{shared['name']}", shared)
        for layout in (MINE, THEIRS):
            await ensure(operator, layout)
        theirs = an_address(of=THEIRS)
        await Records(operator).write(theirs, DONE, 0)
        assert await Records(operator).read(theirs) is not None
        path = own_guarded_nats.write_creds(Role.WORKER, "ns", "mine")
        async with connection(own_guarded_nats, path) as worker:
            for _ in range(20):
                subject = topology.record_subject(an_address(of=MINE))
                assert (await (await worker.pipeline.send(subject, bytes(500_000)))).stored
        assert await Records(operator).read(theirs) is None


@pytest.mark.parametrize("verb", ["schedule", "again", "plan", "task"])
async def test_a_producer_schedules_nothing(own_guarded_nats: GuardedNats, verb: str) -> None:
    """It could schedule onto declared tasks, and have schedules repeat."""
    async with own_guarded_nats.operator() as operator:
        await ensure(operator, MINE)
        path = own_guarded_nats.write_creds(Role.PRODUCER, "ns", "mine")
        address = an_address(of=MINE)
        subject = topology.task_subject(address).replace(".task.", f".{verb}.")
        target = topology.due_subject(address).replace(".sdk.", ".k8s.")
        headers = {topology.SCHEDULE: "@every 1s", topology.SCHEDULE_TARGET: target}
        async with connection(own_guarded_nats, path) as producer:
            ack = await (await producer.pipeline.send(subject, b"{}", header_block(headers)))
            assert not ack.stored
        await asyncio.sleep(1.5)
        for stream in (topology.work_stream("ns", "mine"), topology.later_stream("ns", "mine")):
            info = await operator.api("look", f"STREAM.INFO.{stream}")
            assert info["state"]["last_seq"] == 0


async def test_the_control_experiment_a_user_of_the_streams_account_schedules(
    own_guarded_nats: GuardedNats,
) -> None:
    async with own_guarded_nats.operator() as operator:
        await ensure(operator, MINE)
        address = an_address(of=MINE)
        target = topology.due_subject(address).replace(".sdk.", ".k8s.")
        headers = {topology.SCHEDULE: "@every 1s", topology.SCHEDULE_TARGET: target}
        subject = topology.schedule_subject(address)
        assert (await (await operator.pipeline.send(subject, b"{}", header_block(headers)))).stored

        async def forged() -> bool:
            stream = topology.later_stream("ns", "mine")
            info = await operator.api("look", f"STREAM.INFO.{stream}", {"subjects_filter": target})
            return bool(info["state"].get("subjects"))

        await eventually(forged, within=30)


async def test_a_flood_of_heartbeats_is_heard_by_its_ration_alone(own_guarded_nats: GuardedNats) -> None:
    """It was heard by the operator as fast as one worker sent it: the server cut the operator off."""
    flood, heard, others = 300_000, list[Heartbeat](), list[Heartbeat]()
    beat = encode(Heartbeat("w1", 1, 0, draining=False, ready=True))
    async with own_guarded_nats.operator() as operator:
        for layout in (MINE, THEIRS):
            await ensure(operator, layout)
        async with (
            hearing(operator, "ns", "mine", heard.append),
            hearing(operator, "ns", "theirs", others.append),
            connection(own_guarded_nats, own_guarded_nats.write_creds(Role.WORKER, "ns", "mine")) as worker,
            connection(own_guarded_nats, own_guarded_nats.write_creds(Role.WORKER, "ns", "theirs")) as quiet,
        ):
            await operator.reached(5)
            began = time.monotonic()
            for _ in range(flood // 3_000):
                for _ in range(3_000):
                    worker.publish(topology.heartbeat_subject("ns", "mine", "w1"), beat)
                await worker.reached(60)
                quiet.publish(topology.heartbeat_subject("ns", "theirs", "w2"), beat)
            await eventually(lambda: len(others) == flood // 3_000, within=60)
            assert 0 < len(heard) <= 1_200 * (2 + time.monotonic() - began)
            assert len(heard) < flood / 2
            assert operator.nats.stats["reconnects"] == 0
            before = len(heard)

            def again() -> bool:
                worker.publish(topology.heartbeat_subject("ns", "mine", "w1"), beat)
                return len(heard) > before

            await eventually(again, within=60)


async def test_a_flood_of_large_heartbeats_costs_others_none(own_guarded_nats: GuardedNats) -> None:
    """A ration of messages alone was no ration: at a megabyte each the server cut the operator off again."""
    heard, others = list[Heartbeat](), list[Heartbeat]()
    beat = encode(Heartbeat("w1", 1, 0, draining=False, ready=True))
    large = beat[:-1] + b',"more":"' + b"x" * 1_000_000 + b'"}'
    async with own_guarded_nats.operator() as operator:
        for layout in (MINE, THEIRS):
            await ensure(operator, layout)
        async with (
            hearing(operator, "ns", "mine", heard.append),
            hearing(operator, "ns", "theirs", others.append),
            connection(own_guarded_nats, own_guarded_nats.write_creds(Role.WORKER, "ns", "mine")) as worker,
            connection(own_guarded_nats, own_guarded_nats.write_creds(Role.WORKER, "ns", "theirs")) as quiet,
        ):
            await operator.reached(5)
            worker.publish(topology.heartbeat_subject("ns", "mine", "w1"), large)
            await eventually(lambda: bool(heard), within=60)
            began = time.monotonic()
            for _ in range(30):
                for _ in range(20):
                    worker.publish(topology.heartbeat_subject("ns", "mine", "w1"), large)
                await worker.reached(60)
                quiet.publish(topology.heartbeat_subject("ns", "theirs", "w2"), beat)
            stats = [each.nats.stats for each in (operator, worker, quiet)]
            await eventually(
                lambda: len(others) == 30 or any(each["reconnects"] for each in stats), within=60
            )
            assert (len(others), [each["reconnects"] for each in stats]) == (30, [0, 0, 0])
            # Eight megabytes a second at most: four, and four that were under way.
            assert len(heard) <= 8 * (2 + time.monotonic() - began)


async def test_a_listener_that_is_busy_is_not_cut_off_by_large_messages(
    own_guarded_nats: GuardedNats,
) -> None:
    """The server kept the rest of a subscription for it that was made for small messages."""
    heard = list[Heartbeat]()
    beat = encode(Heartbeat("w1", 1, 0, draining=False, ready=True))
    large = beat[:-1] + b',"more":"' + b"x" * 1_000_000 + b'"}'
    subject = topology.heartbeat_subject("ns", "mine", "w1")
    creds = own_guarded_nats.write_creds(Role.WORKER, "ns", "mine")

    async def send(count: int) -> None:
        async with connection(own_guarded_nats, creds) as worker:
            for _ in range(count):
                worker.publish(subject, large)
                await worker.reached(60)

    async with own_guarded_nats.operator() as operator:
        await ensure(operator, MINE)
        async with hearing(operator, "ns", "mine", heard.append):
            await operator.reached(5)
            await send(1)
            await eventually(lambda: bool(heard), within=60)
            await operator.reached(5)
            flood = threading.Thread(target=lambda: asyncio.run(send(120)))
            flood.start()
            flood.join()  # and so the event loop of the listener waits, too
            await operator.reached(30)
            assert operator.nats.stats["reconnects"] == 0
            # Four megabytes that were under way, and what comes in the second that begins now.
            assert len(heard) <= 1 + 2 * 4
