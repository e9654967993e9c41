"""Keys change while tasks run, and a key service goes away and comes back: nothing is lost."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from galley import AsyncHandle, Cancelled, TaskCancelled, TaskFailed, call, connect
from galley.broker.key_usage import key_usage
from galley.encryption import DecryptionKeyMissing, KeyServiceUnavailable, PayloadAltered, Wrapped
from galley.encryption.keys import read_keys
from galley_local.nats_server import NatsServer
from tests.integration.encryption.scene import QUEUE, a_key, a_place, working, write_keys
from tests.support.eventually import eventually


async def test_a_rotation_under_load_loses_nothing(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    one, two = a_key(), a_key()
    keys = write_keys(tmp_path / "keys", "k1", k1=one)
    async with (
        a_place(nats_server, namespace, keys) as (client, queue),
        working(nats_server.url, queue, tmp_path, keys),
    ):
        handles: list[AsyncHandle[int]] = []
        stop = asyncio.Event()

        async def submit() -> None:
            while not stop.is_set():
                handles.extend(
                    await client.submit_many([call(QUEUE, "echo", value=len(handles) + n) for n in range(20)])
                )
                await asyncio.sleep(0.2)

        async def used(key: str, what: str) -> int:
            return (await key_usage(client.broker, namespace, QUEUE))[what][key]

        async with asyncio.TaskGroup() as group:
            group.create_task(submit())
            await eventually(lambda: used("k1", "records"), within=120)
            write_keys(keys, "k1", k1=one, k2=two)
            write_keys(keys, "k2", k1=one, k2=two)
            await eventually(lambda: used("k2", "records"), within=120)
            stop.set()
        results = await asyncio.gather(*(handle.result(within=120) for handle in handles))
        assert results == list(range(len(handles)))
        # Results of before stay readable as long as their key is there.
        async with connect(
            nats_server.url, namespace, keys=write_keys(tmp_path / "new", "k2", k2=two)
        ) as late:
            assert await late.handle(QUEUE, handles[-1].id).result(within=30) == len(handles) - 1
            with pytest.raises(DecryptionKeyMissing, match="encrypted with key 'k1'; keys at hand: k2"):
                await late.handle(QUEUE, handles[0].id).result(within=30)


async def test_a_task_whose_key_never_comes_ends_with_its_reason_also_as_a_retry(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    theirs = write_keys(tmp_path / "theirs", "k7", k7=a_key())
    retry = {"attempts": 3, "backoffSeconds": 8, "maxBackoffSeconds": 8}
    async with (
        a_place(nats_server, namespace, keys, retry=retry) as (client, queue),
        connect(nats_server.url, namespace, keys=theirs) as other,
    ):
        patience = {"GALLEY_UNKNOWN_HANDLER_SECONDS": "1"}
        async with working(nats_server.url, queue, tmp_path, keys, **patience) as worker:
            retried = await client.submit(call(QUEUE, "fail", message="once"))

            async def failed() -> bool:
                return (await retried.status()).failure is not None

            await eventually(failed, within=20)
            write_keys(keys, "k2", k2=a_key())  # before its time: what waits can never be read again
            for handle in (retried, await other.submit(call(QUEUE, "echo"))):
                async with connect(nats_server.url, namespace, keys=keys) as reader:
                    with pytest.raises(TaskFailed, match="keys at hand: k") as end:
                        await reader.handle(QUEUE, handle.id).result(within=40)
                    assert end.value.why == "DecryptionKeyMissing"
            assert len(worker.logged("worker ready")) == 1


class Kms:
    """A key service over HTTP on loopback, with a key of its own."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[str] = []
        self.url = ""
        self._kept: dict[str, bytes] = {}

    @asynccontextmanager
    async def served(self) -> AsyncIterator["Kms"]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        verb = head.split()[1].strip("/")
        self.asked.append(verb)
        answer, status = {}, self.status
        if status == 200 and verb == "wrap":
            name = f"ref-{len(self._kept)}"
            self._kept[name] = base64.b64decode(body["data"])
            answer = {"key": "kms", "data": base64.b64encode(name.encode()).decode()}
        elif status == 200:
            kept = self._kept.get(base64.b64decode(body["data"]).decode(errors="replace"))
            status = 404 if kept is None else 200
            answer = {"data": base64.b64encode(kept or b"").decode()}
        text = json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()
        writer.close()


