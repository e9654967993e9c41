"""A broker without room: producers are told so, and what was accepted before is kept."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from galley import (
    AsyncClient,
    AsyncHandle,
    BrokerFull,
    BrokerSilent,
    GalleyError,
    Phase,
    SubmitInterrupted,
    When,
    call,
    connect,
)
from galley.broker import connection, stream_config, topology
from galley.broker.ensure import ensure
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue

LARGE = "x" * 100_000
TOMORROW = When(not_before=datetime.now(UTC) + timedelta(days=1))


async def submit_until_refused(client: AsyncClient) -> tuple[list[AsyncHandle[object]], GalleyError]:
    accepted: list[AsyncHandle[object]] = []
    for _ in range(100):
        try:
            accepted.append(await client.submit(call("images", "resize", data=LARGE)))
        except GalleyError as error:
            return accepted, error
    raise AssertionError("there was room for all")


@pytest.fixture
async def client(
    own_nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncClient]:
    """A client that waits for answers for half a second instead of five."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.5)
    async with connect(own_nats_server.url, namespace) as client:
        layout = a_queue("images", namespace=namespace, backlog_bytes=64 * 1024 * 1024)
        await ensure(client.broker, layout)
        yield AsyncClient.over(client.broker, namespace, patience_seconds=0.5)


def fill_the_disk(server: NatsServer, client: AsyncClient) -> Path:
    """Let the next block of the queue's stream lie on a device that is always full.

    The server then says as little as on a disk without room: it logs a critical write error, closes the
    stream for writing until its next start, and answers nothing.
    """
    stream = topology.work_stream(client.namespace, "images")
    (folder,) = server.folder.glob(f"jetstream/*/streams/{stream}/msgs")
    block = folder / "2.blk"
    block.symlink_to("/dev/full")
    return block


async def test_on_a_full_disk_a_producer_is_told_within_its_patience_and_nothing_accepted_is_lost(
    own_nats_server: NatsServer, client: AsyncClient
) -> None:
    full = fill_the_disk(own_nats_server, client)

    accepted, error = await submit_until_refused(client)

    assert isinstance(error, BrokerSilent)
    assert str(error).startswith(f"NATS at {own_nats_server.url} is connected but does not acknowledge")
    assert "free space and restart it" in error.hint
    assert "critical write error" in own_nats_server.log_file.read_text()
    full.unlink()
    await own_nats_server.stop()
    await own_nats_server.start()
    async with connect(own_nats_server.url, client.namespace) as later:
        again = await later.submit(call("images", "resize"), task_id="again")
        for handle in [*accepted, again]:
            assert (await later.handle("images", handle.id).status()).phase is Phase.QUEUED


async def test_of_many_tasks_without_an_answer_all_are_told_within_one_patience(
    own_nats_server: NatsServer, client: AsyncClient
) -> None:
    await client.submit(call("images", "resize"))
    own_nats_server.freeze()

    async with asyncio.timeout(10):  # each for itself would take 50 s
        with pytest.raises(SubmitInterrupted, match="0 stored, 0 refused, 100 unknown") as cut:
            await client.submit_many([call("images", "resize", n=n) for n in range(100)])

    assert isinstance(cut.value.__cause__, BrokerSilent)


async def test_a_server_whose_room_is_reserved_says_so_and_keeps_what_it_has(
    tmp_path: Path, namespace: str
) -> None:
    async with (
        NatsServer(tmp_path / "nats", max_store_bytes=2 * 1024**2) as server,
        connect(server.url, namespace) as client,
    ):
        with pytest.raises(BrokerFull, match=r"no room to create stream .*\(error 10047\)") as full:
            await ensure(client.broker, a_queue("images", namespace=namespace))
        assert "max_file_store" in full.value.hint


async def test_a_server_whose_room_is_used_up_refuses_tasks_and_runs_on(
    tmp_path: Path, namespace: str
) -> None:
    layout = a_queue("images", namespace=namespace)
    async with (
        NatsServer(tmp_path / "nats", max_store_bytes=1024**2) as server,
        connect(server.url, namespace) as client,
    ):
        for definition in stream_config.stream_definitions(layout, 1):
            # Without bounds of their own streams reserve nothing, and only use can fill the server.
            name = definition["name"]
            await client.broker.api(f"create {name}", f"STREAM.CREATE.{name}", definition | {"max_bytes": -1})

        accepted, error = await submit_until_refused(client)

        assert isinstance(error, BrokerFull)
        assert "insufficient resources (error 10023)" in str(error)
        with pytest.raises(BrokerFull):
            await client.submit(call("images", "resize", data=LARGE), TOMORROW)
        assert [(await handle.status()).phase for handle in accepted] == [Phase.QUEUED] * len(accepted)
