"""A queue at rest is seldom looked at, and whatever happens to it ends the rest."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from galley.backlog import Unknown
from galley.broker.doorbell import Doorbell
from galley.broker.ensure import ensure
from galley.broker.later import Door, send_later
from galley.broker.publish import Publisher
from galley.broker.signals import SignalReader
from galley.broker.topology import work_stream
from galley.envelope import Flags, encode
from galley_operator.autoscaler.decide import Decision
from galley_operator.autoscaler.ledger import SETTLE_SECONDS, Ledger
from galley_operator.autoscaler.scaler import GLANCE_SECONDS, REST_SECONDS, Scaler
from galley_operator.autoscaler.shares import Claim, Cost
from galley_operator.autoscaler.signals import ScalingPolicy
from galley_operator.budget import Budget
from galley_operator.errors import FleetRefused
from tests.conformance.fleet_in_memory import FleetInMemory
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time

QUEUE = a_queue()
QUEUE_NAME = QUEUE.namespace, QUEUE.queue


@dataclass
class Stage:
    """One scaler at work, and how often it looked."""

    server: MemoryServer
    broker: MemoryBroker
    bell: Doorbell
    fleet: FleetInMemory
    scaler: Scaler
    looks: list[float]
    clock: Callable[[], datetime]

    async def submit(self) -> None:
        await Publisher(self.broker).publish(an_address(of=QUEUE), an_envelope())

    async def submit_later(self, wait: timedelta) -> float:
        """Have a task due after a while; return when, by the loop's clock."""
        loop = asyncio.get_running_loop()
        due_at, began = loop.time() + wait.total_seconds(), self.clock()
        address = an_address(of=QUEUE)
        body, flags = encode(an_envelope()), Flags()
        await (await send_later(self.broker, address, body, flags, began + wait, Door.FIRST))
        return due_at

    async def until_rest(self) -> None:
        await eventually(lambda: self.scaler.resting, within=60)
        # Past the next look that all take together.
        await asyncio.sleep(REST_SECONDS + 1)


class Counting(Scaler):
    """Notes when it looked."""

    looks: list[float]

    async def sweep(self, *, rung: bool = False) -> Decision:
        self.looks.append(asyncio.get_running_loop().time())
        return await super().sweep(rung=rung)


@asynccontextmanager
async def stage(least: int = 0, ledger: Ledger | None = None) -> AsyncIterator[Stage]:
    server, fleet = MemoryServer(), FleetInMemory(slots=1)
    async with MemoryBroker(server, "operator") as broker, Doorbell(broker, *QUEUE_NAME) as bell:
        await ensure(broker, QUEUE)
        policy = ScalingPolicy(least, 4, 1, 2)
        loop, began = asyncio.get_running_loop(), datetime.now(UTC)
        begin = loop.time()

        def clock() -> datetime:
            return began + timedelta(seconds=loop.time() - begin)

        reader = SignalReader(broker, clock)
        scaler = Counting(reader, bell, fleet, policy, queue=QUEUE_NAME, clock=clock, ledger=ledger)
        scaler.looks = []
        running = asyncio.create_task(scaler.run())
        try:
            yield Stage(server, broker, bell, fleet, scaler, scaler.looks, clock)
        finally:
            running.cancel()
            await asyncio.wait([running])


@in_virtual_time
async def test_workers_that_cannot_be_looked_at_in_time_are_told_as_unknown_and_looked_at_again() -> None:
    async with stage() as it:
        await it.until_rest()
        observe = it.fleet.observe
        it.fleet.observe = asyncio.Event().wait  # type: ignore[method-assign, assignment]
        await it.submit()

        def workforce() -> object:
            return it.scaler.signals.workforce if it.scaler.signals is not None else None

        await eventually(lambda: "no answer in" in str(workforce()), within=60)
        assert isinstance(workforce(), Unknown)
        it.fleet.observe = observe  # type: ignore[method-assign]
        await eventually(lambda: len(it.fleet.members) == 1, within=60)


@in_virtual_time
async def test_a_queue_at_rest_is_looked_at_once_a_minute() -> None:
    for least in (0, 2):
        async with stage(least) as it:
            await it.until_rest()
            assert len(it.fleet.members) == least
            before = len(it.looks)
            await asyncio.sleep(600)
            assert len(it.looks) - before == 600 / REST_SECONDS


@in_virtual_time
async def test_a_worker_that_is_not_kept_goes_one_look_after_the_last_task() -> None:
    async with stage() as it:
        it.scaler.policy = replace(it.scaler.policy, idle_seconds=0)
        took = []
        for tenths in range(10):
            await it.until_rest()
            await it.submit()
            await eventually(lambda: len(it.fleet.members) == 1, within=60)
            await asyncio.sleep(5 + tenths / 10)
            await it.broker.api("purge", f"STREAM.PURGE.{work_stream(*QUEUE_NAME)}")
            ended = asyncio.get_running_loop().time()
            await eventually(lambda: not it.fleet.members, within=60)
            took.append(asyncio.get_running_loop().time() - ended)
        # A look is a second here, for a worker that is old; the one after it, which sees it drained, is not.
        assert sum(took) / len(took) < 1.2, took


