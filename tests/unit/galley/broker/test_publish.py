"""Publishing over a server in memory: what travels, what a lost answer means, how refusals are named."""

import asyncio
from datetime import timedelta
from typing import Any, Final

import pytest
from msgspec.structs import replace

from galley import AsyncClient, SubmitInterrupted, call
from galley.address import Kind
from galley.broker import topology
from galley.broker.errors import BrokerFull, BrokerSilent, BrokerUnreachable
from galley.broker.pipeline import FULL, NO_ROOM, Ack
from galley.broker.publish import Publisher, Receipt
from galley.broker.refusals import refusal
from galley.envelope import Flags
from galley.errors import GalleyError, LaneNotEnabled, QueueFull, QueueNotFound
from galley.lanes import Lane
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

TASK: Final = "galley.task."


def flags(bench: Bench, kind: str = "task") -> list[Flags]:
    """Return the flags of everything published of a kind, whether it was stored or refused."""
    return [
        Flags.decode(each.headers[topology.FLAGS_HEADER])
        for each in bench.server.log
        if each.what in ("stored", "refused") and each.kind == kind
    ]


@in_virtual_time
async def test_a_first_publish_is_not_flagged_and_expects_nothing_at_its_subject() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        receipt = await Publisher(bench.producer).publish(address, an_envelope())
        assert receipt == Receipt(address)
        assert flags(bench) == [Flags()]
        (stored,) = bench.seen("stored", "task")
        assert stored.headers[topology.EXPECTED_SEQUENCE] == "0"


@pytest.mark.parametrize("lost", ["task", "answer"])
@in_virtual_time
async def test_a_publish_repeated_for_want_of_an_answer_is_flagged_as_one_that_may_have_come_before(
    lost: str,
) -> None:
    async with a_bench() as bench:
        line, prefix = bench.producer.line, bench.producer.pipeline._prefix
        if lost == "task":
            line.lose(to_server=lambda subject: subject.startswith(TASK))
        else:
            line.lose(to_client=lambda subject: subject.startswith(prefix))
        address = an_address(of=bench.layout)
        publishing = bench.start(Publisher(bench.producer).publish(address, an_envelope()))
        await bench.pass_time(3)
        line.lose()
        receipt = await publishing
        assert receipt == Receipt(address, duplicate=lost == "answer")
        assert [each.republished for each in flags(bench)] == ([True] if lost == "task" else [False, True])
        assert bench.in_work == 1
        last = [each for each in bench.server.log if each.kind == "task"][-1]
        assert last.headers[topology.EXPECTED_SUBJECT] == topology.in_any_lane(address)


@in_virtual_time
async def test_a_publish_whose_connection_broke_is_repeated_flagged_on_the_next_one() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        prefix = bench.producer.pipeline._prefix
        bench.producer.line.lose(to_client=lambda subject: subject.startswith(prefix))
        publishing = bench.start(Publisher(bench.producer).publish(address, an_envelope()))
        await bench.pass_time(0.01)
        bench.producer.line.lose()
        bench.producer.line.cut()
        assert (await publishing).duplicate
        assert [each.republished for each in flags(bench)] == [False, True]


@in_virtual_time
async def test_a_task_that_was_acknowledged_before_its_publish_was_repeated_says_that_it_may_be_a_copy() -> (
    None
):
    async with a_bench() as bench, bench.worker() as worker:
        address = an_address(of=bench.layout)
        prefix = bench.producer.pipeline._prefix
        bench.producer.line.lose(to_client=lambda subject: subject.startswith(prefix))
        publishing = bench.start(Publisher(bench.producer).publish(address, an_envelope()))
        first = await bench.take(worker)
        worker.ledger.acknowledge(first.reply)
        await bench.pass_time(1)
        bench.producer.line.lose()
        await publishing
        second = await bench.take(worker)
        assert Flags.decode(second.header).republished, "or it would run a second time"


