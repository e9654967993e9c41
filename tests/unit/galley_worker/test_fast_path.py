"""The fast path: which attempts take it, what it leaves to the long way, and how a worker drains with it."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from galley.envelope import encode
from galley.record import Outcome, Record, State
from galley_worker.fast_path import FastAttempt
from galley_worker.hands import _HAND_BACK_SECONDS, Hands
from galley_worker.puller import Puller
from galley_worker.runners.runners import Runners
from galley_worker.slots import Changes, WorkerSlots
from galley_worker.stop import Stop
from tests.support.builders import an_address, an_envelope
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.test_attempts import RETURNED, Shop, a_shop
from tests.unit.galley_worker.test_slots import Shared

GRACE = 5.0


class Recorder:
    """Has the slot of one attempt."""

    def __init__(self, over: asyncio.Event) -> None:
        self._over = over

    def leave(self) -> None:
        self._over.set()

    def resume(self, rest: Coroutine[Any, Any, None]) -> None:
        rest.close()
        pytest.fail("nothing has to be waited for")


@in_virtual_time
async def test_a_plain_task_is_over_with_its_acknowledgement_and_no_garbage_is_left() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        delivery, over = await shop.bench.take(shop.worker), asyncio.Event()
        hand = Recorder(over)
        gc.collect()
        gc.disable()
        try:
            assert shop.attempts.begin(delivery, hand)
            assert [type(each) for each in shop.attempts.roster.under_way.values()] == [FastAttempt]
            shop.handlers.started.pop().end(RETURNED)
            await over.wait()
            # Held by the attempt alone, and so gone with it unless a cycle keeps both.
            gone = weakref.ref(hand)
            del hand
            assert gone() is None
        finally:
            gc.enable()
        await shop.worker.broker.nats.flush()
        assert shop.bench.final(address).outcome is Outcome.SUCCEEDED
        assert (shop.bench.in_work, shop.attempts.roster.under_way) == (0, {})


@pytest.mark.parametrize(
    "changed",
    [
        {"delivered": 2}, {"old": True}, {"header": "v=1;a=1;f=0;r"}, {"header": "v=1;a=2;f=7"},
        {"header": None}, {"body": b"nonsense"}, {"problem": "no task can have its id"},
    ],
    ids=str,
)  # fmt: skip
@in_virtual_time
async def test_a_delivery_that_may_need_a_look_is_left_to_the_long_way(changed: dict[str, Any]) -> None:
    async with a_shop() as shop:
        await shop.bench.submit()
        delivery = (await shop.bench.take(shop.worker))._replace(**changed)
        assert not shop.attempts.begin(delivery, Recorder(asyncio.Event()))
        assert (shop.attempts.roster.under_way, shop.handlers.started) == ({}, [])


@pytest.mark.parametrize("task", [{"key": "k"}, {"handler": "unknown"}, {"sealed": "x"}], ids=str)
@in_virtual_time
async def test_a_task_that_has_to_wait_is_left_to_the_long_way(task: dict[str, Any]) -> None:
    async with a_shop() as shop:
        address = an_address(of=shop.bench.layout)
        await shop.bench.submit(address)
        delivery = await shop.bench.take(shop.worker)
        body = encode(an_envelope(**task))
        assert not shop.attempts.begin(delivery._replace(body=body), Recorder(asyncio.Event()))
        assert (shop.attempts.roster.under_way, shop.handlers.started) == ({}, [])


@in_virtual_time
async def test_while_one_is_alone_and_after_a_cancel_none_begins() -> None:
    async with a_shop() as shop:
        await shop.bench.submit()
        delivery = await shop.bench.take(shop.worker)
        await shop.worker.solitude.enter()
        await shop.worker.solitude.alone()
        assert not shop.attempts.begin(delivery, Recorder(asyncio.Event()))
        shop.worker.solitude.leave_alone()
        shop.attempts.roster.cancel(f"{delivery.address.kind}.{delivery.address.id}")
        assert not shop.attempts.begin(delivery, Recorder(asyncio.Event()))


@in_virtual_time
async def test_an_attempt_whose_record_is_refused_yields_to_the_one_that_is_there() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        attempt = shop.begin(await shop.bench.take(shop.worker))
        execution = await shop.handlers.running()
        shop.bench.put(address, Record(State.DONE, 1, worker="another", outcome=Outcome.CANCELLED))
        execution.end(RETURNED)
        await attempt
        await shop.worker.broker.nats.flush()
        assert shop.bench.final(address).worker == "another"
        assert shop.bench.in_work == 0


@in_virtual_time
async def test_an_attempt_that_ends_without_a_connection_is_settled_on_the_next() -> None:
    async with a_shop() as shop:
        address = await shop.bench.submit()
        attempt = shop.begin(await shop.bench.take(shop.worker))
        execution = await shop.handlers.running()
        shop.worker.broker.line.cut()
        execution.end(RETURNED)
        await attempt
        assert shop.bench.final(address).outcome is Outcome.SUCCEEDED


async def draining(shop: Shop, stop: Stop) -> "asyncio.Task[None]":
    """Begin to run what hands take, on two slots."""
    slots = WorkerSlots(cast("Runners", Shared()), 2, Changes(), asyncio.get_running_loop().time)
    puller = Puller(shop.worker.broker, shop.bench.layout, slots, shop.worker.ledger.replies.give_back)
    await shop.worker.pulls.end()
    return shop.bench.start(Hands(shop.attempts, puller, slots, stop, GRACE).run())


@in_virtual_time
async def test_a_drain_waits_for_an_attempt_on_the_fast_path() -> None:
    async with a_shop() as shop:
        stop = Stop()
        running = await draining(shop, stop)
        address = await shop.bench.submit()
        execution = await shop.handlers.running()
        assert [type(each) for each in shop.attempts.roster.under_way.values()] == [FastAttempt]
        stop.signal()
        await shop.bench.pass_time(GRACE / 2)
        assert not running.done()
        execution.end(RETURNED)
        await running
        assert shop.bench.final(address).outcome is Outcome.SUCCEEDED


@in_virtual_time
async def test_an_attempt_that_is_late_for_the_drain_is_handed_back() -> None:
    async with a_shop() as shop:
        stop = Stop()
        running = await draining(shop, stop)
        address = await shop.bench.submit()
        await shop.handlers.running()
        stop.signal()
        await running
        await shop.worker.broker.nats.flush()
        assert shop.bench.record(address) is None
        assert (shop.bench.in_work, len(shop.bench.seen("nak"))) == (1, 1)


@in_virtual_time
async def test_a_drain_gives_up_an_attempt_whose_record_is_not_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_shop() as shop:
        stop, loop = Stop(), asyncio.get_running_loop()
        running = await draining(shop, stop)
        await shop.bench.submit()
        execution = await shop.handlers.running()
        shop.worker.broker.line.lose(to_client=lambda _subject: True)
        execution.end(RETURNED)
        stop.signal()
        began = loop.time()
        await running
        assert loop.time() - began <= GRACE + _HAND_BACK_SECONDS + 5
        assert "attempts left unsettled" in caplog.messages
        assert shop.bench.in_work == 1, "what is not known to be stored is not acknowledged"