class HttpKeys:
    """A `KeyProvider` that asks `Kms`, as a package of its own would have it."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.url = settings["url"]

    def version(self) -> str:
        return ""

    async def wrap(self, data_key: bytes) -> Wrapped:
        answer = await self._ask("wrap", data_key)
        return Wrapped(answer["key"], base64.b64decode(answer["data"]))

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        if key_id != "kms":
            raise DecryptionKeyMissing("the data key", key_id, "kms")
        return base64.b64decode((await self._ask("unwrap", wrapped))["data"])

    async def _ask(self, verb: str, data: bytes) -> dict[str, str]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({"data": base64.b64encode(data).decode()}).encode()
        writer.write(f"POST /{verb} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        head, _, text = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        match head.split()[1]:
            case b"200":
                found: dict[str, str] = json.loads(text)
                return found
            case b"404":
                raise PayloadAltered("the data key", "the key service does not know it")
            case status:
                raise ConnectionError(f"the key service answered {status.decode()}")


def install(folder: Path) -> dict[str, str]:
    """Have processes find the provider as that of an installed package; returns their environment."""
    package = folder / "site" / "http_keys-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Name: http-keys\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[galley.key_providers]\nhttp = {__name__}:HttpKeys\n")
    return {"PYTHONPATH": f"{folder / 'site'}:{Path(__file__).parents[3]}"}


async def test_a_key_service_that_is_down_costs_time_and_nothing_else(
    nats_server: NatsServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    async with Kms().served() as kms:
        settings = {"provider": "http", "url": kms.url}
        secret = tmp_path / "keys.json"
        secret.write_text(json.dumps({"kind": "Secret", "stringData": settings}))
        assert isinstance(read_keys(secret), HttpKeys)
        async with a_place(nats_server, namespace, secret) as (client, queue):
            kms.status = 503
            with pytest.raises(KeyServiceUnavailable, match="answered 503"):
                await client.submit(call(QUEUE, "echo", value=1))
            kms.status = 200
            handle = await eventually(
                lambda: _submitted(client.submit(call(QUEUE, "echo", value=1))), within=20
            )
            kms.status = 503
            named = await _submitted(client.submit(call(QUEUE, "echo", value=1), task_id="named"))
            async with connect(nats_server.url, namespace, keys=secret) as fresh:
                # Not taken for the same work as long as that cannot be told.
                with pytest.raises(KeyServiceUnavailable, match="answered 503"):
                    await fresh.submit(call(QUEUE, "echo", value=2), task_id="named")
                assert await fresh.handle(QUEUE, "named").cancel() is Cancelled.BEFORE_START
            with pytest.raises(TaskCancelled):
                await named.result(within=30)
            fast = {"GALLEY_KEY_SERVICE_SECONDS": "0.5"}
            async with working(nats_server.url, queue, tmp_path, secret, **environment, **fast) as worker:
                await eventually(lambda: worker.logged("task not decrypted yet"), within=30)
                assert "answered 503" in worker.logged("task not decrypted yet")[0]["why"]
                kms.status = 200
                assert await handle.result(within=30) == 1
                status = await handle.status()
                assert (status.attempt, status.history.errors, status.history.crashes) == (1, 0, 0)
                # What it has unwrapped goes on while the service is away.
                kms.status = 503
                again = await client.submit(call(QUEUE, "echo", value=2))
                assert await again.result(within=20) == 2


async def _submitted(submit: Coroutine[Any, Any, AsyncHandle[int]]) -> AsyncHandle[int]:
    try:
        return await submit
    except KeyServiceUnavailable as error:
        raise AssertionError(str(error)) from None
