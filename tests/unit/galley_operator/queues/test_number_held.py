"""A missing signal holds the number of workers; what another client sets does not. Both are told."""

import asyncio
from collections.abc import Callable

import pytest

from galley.broker.publish import Publisher
from galley.broker.topology import work_stream
from galley_operator.cluster.resource import DEPLOYMENTS
from galley_operator.errors import FleetUnknown
from galley_operator.fleet.fleet import Workforce
from tests.support.builders import an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.queues.test_queues import Stage, stage

KEY = "default", "images"
TASKS = 20


def replicas(it: Stage) -> int:
    return int(it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["spec"]["replicas"])


def needed(it: Stage) -> int:
    runtime = it.queues.served[KEY].runtime
    assert runtime is not None
    assert runtime.scaler.last is not None
    assert runtime.scaler.last.needed is not None
    return runtime.scaler.last.needed


def silent(it: Stage) -> Callable[[], None]:
    """Have the lanes give no answer; returns what ends that."""
    broker = it.queues._broker
    assert isinstance(broker, MemoryBroker)
    broker.line.lose(to_server=lambda subject: ".CONSUMER." in subject)
    return broker.line.lose


def workers_unknown(it: Stage) -> Callable[[], None]:
    runtime = it.queues.served[KEY].runtime
    assert runtime is not None
    observe = runtime.fleet.observe

    async def unknown() -> Workforce:
        raise FleetUnknown("images", "its pods are not listed")

    runtime.fleet.observe = unknown  # type: ignore[method-assign]

    def end() -> None:
        runtime.fleet.observe = observe  # type: ignore[method-assign]

    return end


@pytest.mark.parametrize("falls", [True, False], ids=["the backlog goes", "the backlog grows"])
@pytest.mark.parametrize(
    "begin",
    [silent, workers_unknown],
    ids=["backlog", "workers"],
)
def test_each_signal_that_is_missing_holds_the_number_is_told_and_is_followed_again(
    begin: Callable[[Stage], Callable[[], None]], falls: bool
) -> None:
    @in_virtual_time
    async def run() -> None:
        async with stage() as it, MemoryBroker(it.server, "producer") as producer:
            it.apply(scaling={"maxWorkers": 9})
            await eventually(lambda: it.condition("images", "ScalingActive") == "Scaling", within=60)

            async def submit(tasks: int) -> None:
                for _ in range(tasks):
                    await Publisher(producer).publish(
                        an_address(namespace=KEY[0], queue=KEY[1]), an_envelope()
                    )

            await submit(TASKS)
            await eventually(lambda: replicas(it) > 1, within=60)
            await asyncio.sleep(10)
            held, before = replicas(it), needed(it)
            assert held > 1

            end = begin(it)
            await eventually(lambda: it.condition("images", "ScalingActive") == "SignalsMissing", within=60)
            if falls:
                await producer.api("purge", f"STREAM.PURGE.{work_stream(*KEY)}")
            else:
                await submit(TASKS)
            for _ in range(120):
                await asyncio.sleep(1)
                assert replicas(it) == held
            assert "changes once that is known again" in it.message("images", "ScalingActive")
            assert it.condition("images", "ScalingActive") == "SignalsMissing"

            end()
            await eventually(lambda: it.condition("images", "ScalingActive") != "SignalsMissing", within=60)
            await eventually(lambda: (needed(it) == 0) if falls else (needed(it) > before), within=60)

    run()


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_replicas_that_another_client_sets_are_raised_again_and_told(number: int) -> None:
    @in_virtual_time
    async def run() -> None:
        async with stage() as it:
            it.apply(scaling={"minWorkers": 3})
            await eventually(lambda: it.condition("images", "ScalingActive") == "Scaling", within=60)
            await eventually(lambda: replicas(it) == 3, within=60)
            await asyncio.sleep(3)
            it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["spec"]["replicas"] = number
            it.api.touch(DEPLOYMENTS, "default", "galley-images", generation=True)
            await eventually(lambda: replicas(it) == 3, within=20)
            await eventually(lambda: it.condition("images", "ScalingActive") == "ReplicasChanged", within=20)
            assert f"were set to {number} by another client (from 3)" in it.message("images", "ScalingActive")

    run()