@in_virtual_time
async def test_an_id_of_one_s_own_is_flagged_from_the_first_and_found_in_any_lane() -> None:
    async with a_bench() as bench:
        publisher = Publisher(bench.producer)
        address = an_address(of=bench.layout, id="mine")
        assert not (await publisher.publish(address, an_envelope(), chosen_id=True)).duplicate
        again = replace(address, lane=Lane.HIGH)
        assert (await publisher.publish(again, an_envelope(), chosen_id=True)).duplicate
        assert [each.republished for each in flags(bench)] == [True, True]
        assert bench.in_work == 1


@pytest.mark.parametrize("lost", [False, True])
@in_virtual_time
async def test_a_delayed_task_waits_in_the_work_stream_and_no_repetition_replaces_it(lost: bool) -> None:
    async with a_bench() as bench:
        when = bench.server.now() + timedelta(seconds=60)
        address, envelope = an_address(of=bench.layout), an_envelope(not_before=when)
        prefix = bench.producer.pipeline._prefix
        if lost:
            bench.producer.line.lose(to_client=lambda subject: subject.startswith(prefix))
        publishing = bench.start(Publisher(bench.producer).publish(address, envelope))
        await bench.pass_time(3)
        bench.producer.line.lose()
        assert (await publishing).duplicate == lost
        assert [each.republished for each in flags(bench, "plan")] == ([False, True] if lost else [False])
        assert len(bench.seen("stored", "plan")) == 1
        assert all(topology.SCHEDULE not in each.headers for each in bench.server.log)


@pytest.mark.parametrize("connected", [True, False])
@in_virtual_time
async def test_a_broker_that_gives_no_answer_is_tried_for_as_long_as_one_s_patience(connected: bool) -> None:
    async with a_bench() as bench:
        bench.producer.line.lose(to_server=lambda subject: subject.startswith(TASK))
        if not connected:
            bench.server.kill()
        publisher = Publisher(bench.producer, patience_seconds=20)
        began = bench.server.now()
        with pytest.raises(BrokerSilent if connected else BrokerUnreachable):
            await publisher.publish(an_address(of=bench.layout), an_envelope())
        assert 20 <= (bench.server.now() - began).total_seconds() < 32


@in_virtual_time
async def test_servers_that_elect_a_leader_are_waited_for_also_when_asked_for_the_queue() -> None:
    async with a_bench() as bench:
        bench.producer.line.lose(to_server=lambda subject: "STREAM.INFO" in subject)
        publisher = Publisher(bench.producer, patience_seconds=20)
        began = bench.server.now()
        with pytest.raises(BrokerSilent):
            await publisher.publish(an_address(of=bench.layout, queue="nowhere"), an_envelope())
        assert 20 <= (bench.server.now() - began).total_seconds() < 32


@pytest.mark.parametrize("known", [True, False])
@in_virtual_time
async def test_a_task_is_stored_once_servers_without_a_leader_have_one(known: bool) -> None:
    async with a_bench() as bench:
        publisher = Publisher(bench.producer, patience_seconds=20)
        if known:
            await publisher.publish(an_address(of=bench.layout), an_envelope())
        bench.server.leaderless = True
        publishing = asyncio.create_task(publisher.publish(an_address(of=bench.layout), an_envelope()))
        await asyncio.sleep(5)
        bench.server.leaderless = False
        assert not (await publishing).duplicate


@in_virtual_time
async def test_servers_without_a_leader_are_waited_for_no_longer_than_one_s_patience() -> None:
    async with a_bench() as bench:
        bench.server.leaderless = True
        with pytest.raises(BrokerSilent, match="temporarily unavailable"):
            await Publisher(bench.producer, patience_seconds=20).publish(
                an_address(of=bench.layout), an_envelope()
            )


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"queue": "nowhere"}, QueueNotFound),
        ({"lane": Lane.CRITICAL}, LaneNotEnabled),
    ],
)
@in_virtual_time
async def test_what_no_stream_takes_is_refused_with_the_reason_at_once(
    changes: dict[str, Any], error: type[GalleyError]
) -> None:
    async with a_bench() as bench:
        began = bench.server.now()
        with pytest.raises(error):
            await Publisher(bench.producer).publish(an_address(of=bench.layout, **changes), an_envelope())
        assert (bench.server.now() - began).total_seconds() < 1


