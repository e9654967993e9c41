"""How long it is known how a task ended."""

from datetime import UTC, datetime

import pytest

from galley import AsyncClient
from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.publish import Publisher
from galley.envelope import Envelope, encode_input
from galley.lanes import Lane
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue


@pytest.mark.parametrize(
    ("origin", "seconds"),
    [((Kind.DIRECT, ""), 3600), ((Kind.DIRECT, "u1"), 86_400), ((Kind.DECLARED, ""), 86_400)],
)
async def test_an_end_is_kept_as_the_queue_says_and_that_of_a_declared_task_for_a_day(
    client: AsyncClient, namespace: str, start: StartWorkers, origin: tuple[Kind, str], seconds: int
) -> None:
    kind, uid = origin
    queue = a_task_queue(namespace, retention={"resultsSeconds": 3600})
    await ensure(client.broker, layout_of(queue, "tests"))
    await start(queue)
    address = TaskAddress(namespace, "drills", Lane.NORMAL, kind, "kept")
    work = Envelope("echo", datetime.now(UTC), input=encode_input("echo", {"value": 1}), uid=uid)
    await Publisher(client.broker).publish(address, work)

    async def kept() -> str | None:
        stream = topology.records_stream(namespace, "drills")
        subject = topology.record_subject(address)
        found = await client.broker.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")
        return (found.headers or {}).get(topology.TTL) if found is not None else None

    assert int(await eventually(kept, within=20) or 0) == seconds
