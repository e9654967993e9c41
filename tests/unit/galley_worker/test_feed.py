"""What is delivered beside the tasks of the slots: handled once for each delivery, whatever happens."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from galley.broker import topology
from galley.broker.pull import RENEW, Delivery, Source
from galley.faults import Faults
from galley.lanes import Lane
from galley_worker.feed import Feed, HandleSome
from tests.support.eventually import eventually
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, Worker, a_bench
from tests.unit.galley_worker.test_planner import submit_later


def a_feed(bench: Bench, worker: Worker, handle: HandleSome) -> Feed:
    work = topology.work_stream(bench.layout.namespace, bench.layout.queue)
    return Feed(
        worker.broker,
        bench.layout,
        Source(work, Lane.NORMAL, topology.PLAN),
        worker.ledger,
        handle,
        at_once=2,
    )


@in_virtual_time
async def test_what_is_given_back_after_a_fault_is_not_handled_by_its_old_delivery() -> None:
    handled: list[tuple[str, int]] = []
    async with a_bench() as bench, bench.worker() as worker:

        async def handle(some: Sequence[Delivery]) -> None:
            handled.extend((each.address.id, each.delivered) for each in some)
            if len(handled) == 1:
                later.append(await submit_later(bench))
                await asyncio.sleep(1)
                raise RuntimeError("a mistake")
            for each in some:
                worker.ledger.acknowledge(each.reply)

        faults, later = Faults(), [await submit_later(bench)]
        bench.start(faults.keep_running("feed", a_feed(bench, worker, handle).run))
        await eventually(lambda: bench.in_work == 0, within=120)
    first, second = (address.id for address in later)
    assert faults.seen == 1
    assert handled == [(first, 1), (second, 2), (first, 2)]


@in_virtual_time
async def test_leases_are_renewed_after_a_renewal_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[int] = []
    async with a_bench() as bench, bench.worker() as worker:
        publish, failed = worker.broker.publish, list[bytes]()

        def fail_once(subject: str, body: bytes = b"", *more: Any) -> None:
            if body == RENEW and not failed:
                failed.append(body)
                raise RuntimeError("a mistake")
            publish(subject, body, *more)

        async def handle(some: Sequence[Delivery]) -> None:
            handled.extend(each.delivered for each in some)
            await asyncio.sleep(3 * topology.LEASE_SECONDS)
            for each in some:
                worker.ledger.acknowledge(each.reply)

        monkeypatch.setattr(worker.broker, "publish", fail_once)
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _about: None)
        await submit_later(bench)
        bench.start(a_feed(bench, worker, handle).run())
        await eventually(lambda: bench.in_work == 0, within=600)
    assert (handled, failed) == ([1], [RENEW])
