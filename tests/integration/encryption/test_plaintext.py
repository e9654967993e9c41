"""Neither the broker's disk, nor a snapshot of its streams, nor the wire has a word of what tasks carry.

The same is done with a queue that is not encrypted first, and everything is found: what looks can see.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from galley import TaskFailed, When, call, connect
from galley.broker import topology
from galley.broker.connection import Broker
from galley_local.nats_server import NatsServer
from tests.integration.encryption.scene import QUEUE, Recorder, a_key, a_place, working, write_keys
from tests.support.eventually import eventually

FOLDER = str(Path(__file__).parent)
SECRET = "7c0e9d41b2"
MARKS = (SECRET, f"RESULT-{SECRET}", f"MESSAGE-{SECRET}", "TRACEBACK-2f1d0c")
WRITTEN = (f"LOGGED-{SECRET}", f"PRINTED-{SECRET}")
"""What handlers log and print is in the logs of their pods whether or not their queue is encrypted."""


@pytest.fixture
async def wire(own_nats_server: NatsServer) -> AsyncIterator[Recorder]:
    async with Recorder().before(own_nats_server.url) as recorder:
        yield recorder


async def snapshot(broker: Broker, stream: str) -> bytes:
    """Return what a backup of a stream has."""
    inbox = broker.nats.new_inbox()
    whole, ended = bytearray(), asyncio.Event()

    def take(_subject: str, reply: str, body: bytes, _headers: bytes) -> None:
        whole.extend(body)
        broker.publish(reply) if reply else ended.set()

    subscription = await broker.nats.subscribe_directly(inbox, take)
    await broker.api("snapshot", f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox})
    async with asyncio.timeout(10):
        await ended.wait()
    await subscription.unsubscribe()
    return bytes(whole)


async def everything(
    server: NatsServer, wire: Recorder, namespace: str, folder: Path, keys: Path | None
) -> dict[str, bytes]:
    """Submit tasks of every kind by way of the recorder, and return all that others come to see."""
    retry = {"attempts": 2, "backoffSeconds": 0.1, "maxBackoffSeconds": 0.1}
    spec = {"worker": {"modules": ["handlers"], "logLevel": "INFO"}, "retry": retry}
    if keys is None:
        spec["encryption"] = None
    # With how many messages each of them ends.
    streams = {
        topology.work_stream(namespace, QUEUE): 0, topology.later_stream(namespace, QUEUE): 2,
        topology.records_stream(namespace, QUEUE): 3, topology.dead_stream(namespace, QUEUE): 1,
    }  # fmt: skip
    wire.heard.clear()
    async with (
        a_place(server, namespace, keys, **spec) as (_, queue),
        connect(wire.url, namespace, keys=keys) as client,
    ):
        later = When(not_before=datetime.now(UTC) + timedelta(hours=1))
        await client.submit(call(QUEUE, "keep", secret=SECRET), later, task_id="later")
        await client.submit(call(QUEUE, "nothing", secret=SECRET), task_id="waits")
        async with working(wire.url, queue, folder, keys or "", GALLEY_IMPORT_PATHS=FOLDER) as worker:
            handle = await client.submit(call(QUEUE, "keep", secret=SECRET), task_id="ok")
            assert await handle.result(within=20) == {"result": f"RESULT-{SECRET}"}
            failing = await client.submit(call(QUEUE, "tell", secret=SECRET), task_id="bad")
            with pytest.raises(TaskFailed, match=f"MESSAGE-{SECRET}"):
                await failing.result(within=20)

            async def deferred() -> bool:
                return (await client.handle(QUEUE, "waits").status()).due_at is not None

            async def settled() -> bool:
                # A result is there before its task is acknowledged, and the worker is about to be killed.
                infos = [await client.broker.api("look", f"STREAM.INFO.{stream}") for stream in streams]
                return [info["state"]["messages"] for info in infos] == list(streams.values())

            await eventually(deferred, within=20)
            await eventually(settled, within=20)
            said = worker.log_file.read_text()
    assert all(mark in said for mark in WRITTEN)
    seen = {"the wire": bytes(wire.heard)}
    async with Broker(server.url, name="backup") as broker:
        for stream in streams:
            seen[f"the snapshot of {stream[:2]}"] = await snapshot(broker, stream)
    return seen


def found(seen: dict[str, bytes]) -> dict[str, list[str]]:
    return {
        where: marks
        for where, data in seen.items()
        if (marks := [mark for mark in (*MARKS, *WRITTEN) if mark.encode() in data])
    }


async def test_no_word_of_a_task_is_found_where_the_broker_keeps_and_sends_it(
    own_nats_server: NatsServer, wire: Recorder, tmp_path: Path
) -> None:
    store = tmp_path / "nats"
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())

    for name in ("hidden", "open"):
        (tmp_path / name).mkdir()
    hidden = await everything(own_nats_server, wire, "hidden", tmp_path / "hidden", keys)
    hidden["the disk"] = b"".join(file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file())
    assert found(hidden) == {}

    open_ = await everything(own_nats_server, wire, "open", tmp_path / "open", None)
    open_["the disk"] = b"".join(file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file())
    seen = found(open_)
    assert seen["the wire"] == seen["the disk"] == [*MARKS, *WRITTEN], json.dumps(seen)
    # The parts of a snapshot are compressed, so that of a word not every letter need stand there.
    assert {where for where in seen if "snapshot" in where} >= {"the snapshot of GS"}, json.dumps(seen)
