"""Processes that end in the midst of deleting objects: the next one finishes, and no object in use goes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.listing import subjects_of
from galley.broker.object_sweep import GRACE_SECONDS, LEAVING_SECONDS, Sweep, Swept
from galley.broker.objects import Place
from galley.broker.publish import Publisher
from galley.failpoint import hook
from galley.objects.content import Bytes
from galley.objects.store import INPUT
from galley_local.nats_server import NatsServer
from tests.failpoints.places import SWEEP
from tests.support.builders import a_queue, an_address, an_envelope

STEP = max(GRACE_SECONDS, LEAVING_SECONDS) + 1


class Died(BaseException):
    """The end of a process, as far as one that goes on can play it."""


@pytest.fixture
def passed() -> Iterator[list[str]]:
    yield []
    hook(None)


@pytest.mark.parametrize("place", SWEEP)
async def test_a_sweep_that_ends_anywhere_is_finished_by_the_next(
    nats_server: NatsServer, namespace: str, place: str, passed: list[str]
) -> None:
    queue = a_queue(namespace=namespace)
    where = Place(namespace, queue.queue)
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, queue)
        kept, gone = an_address(of=queue), an_address(of=queue)
        for address, data in ((kept, b"in use"), (gone, b"not in use")):
            await broker.objects.put(address, Bytes(data), INPUT)
        await Publisher(broker).publish(kept, an_envelope())

        def react(name: str) -> None:
            if name == place and not passed:
                passed.append(name)
                raise Died

        async def sweep(looks: int) -> Swept:
            now = datetime.now(UTC) + timedelta(seconds=looks * STEP)
            return await Sweep(broker, where, partial(broker.objects.remove, where), lambda: now).run()

        hook(react)
        looks = 0
        for looks in range(1, 6):
            try:
                await sweep(looks)
            except Died:
                continue
        assert passed == [place]
        assert await names(broker, where) == {await digest_of(b"in use")}
        assert (await sweep(looks + 1)).deleted == 0


async def names(broker: Broker, where: Place) -> set[str]:
    """Return the names of the objects of which anything is left."""
    pattern = topology.objects_of_queue(*where)
    depth = pattern.count(".")
    found: set[str] = set()
    async for page in subjects_of(broker, topology.object_stream(*where), pattern):
        found |= {subject.split(".")[depth + 1] for subject in page if subject.count(".") > depth}
    return found


async def digest_of(data: bytes) -> str:
    return (await Bytes(data).digest())[0]
