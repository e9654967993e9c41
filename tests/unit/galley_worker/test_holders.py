"""What is found of the process that claimed a message, and what is said again after a reconnection."""

from datetime import UTC, datetime

import pytest
from nats.aio.msg import Msg

from galley.broker import topology
from galley.broker.control import Answer, Question, answering_as
from galley.record import Claim
from galley_worker.claim import Holder
from galley_worker.claimant import RECONNECT_SECONDS, Holders
from galley_worker.ledger import Replies
from tests.support.builders import an_address
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time, virtual_loop
from tests.unit.galley_worker.bench import Bench, a_bench

LEASE = 30.0
CLAIM = Claim("GW_default_images", 7, "h0")


def holders(broker: MemoryBroker, lease_seconds: float = LEASE) -> Holders:
    return Holders(broker, virtual_loop().time, lease_seconds)


async def asked(bench: Bench, ours: Holders) -> Holder:
    return await ours.ask(an_address(of=bench.layout), CLAIM)


@pytest.mark.parametrize("running", [True, False])
@in_virtual_time
async def test_a_process_that_lives_says_whether_it_runs_the_attempt(running: bool) -> None:
    async with a_bench() as bench, bench.worker("w0", "h0") as other, bench.worker("w1") as worker:
        questions: list[Question] = []

        def answer(question: Question) -> Answer:
            questions.append(question)
            return Answer("w0", datetime.now(UTC) if running else None)

        async with answering_as(other.broker, "default", "images", "h0", answer):
            found = await asked(bench, holders(worker.broker))
        assert found is (Holder.RUNNING if running else Holder.IDLE)
        assert questions == [Question("GW_default_images", 7)]


@in_virtual_time
async def test_a_process_without_a_connection_is_gone_once_ours_is_a_lease_old() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        ours = holders(worker.broker)
        assert await asked(bench, ours) is Holder.AWAITED
        await bench.pass_time(LEASE)
        assert await asked(bench, ours) is Holder.GONE


@in_virtual_time
async def test_with_short_leases_the_others_still_have_time_to_reconnect() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        ours = holders(worker.broker, lease_seconds=1.0)
        assert await asked(bench, ours) is Holder.AWAITED
        await bench.pass_time(RECONNECT_SECONDS)
        assert await asked(bench, ours) is Holder.GONE


@in_virtual_time
async def test_a_reconnection_begins_the_wait_again_however_long_it_is_not_asked() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        ours = holders(worker.broker)
        await bench.pass_time(2 * LEASE)
        bench.server.kill()
        bench.server.start()
        await bench.pass_time(5)
        assert worker.broker.connected
        assert await asked(bench, ours) is Holder.AWAITED
        await bench.pass_time(LEASE)
        assert await asked(bench, ours) is Holder.GONE


@in_virtual_time
async def test_a_process_that_is_connected_and_does_not_answer_is_silent_and_not_gone() -> None:
    async with (
        a_bench() as bench,
        bench.worker("w0", "h0") as other,
        bench.worker() as worker,
        answering_as(other.broker, "default", "images", "h0", lambda _: Answer("w0")),
    ):
        ours = holders(worker.broker)
        await bench.pass_time(LEASE)
        other.broker.line.lose(to_client=lambda subject: subject.startswith("galley.holder."))
        assert await asked(bench, ours) is Holder.SILENT


@in_virtual_time
async def test_a_process_whose_answer_cannot_be_read_is_silent() -> None:
    async with a_bench() as bench, bench.worker("w0") as other, bench.worker() as worker:

        async def hear(message: Msg) -> None:
            other.broker.publish(message.reply, b"{")

        await other.broker.subscribe(topology.holder_subject("default", "images", "h0"), hear)
        ours = holders(worker.broker)
        await bench.pass_time(LEASE)
        assert await asked(bench, ours) is Holder.SILENT


@in_virtual_time
async def test_without_a_connection_of_our_own_nothing_is_known_of_another_process() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        ours = holders(worker.broker)
        await bench.pass_time(LEASE)
        bench.server.kill()
        assert await asked(bench, ours) is Holder.AWAITED
        bench.server.start()


@pytest.mark.parametrize("when", ["as the connection broke", "while there was none"])
@in_virtual_time
async def test_a_task_given_back_without_a_connection_comes_again_long_before_its_lease_ends(
    when: str,
) -> None:
    async with a_bench() as bench, bench.worker("w1") as worker, bench.worker("w2", "h2") as other:
        replies = Replies(worker.broker, virtual_loop().time)
        await bench.submit()
        delivery = await bench.take(worker)
        began = virtual_loop().time()
        if when == "as the connection broke":
            replies.give_back(delivery.reply)
            worker.broker.line.cut(lose_sent=True)
        else:
            worker.broker.line.cut()
            replies.give_back(delivery.reply)
        assert (await bench.take(other)).sequence == delivery.sequence
        assert virtual_loop().time() - began < LEASE / 3


@in_virtual_time
async def test_what_was_said_long_before_a_reconnection_is_not_said_again() -> None:
    async with a_bench() as bench, bench.worker("w1") as worker:
        replies = Replies(worker.broker, virtual_loop().time)
        await bench.submit()
        replies.give_back((await bench.take(worker)).reply)
        await bench.pass_time(20)
        bench.mark()
        worker.broker.line.cut()
        await bench.pass_time(10)
        assert bench.writes() == []
