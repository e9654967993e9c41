"""Objects where they may be: encrypted, in S3, full, gone; and what a worker then does with their tasks."""

import asyncio
import base64
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from galley import (
    AsyncClient,
    Client,
    DeadLetterNotFound,
    File,
    ObjectsFull,
    ObjectStoreUnavailable,
    ObjectStoreUnknown,
    Phase,
    Redriven,
    RetryPolicy,
    TaskFailed,
    TaskNotFound,
    When,
    connect,
)
from galley.broker import topology
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.handlers import artifacts
from tests.support.s3 import BUCKET, s3_server
from tests.support.workers import a_task_queue

MARK = b"a word that must not be found"


def a_queue(namespace: str, **spec: Any) -> TaskQueue:
    worker: dict[str, object] = {"modules": ["artifacts"], "concurrency": 2, "gracePeriodSeconds": 2}
    retry = {"attempts": 2, "backoffSeconds": 0.1, "maxBackoffSeconds": 0.2}
    return a_task_queue(namespace, retry=retry, worker=worker, **spec)


async def test_objects_of_an_encrypted_queue_are_encrypted(
    own_nats_server: NatsServer, start: StartWorkers, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "primary").write_text("k1")
    (keys / "k1").write_text(base64.b64encode(bytes(range(32))).decode())
    queue = a_queue("default", encryption={"secretName": "keys"})
    source = tmp_path / "secret.bin"
    source.write_bytes(MARK * 40_000)
    async with connect(own_nats_server.url, keys=keys) as client:
        await ensure(client.broker, layout_of(queue, "tests"))
        await start(
            queue, server=own_nats_server.url, GALLEY_KEYS=str(keys), GALLEY_CACHE=str(tmp_path / "c")
        )
        file = File(source)
        handles = await client.submit_many([artifacts.measure.call(file) for _ in range(3)])
        text = MARK.decode() * 20_000
        large = await client.submit(artifacts.reverse.call(text), task_id="own")
        found = [(await handle.result(within=30))["digest"] for handle in handles]
        assert found == [hashlib.sha256(source.read_bytes()).hexdigest()] * 3
        assert await large.result(within=30) == text[::-1]
        assert (await client.submit(artifacts.reverse.call(text), task_id="own")).existed
        info = await client.broker.api("look", "STREAM.INFO.GO_default_drills")
        # The file of three tasks was stored once by this client; input and result of the other make two more.
        assert info["state"]["bytes"] < 1.2 * (len(MARK) * 40_000 + 2 * len(text))
        assert info["state"]["bytes"] > len(MARK) * 40_000
    everything = b"".join(path.read_bytes() for path in (tmp_path / "nats").rglob("*") if path.is_file())
    assert len(everything) > len(MARK) * 40_000
    assert MARK not in everything
    assert MARK[::-1] not in everything


