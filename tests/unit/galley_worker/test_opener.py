"""What becomes of an encrypted task whose keys a worker does not have, or not now."""

import asyncio

import pytest

from galley.broker import topology
from galley.encryption import DecryptionKeyMissing
from galley.encryption.data_keys import DataKeys
from galley.encryption.payloads import Payloads
from galley_worker.opener import Opener
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.encryption.keys import DOWN, TWO, Service, payloads
from tests.unit.galley_worker.bench import Bench, Worker, a_bench

LATER_SECONDS = 30.0


async def submit_encrypted(bench: Bench) -> None:
    work = bench.server.streams[topology.work_stream(bench.layout.namespace, bench.layout.queue)]
    work.definition["metadata"][topology.ENCRYPTION_KEY] = topology.ENCRYPTED
    bench.producer.payloads = payloads()
    await bench.submit(input={"card": "4111"})


def an_opener(worker: Worker, its: Payloads, missing_key_seconds: float = 0.0) -> Opener:
    return Opener(
        its, worker.settler, plaintext=False, key_service_seconds=LATER_SECONDS,
        missing_key_seconds=missing_key_seconds,
    )  # fmt: skip


@pytest.mark.parametrize("prepared", [False, True], ids=["from the start", "since it was prepared"])
@in_virtual_time
async def test_a_task_comes_again_later_while_the_key_service_is_away(prepared: bool) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await submit_encrypted(bench)
        service = Service()
        keys = DataKeys(service, asyncio.get_running_loop().time)
        opener = an_opener(worker, Payloads(lambda _namespace, _queue: keys))
        if prepared:
            await keys.prepare()
        service.down = DOWN
        began = bench.server.now()
        assert await opener.open(await bench.take(worker)) is None
        service.down = None
        again = await bench.take(worker)
        assert (bench.server.now() - began).total_seconds() >= LATER_SECONDS - 1
        opened = await opener.open(again)
        assert opened is not None
        assert bytes(opened.envelope.input) == b'{"card": "4111"}'
        assert opened.refused is None


@in_virtual_time
async def test_a_task_whose_key_is_missing_comes_again_if_the_key_may_come_and_else_is_refused() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        await submit_encrypted(bench)
        other = payloads(k2=TWO)
        assert await an_opener(worker, other, missing_key_seconds=60).open(await bench.take(worker)) is None
        opened = await an_opener(worker, other).open(await bench.take(worker))
        assert opened is not None
        assert isinstance(opened.refused, DecryptionKeyMissing)
