"""A client used where it cannot work says so at once, and what to do."""

import asyncio
import copy
import gc
import os
import pickle
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from galley import (
    AsyncClient,
    AsyncHandle,
    Client,
    ClientClosed,
    ClientElsewhere,
    GalleyError,
    SubmissionInvalid,
    SubmitInterrupted,
    call,
    connect,
)
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.home import Home
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.eventually import eventually

Use = Callable[[AsyncClient, AsyncHandle[Any]], Awaitable[Any]]
RESIZE = call("images", "resize")

USES: dict[str, Use] = {
    "submit": lambda client, _: client.submit(RESIZE),
    "submit with an id": lambda client, _: client.submit(RESIZE, task_id="k1"),
    "submit_many": lambda client, _: client.submit_many([RESIZE]),
    "submit_many of none": lambda client, _: client.submit_many([]),
    "result": lambda _, handle: handle.result(within=20),
    "status": lambda _, handle: handle.status(),
    "cancel": lambda _, handle: handle.cancel(),
}


async def opened(nats_server: NatsServer, namespace: str) -> tuple[Any, AsyncClient, AsyncHandle[Any]]:
    manager = connect(nats_server.url, namespace)
    client = await manager.__aenter__()
    await ensure(client.broker, a_queue("images", namespace=namespace))
    return manager, client, await client.submit(RESIZE)


def refused(use: Use, client: AsyncClient, handle: AsyncHandle[Any]) -> GalleyError:
    """Return the error, which has to come at once."""
    began = time.monotonic()

    async def run() -> GalleyError:
        with pytest.raises(GalleyError) as error:
            await use(client, handle)
        return error.value

    error = asyncio.run(run())
    assert time.monotonic() - began < 20
    assert "galley.AsyncClient()" in error.hint
    return error


@pytest.mark.parametrize("use", USES)
async def test_a_closed_client_refuses_each_use(nats_server: NatsServer, namespace: str, use: str) -> None:
    manager, client, handle = await opened(nats_server, namespace)
    await manager.__aexit__(None, None, None)
    with pytest.raises(ClientClosed, match="is closed"):
        await USES[use](client, handle)


@pytest.mark.parametrize("use", USES)
async def test_a_client_refuses_each_use_in_another_thread(
    nats_server: NatsServer, namespace: str, use: str
) -> None:
    manager, client, handle = await opened(nats_server, namespace)
    error = await asyncio.to_thread(refused, USES[use], client, handle)
    assert isinstance(error, ClientElsewhere)
    assert error.place == "another thread"
    assert (await handle.status()).handler == "resize", "the client goes on in its own loop"
    await manager.__aexit__(None, None, None)


@pytest.mark.parametrize("use", USES)
def test_a_client_refuses_each_use_in_the_next_event_loop(
    nats_server: NatsServer, namespace: str, use: str
) -> None:
    with asyncio.Runner() as first:
        manager, client, handle = first.run(opened(nats_server, namespace))
        error = refused(USES[use], client, handle)
        assert isinstance(error, ClientElsewhere)
        assert error.place == "another event loop"
        first.run(manager.__aexit__(None, None, None))


def test_an_event_loop_that_has_ended_is_told() -> None:
    async def here() -> Home:
        return Home.here()

    async def check(home: Home) -> None:
        home.check("nats://there", closed=False)

    home = asyncio.run(here())
    with pytest.raises(ClientElsewhere, match="opened in another event loop, which has ended"):
        asyncio.run(check(home))


@pytest.mark.parametrize("use", USES)
async def test_a_client_refuses_each_use_in_another_loop_of_its_thread(
    nats_server: NatsServer, namespace: str, use: str
) -> None:
    manager, client, handle = await opened(nats_server, namespace)
    found: list[BaseException] = []

    def run() -> None:
        # What nested loops do: the outer one is set aside while the inner one runs.
        outer = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(None)
        try:
            found.append(refused(USES[use], client, handle))
        finally:
            asyncio.events._set_running_loop(outer)

    run()
    assert isinstance(found[0], ClientElsewhere)
    assert found[0].place == "another event loop"
    await manager.__aexit__(None, None, None)


@pytest.mark.parametrize("use", USES)
async def test_a_client_refuses_each_use_after_a_fork(
    nats_server: NatsServer, namespace: str, use: str
) -> None:
    manager, client, handle = await opened(nats_server, namespace)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = "nothing"
        try:
            coroutine = USES[use](client, handle)
            coroutine.send(None)  # type: ignore[attr-defined]
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, told.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = await asyncio.to_thread(pipe.read)
    await asyncio.to_thread(os.waitpid, child, 0)
    assert told.startswith("ClientElsewhere: the client for NATS at nats://")
    assert "another process" in told
    assert (await handle.status()).handler == "resize"
    await manager.__aexit__(None, None, None)