async def test_objects_go_to_a_bucket_and_wait_out_its_refusals(
    client: AsyncClient, start: StartWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = a_queue(client.namespace)
    await ensure(client.broker, layout_of(queue, "tests"))
    with s3_server() as server:
        server.make_bucket()
        bucket = {**server.environment, "GALLEY_OBJECTS": f"s3://{BUCKET}/tasks"}
        for name, value in bucket.items():
            monkeypatch.setenv(name, value)
        async with connect(client.broker.server, client.namespace) as with_bucket:
            server.refusals = 2
            source = tmp_path / "model.bin"
            source.write_bytes(os.urandom(2 * 1024**2))
            handle = await with_bucket.submit(artifacts.same.call([File(source)]))
            await start(queue, GALLEY_CACHE=str(tmp_path / "cache"), **bucket)
            [back] = await handle.result(within=40)
            assert back.reference is not None
            assert back.reference.store == f"s3://{BUCKET}/tasks"
            target = await with_bucket.download(back, tmp_path / "copy.bin")
            assert target.read_bytes() == source.read_bytes()
            client.broker.objects_at = {}
            with pytest.raises(ObjectStoreUnknown, match="uses none but the queue itself") as unknown:
                await client.download(back, tmp_path / "other.bin")
            assert f"GALLEY_OBJECTS=s3://{BUCKET}/tasks" in unknown.value.hint
        info = await client.broker.api("look", f"STREAM.INFO.GO_{client.namespace}_drills")
        assert info["state"]["bytes"] < 10_000


async def test_a_bucket_that_is_away_costs_no_attempt(
    client: AsyncClient, start: StartWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = a_queue(client.namespace)
    await ensure(client.broker, layout_of(queue, "tests"))
    with s3_server() as server:
        server.make_bucket()
        bucket = {**server.environment, "GALLEY_OBJECTS": f"s3://{BUCKET}"}
        for name, value in bucket.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "a.txt").write_text("abc")
        async with connect(client.broker.server, client.namespace) as with_bucket:
            handle = await with_bucket.submit(artifacts.measure.call(File(tmp_path / "a.txt")))
            address = "http://127.0.0.1:9"
            [worker] = await start(
                queue, **{**bucket, "AWS_ENDPOINT_URL": address}, GALLEY_CACHE=str(tmp_path / "cache"),
                GALLEY_OBJECT_SECONDS="0.5",
            )  # fmt: skip
            await eventually(lambda: worker.logged("objects not fetched yet"), within=40)
            assert (await handle.status()).phase is Phase.QUEUED
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            async with connect(client.broker.server, client.namespace) as away:
                away.broker.objects_at = {**os.environ, "GALLEY_OBJECT_SECONDS": "0.5"}
                (tmp_path / "b.txt").write_text("other")
                with pytest.raises(ObjectStoreUnavailable, match=f"object store s3://{BUCKET} did not store"):
                    await away.submit(artifacts.measure.call(File(tmp_path / "b.txt")))
            server.refusals = 10**9
            async with connect(client.broker.server, client.namespace) as refused:
                refused.broker.objects_at = {**os.environ, **bucket, "GALLEY_OBJECT_SECONDS": "0.5"}
                with pytest.raises(ObjectStoreUnavailable, match="503") as told:
                    await refused.submit(artifacts.measure.call(File(tmp_path / "b.txt")), task_id="b")
                assert told.value.store == f"s3://{BUCKET}"
                with pytest.raises(TaskNotFound):
                    await refused.handle("drills", "b").status()


async def test_a_result_without_room_is_tried_again_and_then_a_dead_letter(
    client: AsyncClient, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_queue(client.namespace, limits={"objectBytes": 1024**2})
    await ensure(client.broker, layout_of(queue, "tests"))
    await start(queue, GALLEY_CACHE=str(tmp_path / "cache"))
    handle = await client.submit(artifacts.produce.call(3 * 1024**2))
    with pytest.raises(TaskFailed, match="could not be stored: the objects of queue 'drills' have no room"):
        await handle.result(within=30)
    assert (await handle.status()).attempt == 2
    dead = await client.dead_letters.get("drills", handle.id)
    assert "ResultNotStored" in str(dead.attempts)
    with pytest.raises(ObjectsFull, match="of 1048576 bytes are used") as full:
        await client.submit(artifacts.reverse.call("x" * 2 * 1024**2))
    assert "spec.limits.objectBytes" in full.value.hint


async def test_a_task_whose_object_is_gone_fails_with_the_reason(
    client: AsyncClient, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_queue(client.namespace)
    await ensure(client.broker, layout_of(queue, "tests"))
    (tmp_path / "a.txt").write_text("abc")
    handle = await client.submit(artifacts.measure.call(File(tmp_path / "a.txt")))
    stream = topology.object_stream(client.namespace, "drills")
    await client.broker.api("lose", f"STREAM.PURGE.{stream}")
    await start(queue, GALLEY_CACHE=str(tmp_path / "cache"))
    with pytest.raises(
        TaskFailed, match=r"ObjectMissing.*file 'a.txt'.* submit the task again, with its data"
    ):
        await handle.result(within=30)
    # Redriven without its data it fails again with the same reason, and stays a dead letter.
    assert await client.dead_letters.redrive("drills", handle.id) is Redriven.QUEUED

    async def dead_again() -> bool:
        with suppress(DeadLetterNotFound):
            dead = await client.dead_letters.get("drills", handle.id)
            return (dead.reason, dead.attempt) == ("ObjectMissing", 2)
        return False

    await eventually(dead_again, within=30)


UPLOAD = """
    import sys, galley
    from galley.broker import objects
    put = objects.StreamObjects._write_once
    async def slowly(self, place, subject, piece):
        await put(self, place, subject, piece)
        print(subject, flush=True)
        if subject.endswith(".2"):
            import time; time.sleep(60)
    objects.StreamObjects._write_once = slowly
    with galley.Client(sys.argv[1], sys.argv[2]) as client:
        client.submit(galley.call("drills", "measure", file=galley.File(sys.argv[3])), task_id="big")
"""


async def test_a_producer_killed_while_it_uploads_may_submit_again(
    client: AsyncClient, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_queue(client.namespace)
    await ensure(client.broker, layout_of(queue, "tests"))
    source = tmp_path / "big.bin"
    source.write_bytes(os.urandom(8 * 1024**2))
    words = [
        sys.executable,
        "-c",
        textwrap.dedent(UPLOAD),
        client.broker.server,
        client.namespace,
        str(source),
    ]
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while b".part." not in await process.stdout.readline():
            pass
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await start(queue, GALLEY_CACHE=str(tmp_path / "cache"))
    with Client(client.broker.server, client.namespace) as again:
        handle = await asyncio.to_thread(again.submit, artifacts.measure.call(File(source)), task_id="big")
        assert not handle.existed
        found = await asyncio.to_thread(handle.result, 30)
    assert found["digest"] == hashlib.sha256(source.read_bytes()).hexdigest()


async def test_fifty_tasks_on_one_machine_fetch_their_model_once(
    client: AsyncClient, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_queue(client.namespace)
    layout = replace(layout_of(queue, "tests"))
    await ensure(client.broker, layout)
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(4 * 1024**2))
    calls = [artifacts.measure.call(File(source), label=str(number)) for number in range(50)]
    handles = await client.submit_many(calls, When(retry=RetryPolicy(attempts=1)))
    workers = await start(queue, ("w1", "w2"), GALLEY_CACHE=str(tmp_path / "cache"))
    assert {(await handle.result(within=60))["size"] for handle in handles} == {4 * 1024**2}
    assert sum(len(worker.logged("object fetched")) for worker in workers) == 1


async def test_a_file_is_streamed_in_little_memory() -> None:
    """`make large` does the same with 1 GiB."""
    words = [sys.executable, "-m", "tests.support.large_file", "64", "90"]
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