@in_virtual_time
async def test_a_full_queue_and_a_broker_without_room_are_told_apart_and_nothing_is_tried_again() -> None:
    async with a_bench() as bench:
        small = a_queue("small", backlog=1)
        bench.server.create(small)
        publisher = Publisher(bench.producer)
        await publisher.publish(an_address(of=small), an_envelope())
        with pytest.raises(QueueFull):
            await publisher.publish(an_address(of=small), an_envelope())
        # What a batch says of each of its tasks.
        assert isinstance(refusal(an_address(of=small), Ack(0, FULL)), QueueFull)
        assert isinstance(refusal(an_address(of=small), Ack(0, min(NO_ROOM))), BrokerFull)
        bench.server.full = (TASK,)
        with pytest.raises(BrokerFull):
            await publisher.publish(an_address(of=bench.layout), an_envelope())
        assert len(flags(bench)) == 3


@in_virtual_time
async def test_many_tasks_are_on_their_way_before_the_first_is_answered() -> None:
    async with a_bench() as bench:
        client = AsyncClient.over(bench.producer, bench.layout.namespace)
        await client.submit(call("images", "resize"))  # what a first task asks about the queue is known now
        bench.server.log.clear()
        bench.server.freeze()
        submitting = bench.start(client.submit_many([call("images", "resize", width=n) for n in range(100)]))
        await bench.pass_time(0.5)
        assert len(bench.server._kept) == 100
        bench.server.thaw()
        assert len(await submitting) == 100
        assert len(bench.seen("stored", "task")) == 100


@pytest.mark.parametrize("lost", ["task", "answer"])
@in_virtual_time
async def test_many_tasks_without_an_answer_are_sent_again_beside_each_other_and_come_back_in_their_order(
    lost: str,
) -> None:
    async with a_bench() as bench:
        client = AsyncClient.over(bench.producer, bench.layout.namespace)
        await client.submit(call("images", "resize"))  # what a first task asks about the queue is known now
        line, prefix = bench.producer.line, bench.producer.pipeline._prefix
        if lost == "task":
            line.lose(to_server=lambda subject: subject.startswith(TASK))
        else:
            line.lose(to_client=lambda subject: subject.startswith(prefix))
        submitting = bench.start(client.submit_many([call("images", "resize", width=n) for n in range(600)]))
        await bench.pass_time(0.01)
        line.lose()
        began = bench.server.now()
        handles = await submitting
        # An answer is waited for once, for 5 s; the pauses of 600 tasks would take 120 s.
        assert (bench.server.now() - began).total_seconds() < 10
        widths = [bytes(handle.envelope.input) for handle in handles if handle.envelope is not None]
        assert widths == [b'{"width":%d}' % n for n in range(600)]
        assert {handle.existed for handle in handles} == {lost == "answer"}
        assert bench.in_work == 601


@in_virtual_time
async def test_a_batch_that_is_cancelled_while_it_is_sent_again_says_that_its_tasks_may_be_stored() -> None:
    async with a_bench() as bench:
        client = AsyncClient.over(bench.producer, bench.layout.namespace)
        await client.submit(call("images", "resize"))
        # As servers that elect a leader: no stream takes the subject, and whether there is one is not said.
        bench.producer.line.lose(to_server=lambda subject: "STREAM.INFO" in subject)
        calls = [call("images", "resize", width=n).options(lane="critical") for n in range(3)]
        submitting = asyncio.create_task(client.submit_many(calls))
        await bench.pass_time(3)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await submitting
        error = SubmitInterrupted.of(cancelled.value)
        assert error is not None
        assert (error.submitted, error.refused, [*error.unknown]) == ({}, {}, [0, 1, 2])


@in_virtual_time
async def test_declared_tasks_travel_beside_direct_ones() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout, kind=Kind.DECLARED, id="u1")
        await Publisher(bench.producer).publish(address, an_envelope(), chosen_id=True)
        await Publisher(bench.producer).publish(replace(address, kind=Kind.DIRECT), an_envelope())
        assert bench.in_work == 2