async def test_who_waits_for_a_result_when_the_client_ends_is_told(
    nats_server: NatsServer, namespace: str
) -> None:
    manager, _, handle = await opened(nats_server, namespace)
    waiting = asyncio.create_task(handle.result())
    await asyncio.sleep(0.1)
    await manager.__aexit__(None, None, None)
    async with asyncio.timeout(20):
        with pytest.raises(ClientClosed):
            await waiting


async def test_who_submits_to_a_silent_broker_when_the_client_ends_is_told(
    own_nats_server: NatsServer, namespace: str
) -> None:
    manager, client, _ = await opened(own_nats_server, namespace)
    own_nats_server.kill()
    submitting = asyncio.create_task(client.submit(RESIZE))
    await asyncio.sleep(0.3)
    await manager.__aexit__(None, None, None)
    async with asyncio.timeout(20):
        with pytest.raises(ClientClosed):
            await submitting


async def test_a_client_whose_connection_was_never_opened_says_so() -> None:
    client = AsyncClient.over(Broker(name="test"))
    with pytest.raises(ClientClosed):
        await client.submit(RESIZE)


async def test_threads_may_hand_their_calls_to_the_clients_loop(
    nats_server: NatsServer, namespace: str
) -> None:
    manager, client, _ = await opened(nats_server, namespace)
    loop = asyncio.get_running_loop()
    ids: list[str] = []

    def elsewhere() -> None:
        ids.append(asyncio.run_coroutine_threadsafe(client.submit(RESIZE), loop).result(30).id)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert (await client.handle("images", ids[0]).status()).handler == "resize"
    await manager.__aexit__(None, None, None)


async def test_it_can_be_neither_pickled_nor_copied_and_says_what_can(
    nats_server: NatsServer, namespace: str
) -> None:
    manager, client, handle = await opened(nats_server, namespace)
    with Client(nats_server.url, namespace) as in_threads:
        for bound in (client, handle, in_threads, in_threads.handle("images", handle.id)):
            for copied in (pickle.dumps, copy.deepcopy):
                with pytest.raises(TypeError, match=r"find it again with client\.handle\(queue, id\)"):
                    copied(bound)
    await manager.__aexit__(None, None, None)


async def test_the_connection_of_a_client_that_is_dropped_is_closed(
    nats_server: NatsServer, namespace: str
) -> None:
    manager, _, _ = await opened(nats_server, namespace)

    def connections() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "galley client"]

    before = len(connections())

    def submit() -> str:
        return Client(nats_server.url, namespace).submit(RESIZE).id

    for _ in range(3):
        assert await asyncio.to_thread(submit)
    await asyncio.to_thread(gc.collect)
    await eventually(lambda: len(connections()) == before, within=60)
    await manager.__aexit__(None, None, None)


async def test_what_is_no_list_of_calls_is_refused_before_anything_is_sent(
    nats_server: NatsServer, namespace: str
) -> None:
    manager, client, _ = await opened(nats_server, namespace)
    with Client(nats_server.url, namespace) as in_threads:
        many: Any = in_threads.submit_many
        either: tuple[Any, ...] = (client.submit_many, partial(asyncio.to_thread, many))
        for submit in either:
            with pytest.raises(SubmissionInvalid, match="calls: Call is nothing to iterate over"):
                await submit(RESIZE)
            with pytest.raises(
                SubmitInterrupted, match="SubmissionInvalid: call: it is of type int"
            ) as error:
                await submit([RESIZE, 3, RESIZE])
            assert error.value.not_sent_from == 1
    await manager.__aexit__(None, None, None)


async def test_rules_and_selections_of_another_type_are_refused_with_what_to_pass(
    nats_server: NatsServer, namespace: str
) -> None:
    manager, client, _ = await opened(nats_server, namespace)
    wrong: Any = timedelta(minutes=1)
    uses: dict[str, Callable[[], Awaitable[Any]]] = {
        "galley.When(": lambda: client.submit(RESIZE, wrong),
        "galley.When(not_before=": lambda: client.submit_many([RESIZE], wrong),
        "galley.TaskSelection(": lambda: client.queues.find("images", wrong),
        "galley.Selection(": lambda: client.dead_letters.find("images", wrong),
    }
    for hint, use in uses.items():
        with pytest.raises(SubmissionInvalid, match="it is of type timedelta") as refused:
            await use()
        assert hint in refused.value.hint
    await manager.__aexit__(None, None, None)