@in_virtual_time
async def test_a_worker_that_went_back_to_work_is_kept_until_the_next_look(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as it:
        await it.until_rest()
        await it.submit()
        await eventually(lambda: len(it.fleet.members) == 1, within=60)
        scale, refused = it.fleet.scale, 0

        async def busy(workers: int) -> None:
            nonlocal refused
            if workers == 0 and not refused:
                refused += 1
                raise FleetRefused("images", 1, 0, 0)
            await scale(workers)

        it.fleet.scale = busy  # type: ignore[method-assign]
        caplog.set_level(logging.INFO)
        await it.broker.api("purge", f"STREAM.PURGE.{work_stream(*QUEUE_NAME)}")
        await eventually(lambda: not it.fleet.members, within=600)
        (said,) = [each for each in caplog.records if each.message == "scale-in refused"]
        assert said.levelno == logging.INFO
        assert "keeps its 1 workers" in said.__dict__["error"]


@in_virtual_time
async def test_tasks_now_and_then_for_a_worker_that_stays_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def decided() -> list[logging.LogRecord]:
        return [each for each in caplog.records if each.message == "workers decided"]

    async with stage() as it:
        it.scaler.policy = replace(it.scaler.policy, idle_seconds=60)
        await it.submit()
        await eventually(lambda: len(it.fleet.members) == 1, within=60)
        caplog.set_level(logging.INFO)
        for _ in range(5):
            await it.broker.api("purge", f"STREAM.PURGE.{work_stream(*QUEUE_NAME)}")
            await asyncio.sleep(3)
            await it.submit()
            await asyncio.sleep(3)
        assert (len(it.fleet.members), decided()) == (1, [])
        await it.broker.api("purge", f"STREAM.PURGE.{work_stream(*QUEUE_NAME)}")
        await eventually(lambda: not it.fleet.members, within=600)
        assert {each.__dict__["desired"] for each in decided()} == {0}


@in_virtual_time
async def test_workers_that_a_budget_did_not_allow_come_as_soon_as_it_does() -> None:
    # Nothing grows at once after a start of the operator.
    async with stage(2, Ledger(Budget(workers=3))) as it:
        await eventually(lambda: len(it.fleet.members) == 2, within=SETTLE_SECONDS + 2)
    ledger, other = Ledger(Budget(workers=3)), ("shop", "other")
    ledger.allowed(
        Claim(other, Cost(1), least=3, held=3, priority=9), datetime.now(UTC) - timedelta(minutes=1)
    )
    async with stage(2, ledger) as it:
        await asyncio.sleep(2 * REST_SECONDS)
        assert not it.fleet.members
        ledger.leave(other, Cost())
        await eventually(lambda: len(it.fleet.members) == 2, within=2)


@in_virtual_time
async def test_a_change_that_nothing_reported_is_found_by_a_glance_at_the_streams() -> None:
    async with stage() as it:
        await it.until_rest()
        before = len(it.looks)
        await eventually(lambda: len(it.looks) > before, within=REST_SECONDS + GLANCE_SECONDS)
        await asyncio.sleep(1)
        before = len(it.looks)
        it.bell.disarm()
        await it.submit()
        await eventually(lambda: len(it.fleet.members) == 1, within=GLANCE_SECONDS + 1)
        assert len(it.looks) == before + 1


@in_virtual_time
async def test_the_first_task_is_decided_on_within_a_tenth_of_a_second() -> None:
    async with stage() as it:
        for _ in range(3):
            await it.until_rest()
            began = asyncio.get_running_loop().time()
            await it.submit()
            await eventually(lambda: len(it.fleet.members) == 1, within=5)
            assert asyncio.get_running_loop().time() - began < 0.1
            await it.broker.api("purge", f"STREAM.PURGE.{work_stream(*QUEUE_NAME)}")


@in_virtual_time
async def test_a_task_that_comes_as_soon_as_the_rest_begins_is_decided_on_as_fast() -> None:
    async with stage() as it:
        for _ in range(3):
            await eventually(lambda: it.scaler.resting and not it.fleet.members, within=60)
            await it.submit()
            await eventually(lambda: len(it.fleet.members) == 1, within=0.1)
            await it.broker.api("purge", f"STREAM.PURGE.{work_stream(*QUEUE_NAME)}")


@in_virtual_time
async def test_the_first_task_does_not_wait_for_the_second_of_a_sweep_that_something_else_woke() -> None:
    async with stage() as it:
        await it.until_rest()
        for _ in range(2):
            it.scaler.wake()
            await asyncio.sleep(0.01)
        before = len(it.looks)
        await it.submit()
        await eventually(lambda: len(it.fleet.members) == 1, within=0.1)
        await asyncio.sleep(10)
        assert len(it.looks) - before <= 10 + 4, "one a second, and those that answered the bell"


async def reconnect(it: Stage) -> None:
    it.broker.line.cut()


async def wake(it: Stage) -> None:
    it.scaler.policy = replace(it.scaler.policy, min_workers=1)
    it.scaler.wake()


@pytest.mark.parametrize("happen", [reconnect, wake])
def test_what_may_hide_a_change_ends_the_rest(happen: Callable[[Stage], Awaitable[None]]) -> None:
    @in_virtual_time
    async def run() -> None:
        async with stage() as it:
            await it.until_rest()
            before = len(it.looks)
            await happen(it)
            await asyncio.sleep(3)
            assert len(it.looks) > before

    run()
