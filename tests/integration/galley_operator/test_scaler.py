import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from galley.backlog import Unknown
from galley.broker.connection import Broker
from galley.broker.doorbell import Doorbell
from galley.broker.ensure import ensure
from galley.broker.publish import Publisher
from galley.broker.signals import SignalReader
from galley.broker.topology import QueueLayout, work_stream
from galley_local.nats_server import NatsServer
from galley_operator.autoscaler import scaler as scaler_module
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.autoscaler.signals import ScalingPolicy
from galley_operator.errors import FleetUnknown
from galley_operator.fleet.fleet import WorkerPhase, Workforce
from tests.conformance.fleet_in_memory import FleetInMemory
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually

POLICY = ScalingPolicy(min_workers=0, max_workers=3, slots=2, idle_seconds=0)


@pytest.fixture
async def broker(nats_server: NatsServer) -> AsyncIterator[Broker]:
    async with Broker(nats_server.url, name="test") as connected:
        yield connected


@pytest.fixture
async def queue(broker: Broker, namespace: str) -> QueueLayout:
    layout = a_queue(namespace=namespace)
    await ensure(broker, layout)
    return layout


@pytest.fixture
def fleet() -> FleetInMemory:
    return FleetInMemory(slots=POLICY.slots)


@pytest.fixture
async def scaler(broker: Broker, queue: QueueLayout, fleet: FleetInMemory) -> AsyncIterator[Scaler]:
    async with Doorbell(broker, queue.namespace, queue.queue) as bell:
        yield Scaler(SignalReader(broker), bell, fleet, POLICY, queue=(queue.namespace, queue.queue))


@pytest.fixture
async def running(scaler: Scaler) -> AsyncIterator[Scaler]:
    """The scaler in its loop, after its first decision and with its doorbell armed."""
    loop = asyncio.create_task(scaler.run())
    try:
        await eventually(lambda: scaler.last is not None, within=30)
        yield scaler
    finally:
        loop.cancel()
        await asyncio.wait([loop], timeout=30)
        assert loop.cancelled()


async def submit(broker: Broker, queue: QueueLayout, tasks: int = 1) -> None:
    for _ in range(tasks):
        await Publisher(broker).publish(an_address(of=queue), an_envelope())


async def finish_all(broker: Broker, queue: QueueLayout) -> None:
    """Have the tasks done, as if workers had run them."""
    stream = work_stream(queue.namespace, queue.queue)
    await broker.api("purge", f"STREAM.PURGE.{stream}")


async def test_work_brings_workers_and_its_end_takes_them_away(
    broker: Broker, queue: QueueLayout, fleet: FleetInMemory, running: Scaler
) -> None:
    await submit(broker, queue, 5)
    await eventually(lambda: len(fleet.members) == 3, within=30)
    assert running.last is not None
    assert running.last.desired == 3
    await finish_all(broker, queue)
    await eventually(lambda: len(fleet.members) == 0, within=30)
    assert running.last.reason.startswith("0 workers: nothing waits or runs")


@pytest.fixture
def no_next_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a queue at rest looked at only when it rings."""
    monkeypatch.setattr(scaler_module, "GLANCE_SECONDS", 10**9)


@pytest.mark.usefixtures("no_next_sweep")
async def test_the_first_task_is_answered_before_the_next_sweep(
    broker: Broker, queue: QueueLayout, fleet: FleetInMemory, running: Scaler
) -> None:
    assert running.resting, "the next sweep is years away"
    await submit(broker, queue)
    await eventually(lambda: len(fleet.members) == 1, within=30)


async def test_a_fleet_that_does_not_answer_is_not_an_empty_one(
    broker: Broker, queue: QueueLayout, fleet: FleetInMemory, scaler: Scaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit(broker, queue, 6)
    await scaler.sweep()
    assert len(fleet.members) == 3

    async def fail() -> Workforce:
        raise FleetUnknown(queue.queue, "the machine is away")

    with monkeypatch.context() as broken:
        broken.setattr(fleet, "observe", fail)
        decision = await scaler.sweep()
        assert (decision.scale_to, decision.drain) == (None, ())
        assert "the machine is away" in decision.reason
        assert scaler.signals is not None
        assert isinstance(scaler.signals.workforce, Unknown)
        assert (await scaler.sweep()).reason == decision.reason, "since when it is not known stays"
    assert (await scaler.sweep()).desired == 3
    assert len(fleet.members) == 3


async def test_a_sweep_survives_any_error_of_a_fleet(
    fleet: FleetInMemory, scaler: Scaler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scaler.policy = replace(POLICY, min_workers=1)

    async def explode(workers: int) -> None:
        raise ZeroDivisionError(workers)

    with monkeypatch.context() as broken:
        broken.setattr(fleet, "scale", explode)
        await scaler.sweep()
        assert fleet.members == {}
        assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
    await scaler.sweep()
    assert len(fleet.members) == 1


async def test_a_drained_worker_that_went_back_to_work_is_not_removed(
    broker: Broker, queue: QueueLayout, fleet: FleetInMemory, scaler: Scaler
) -> None:
    await submit(broker, queue)
    await scaler.sweep()
    await finish_all(broker, queue)
    [worker] = fleet.members.values()

    async def asked_to_drain() -> bool:
        return (await scaler.sweep()).drain == (worker.name,)

    await eventually(asked_to_drain, within=30)
    await fleet.observe()
    await fleet.observe()
    assert worker.phase is WorkerPhase.DRAINING
    worker.tasks = 1  # it had taken one when the drain reached it
    decision = await scaler.sweep()
    assert (decision.remove, list(fleet.members)) == (0, [worker.name])
    worker.tasks = 0
    assert (await scaler.sweep()).remove == 1
    assert fleet.members == {}


async def test_a_new_policy_holds_from_the_next_sweep(fleet: FleetInMemory, scaler: Scaler) -> None:
    await scaler.sweep()
    assert fleet.members == {}
    scaler.policy = replace(POLICY, min_workers=2)
    await scaler.sweep()
    assert len(fleet.members) == 2


async def test_an_unreachable_server_keeps_the_workers(
    own_nats_server: NatsServer, namespace: str, fleet: FleetInMemory
) -> None:
    queue = a_queue(namespace=namespace)
    async with (
        Broker(own_nats_server.url, name="test") as broker,
        Doorbell(broker, queue.namespace, queue.queue) as bell,
    ):
        await ensure(broker, queue)
        scaler = Scaler(SignalReader(broker), bell, fleet, POLICY, queue=(queue.namespace, queue.queue))
        await submit(broker, queue, 4)
        await scaler.sweep()
        assert len(fleet.members) == 2
        own_nats_server.kill()

        async def unknown() -> bool:
            return "not known since" in (await scaler.sweep()).reason

        await eventually(unknown, within=30)
        for _ in range(3):
            decision = await scaler.sweep()
            assert (decision.scale_to, decision.drain) == (None, ())
        assert len(fleet.members) == 2
        await own_nats_server.start()

        async def known_again() -> bool:
            return (await scaler.sweep()).reason.startswith("2 workers: 4 waiting + 0 running")

        await eventually(known_again, within=30)
