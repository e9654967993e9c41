"""Encrypted tasks from producer to worker and back."""

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from galley import (
    AsyncClient,
    DeadLetterNotFound,
    DeadTask,
    NotRedrivable,
    Phase,
    RedriveIncomplete,
    Selection,
    TaskConflict,
    TaskFailed,
    call,
    connect,
)
from galley.broker import dead_letters
from galley.broker.connection import Broker
from galley.dead_letter import NO_TASK
from galley.encryption import DecryptionKeyMissing, EncryptionRequired, PlaintextRefused, QueueNotEncrypted
from galley.record import Failure
from galley_local.nats_server import NatsServer
from tests.integration.encryption.scene import QUEUE, a_key, a_place, working, write_keys
from tests.support.eventually import eventually


async def test_a_result_comes_back(nats_server: NatsServer, namespace: str, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    async with a_place(nats_server, namespace, keys) as (client, queue):
        async with working(nats_server.url, queue, tmp_path, keys):
            handle = await client.submit(call(QUEUE, "echo", value={"a": [1, "é"]}))
            assert await handle.result(within=20) == {"a": [1, "é"]}
            failing = await client.submit(call(QUEUE, "fail", message="no luck at all"))
            with pytest.raises(TaskFailed, match="no luck at all"):
                await failing.result(within=20)

            refused = await client.submit(call(QUEUE, "fail_once", path=str(tmp_path / "once")))
            with pytest.raises(TaskFailed):
                await refused.result(within=20)

            await eventually(lambda: _found(client.dead_letters.get(QUEUE, refused.id)), within=20)
            async with connect(nats_server.url, namespace) as without:
                with pytest.raises(DecryptionKeyMissing, match="encrypted with key 'k1'; keys at hand: none"):
                    await without.dead_letters.redrive(QUEUE, refused.id)
            await client.dead_letters.redrive(QUEUE, refused.id)

            async def ran() -> bool:
                return (await refused.status()).phase is Phase.SUCCEEDED

            await eventually(ran, within=20)
            assert await refused.result(within=30) == "second time"

        status = await failing.status()
        assert status.failure is not None
        assert status.failure.traceback.startswith("Traceback")
        assert "no luck at all" in status.history.attempts[0].message
        assert status.encrypted_with == ""

        async with connect(nats_server.url, namespace) as without:
            with pytest.raises(DecryptionKeyMissing, match="encrypted with key 'k1'"):
                await without.handle(QUEUE, handle.id).result(within=30)
            seen = await without.handle(QUEUE, failing.id).status()
            assert (seen.encrypted_with, seen.failure and seen.failure.message) == ("k1", "")
            assert seen.failure is not None
            assert seen.failure.reason == status.failure.reason


async def _found(look: Coroutine[Any, Any, DeadTask]) -> DeadTask:
    try:
        return await look
    except DeadLetterNotFound as error:
        raise AssertionError(str(error)) from None


async def test_a_retry_keeps_its_input_and_its_history(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    retry = {"attempts": 3, "backoffSeconds": 0.1, "maxBackoffSeconds": 0.1}
    async with (
        a_place(nats_server, namespace, keys, retry=retry) as (client, queue),
        working(nats_server.url, queue, tmp_path, keys),
    ):
        handle = await client.submit(call(QUEUE, "fail_until", path=str(tmp_path / "count"), times=2))
        assert await handle.result(within=30) == "try 3"
        status = await handle.status()
    assert [past.message for past in status.history.attempts] == [
        "RuntimeError: try 1",
        "RuntimeError: try 2",
    ]


async def test_a_producer_without_keys_sends_nothing(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with a_place(nats_server, namespace, None) as (client, _):
        with pytest.raises(EncryptionRequired, match="takes encrypted tasks only"):
            await client.submit(call(QUEUE, "echo", value="plain"))
        with pytest.raises(EncryptionRequired):
            await client.submit(call(QUEUE, "echo", value="plain"), task_id="chosen")
        with pytest.raises(Exception, match="2 of 2 tasks were refused") as refused:
            await client.submit_many([call(QUEUE, "echo"), call(QUEUE, "echo")])
        assert {type(each) for each in refused.value.refused.values()} == {EncryptionRequired}  # type: ignore[attr-defined]
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    async with a_place(nats_server, f"{namespace}x", keys, encryption=None) as (client, _):
        with pytest.raises(QueueNotEncrypted):
            await client.submit(call(QUEUE, "echo", value="secret"))


async def test_the_same_id_with_another_input_is_a_conflict_before_and_after_its_end(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    async with a_place(nats_server, namespace, keys) as (client, queue):
        first = await client.submit(call(QUEUE, "echo", value=1), task_id="one")

        async def check(client: AsyncClient) -> None:
            again = await client.submit(call(QUEUE, "echo", value=1), task_id="one")
            assert (again.existed, again.id) == (True, "one")
            with pytest.raises(TaskConflict, match="input"):
                await client.submit(call(QUEUE, "echo", value=2), task_id="one")

        await check(client)
        async with working(nats_server.url, queue, tmp_path, keys):
            assert await first.result(within=20) == 1
        await check(client)


async def test_a_task_in_plaintext_fails_unless_the_queue_says_otherwise(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    # Submitted before the queue was encrypted, or by one who lies about it.
    async with a_place(nats_server, namespace, None, encryption=None) as (client, _):
        before = await client.submit(call(QUEUE, "echo", value="plain words"))
    accept = {"secretName": "drills-keys", "plaintext": "Accept"}
    async with a_place(nats_server, namespace, keys) as (client, queue):
        async with working(nats_server.url, queue, tmp_path, keys):
            with pytest.raises(TaskFailed, match="not encrypted") as failed:
                await client.handle(QUEUE, before.id).result(within=20)
            assert failed.value.why == "PlaintextRefused"
            address = (await client.handle(QUEUE, before.id).status()).address
            async with Broker(nats_server.url, name="reader") as reader:
                # It is written after the record, which `result` waits for.
                kept = await eventually(lambda: dead_letters.read(reader, address), within=20)
        assert kept is not None
        assert kept.letter.envelope == NO_TASK
        kept = await dead_letters.read(client.broker, address)
        assert kept is not None
        assert b"plain words" in bytes(kept.letter.envelope)
        await _only_what_is_named_is_redriven(client, before.id)
        async with Broker(nats_server.url, name="without keys") as forger:
            other = replace(kept.letter, failure=Failure("AttemptsExhausted", "no"))
            assert (await dead_letters.exchange(forger, kept, other)).stored
            await _only_what_is_named_is_redriven(client, before.id)
            forged = await dead_letters.read(forger, address)
            assert forged is not None
            assert (await dead_letters.exchange(forger, forged, kept.letter)).stored
        [redriven] = await client.dead_letters.redrive_all(QUEUE, Selection(reason="PlaintextRefused"))
        assert redriven.id == before.id
    async with a_place(nats_server, f"{namespace}x", None, encryption=None) as (client, _):
        before = await client.submit(call(QUEUE, "echo", value="plain words"))
    async with (
        a_place(nats_server, f"{namespace}x", keys, encryption=accept) as (client, queue),
        working(nats_server.url, queue, tmp_path, keys),
    ):
        assert await client.handle(QUEUE, before.id).result(within=20) == "plain words"


async def _only_what_is_named_is_redriven(client: AsyncClient, task_id: str) -> None:
    """A redrive encrypts what it submits, and workers trust that."""
    with pytest.raises(RedriveIncomplete) as passed_over:
        await client.dead_letters.redrive_all(QUEUE)
    assert isinstance(passed_over.value.__cause__, NotRedrivable)
    assert "submitted without encryption" in str(passed_over.value)
    assert (await client.dead_letters.get(QUEUE, task_id)).id == task_id


async def test_a_result_in_plaintext_is_refused_by_who_has_the_keys(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    async with a_place(nats_server, namespace, None, encryption=None) as (client, queue):
        async with working(nats_server.url, queue, tmp_path, keys):
            handle = await client.submit(call(QUEUE, "echo", value=1))
            assert await handle.result(within=20) == 1
        async with connect(nats_server.url, namespace, keys=keys) as reader:
            with pytest.raises(PlaintextRefused):
                await reader.handle(QUEUE, handle.id).result(within=30)
