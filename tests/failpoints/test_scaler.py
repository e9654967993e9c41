"""An autoscaler that fails at each named place: the next one finishes, and no worker stays drained."""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pytest

from galley.broker.connection import Broker
from galley.broker.doorbell import Doorbell
from galley.broker.ensure import ensure
from galley.broker.publish import Publisher
from galley.broker.signals import SignalReader
from galley.broker.topology import QueueLayout, work_stream
from galley.failpoint import hook
from galley_local.nats_server import NatsServer
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.autoscaler.signals import ScalingPolicy
from tests.conformance.fleet_in_memory import FleetInMemory
from tests.failpoints.places import SCALER
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually

POLICY = ScalingPolicy(min_workers=0, max_workers=2, slots=1, idle_seconds=1)


class Died(BaseException):
    """The end of a process, as far as one that goes on can play it."""


def failing(place: str, fault: str, passed: list[str]) -> Callable[[str], None]:
    def react(name: str) -> None:
        if name != place or passed:
            return
        passed.append(name)
        if fault == "crash":
            raise Died
        time.sleep(1.5 if fault == "freeze" else 0.2)  # noqa: TID251 - the process stands still

    return react


@dataclass
class FleetOfLateTakers(FleetInMemory):
    """A fleet whose workers take one more task as they are asked to drain, so that the drain lasts."""

    late: bool = True

    async def drain(self, names: Collection[str], seconds: float) -> None:
        await super().drain(names, seconds)
        for name in names:
            if self.late and seconds > 0 and name in self.members:
                self.members[name].tasks = 1


async def scale_for_ever(broker: Broker, queue: QueueLayout, fleet: FleetInMemory) -> None:
    """Run one autoscaler after the other, each of which knows nothing of the one before."""
    while True:
        async with Doorbell(broker, queue.namespace, queue.queue) as bell:
            scaler = Scaler(SignalReader(broker), bell, fleet, POLICY, queue=(queue.namespace, queue.queue))
            try:
                await scaler.run()
            except Died:
                continue


@pytest.mark.parametrize("fault", ["crash", "freeze", "delay"])
@pytest.mark.parametrize("place", SCALER)
async def test_an_autoscaler_that_fails_leaves_the_workers_to_the_next_one(
    nats_server: NatsServer, namespace: str, place: str, fault: str
) -> None:
    queue, fleet = a_queue(namespace=namespace), FleetOfLateTakers(slots=POLICY.slots)
    passed: list[str] = []
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, queue)

        async def work(tasks: int) -> None:
            for _ in range(tasks):
                await Publisher(broker).publish(an_address(of=queue), an_envelope())

        async def end_of_work() -> None:
            await broker.api("purge", f"STREAM.PURGE.{work_stream(queue.namespace, queue.queue)}")

        hook(failing(place, fault, passed))
        scaling = asyncio.create_task(scale_for_ever(broker, queue, fleet))
        try:
            await work(2)
            await eventually(lambda: len(fleet.members) == 2, within=60)
            await end_of_work()
            await eventually(lambda: any(each.drained_until for each in fleet.members.values()), within=60)
            # The drained worker is busy: it is there when work comes, however slow the machine is.
            await work(2)
            now = asyncio.get_running_loop().time
            await eventually(
                lambda: (
                    len(fleet.members) == 2
                    and all(each.drained_until <= now() for each in fleet.members.values())
                ),
                within=60,
            )
            fleet.late = False
            fleet.release()
            await end_of_work()
            await eventually(lambda: not fleet.members, within=60)
            assert passed == [place]
        finally:
            hook(None)
            scaling.cancel()
            await asyncio.wait([scaling], timeout=5)
