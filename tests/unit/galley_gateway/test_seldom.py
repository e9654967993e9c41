"""Values that no page sends, and answers that do not come: each is told in words, and is no fault of ours."""

import asyncio
import logging
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import UNSET
from nats.aio.msg import Msg
from starlette.types import Receive, Scope, Send

import galley_gateway.main
from galley.broker import queue_view, topology
from galley.broker.errors import BrokerUnreachable, NotAllowed
from galley.broker.signals import SignalReader
from galley.client import AsyncClient
from galley.encryption import DecryptionKeyMissing
from galley.errors import ResultTimeout, TaskFailed
from galley.handle import AsyncHandle
from galley.record import Failure, Outcome, Record, State
from galley.task_status import of_record
from galley_gateway.api.listing import _continued
from galley_gateway.api.queues import _keys, with_workers
from galley_gateway.api.view import with_result
from galley_gateway.body import number
from galley_gateway.cluster_access import ClusterAccess
from galley_gateway.errors import AccessUnknown, PortTaken, RequestInvalid
from galley_gateway.main import CANNOT_START, main
from galley_gateway.oidc.provider import OidcSettings, Provider
from galley_gateway.pages.content import _task
from galley_gateway.pages.overview import _supplies
from galley_gateway.server import listen, serving
from galley_operator.cluster.errors import ApiFailing
from tests.support.builders import an_address
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench

ISSUER = "https://login.example.com"


def a_provider() -> Provider:
    return Provider(OidcSettings(ISSUER, "galley", "https://galley.example.com"))


WRONG: dict[str, Callable[[], Any]] = {
    "a page that continues none": lambda: _continued({"continue": "soon~id"}),
    "a page without an offset": lambda: _continued({"continue": "2026-01-01T00:00:00~id"}),
    "a number": lambda: number({"seconds": "few"}, "seconds", 1, 10),
    "no number": lambda: number({"seconds": "nan"}, "seconds", 1, 10),
    "too many": lambda: number({"seconds": "11"}, "seconds", 1, 10),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_parameter_that_cannot_be_is_refused_by_name(what: str) -> None:
    with pytest.raises(RequestInvalid, match=r"continue|seconds"):
        WRONG[what]()


@pytest.mark.parametrize("token", ["a.b", "a.\u00e9.c", "a.!.c", "a.W10.c", "a." + "W1tb" * 5000 + ".c"])
def test_a_token_that_is_none_is_not_issued_by_the_provider(token: str) -> None:
    assert not a_provider().issued(token)


async def test_a_provider_whose_addresses_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = a_provider()

    async def read(_url: str) -> bytes:
        return b"<html>"

    monkeypatch.setattr(provider, "_get", read)
    with pytest.raises(Exception, match="its addresses cannot be read") as raised:
        await provider._read_addresses()
    assert type(raised.value).__name__ == "ProviderUnavailable"


async def test_an_api_server_that_fails_is_not_taken_for_a_refusal() -> None:
    class Failing(MemoryCluster):
        async def create(self, *_: Any, **__: Any) -> Any:
            raise ApiFailing("create", "tokenreviews", 500, "broken")

    with pytest.raises(AccessUnknown):
        await ClusterAccess(Failing()).identify("token")


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortTaken):
        listen("127.0.0.1", taken.getsockname()[1])


def test_settings_that_are_wrong_end_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setenv("GALLEY_GATEWAY_PORT", "soon")
    try:
        assert main() == CANNOT_START
    finally:
        root.handlers, root.level = handlers, level


@pytest.mark.parametrize("again", [False, True])
async def test_a_gateway_that_is_cancelled_while_it_ends_is_cancelled(again: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    listening = listen("127.0.0.1", 0)
    closing = asyncio.Event()
    limits = SimpleNamespace(connections=10, body_seconds=60)
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(app, cast("Any", SimpleNamespace(closing=closing, limits=limits)), listening):
            await over.wait()

    running = asyncio.create_task(serve())
    _, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")  # it ends once this is answered
    if again:
        running.cancel()
    over.set()
    await closing.wait()
    running.cancel()
    await asyncio.wait([running], timeout=60)
    assert running.cancelled()
    assert listening.fileno() == -1
    writer.close()


@pytest.mark.parametrize(
    ("raised", "note"),
    [
        (TaskFailed("one", "ValueError", "redriven, and failed"), ""),
        (ResultTimeout("one", 5.0), ""),
        (DecryptionKeyMissing("task images/one", "k1", ""), "k1"),
    ],
)
async def test_a_result_that_is_not_to_be_had_leaves_the_task(
    raised: Exception, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Any, within: float, *, hold_slot: bool) -> Any:
        assert within <= 10, "a task that runs again is not waited for"
        assert hold_slot
        raise raised

    monkeypatch.setattr(AsyncHandle, "result", fail)
    address = an_address(id="one")
    status = of_record(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED))
    view = await with_result(AsyncHandle(cast("Any", None), address, None), status)
    assert view.result is UNSET
    assert note in (view.note or "")


@in_virtual_time
async def test_queues_whose_supply_is_refused_are_shown_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_bench() as bench:

        async def refuse(*_: Any, **__: Any) -> Any:
            raise NotAllowed("galley.workers.default.images")

        monkeypatch.setattr(bench.producer, "request", refuse)
        assert await _supplies(bench.producer, "default", ["images"]) == {}


@in_virtual_time
async def test_a_failed_task_without_a_dead_letter_has_a_page() -> None:
    async with a_bench() as bench:
        address = await bench.submit()
        bench.put(
            address, Record(State.DONE, 1, outcome=Outcome.FAILED, failure=Failure("Broken", "no luck"))
        )
        client = AsyncClient.over(bench.producer, "default")
        look = cast("Any", SimpleNamespace(client=client, queue="images", name=address.id))
        page = await _task(look)
        assert (page["task"].phase, page["dead"]) == ("Failed", None)


@in_virtual_time
async def test_a_queue_of_which_only_a_part_is_known_is_shown_with_that() -> None:
    async with a_bench() as bench:
        broker = bench.producer

        async def babble(message: Msg) -> None:
            broker.publish(message.reply, b"\xff")

        await broker.subscribe(topology.workers_subject("default", "images"), babble)
        view = await queue_view.queue(broker, "default", "images")
        document = await with_workers(broker, SignalReader(broker), view)
        assert document.workers is None
        assert document.backlog is not None
        broker.line.lose(to_server=lambda subject: subject.startswith("$JS.API."))
        assert await _keys(broker, view) is None


@pytest.mark.parametrize("stops", [False, True])
async def test_a_gateway_that_starts_before_the_broker_waits_for_it(
    stops: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop, tries = asyncio.Event(), 0

    class Client:
        async def __aenter__(self) -> Any:
            nonlocal tries
            tries += 1
            if tries <= 2 or stops:
                raise BrokerUnreachable("nats", "away")
            return self

    monkeypatch.setattr(galley_gateway.main, "AsyncClient", Client)
    monkeypatch.setattr(galley_gateway.main, "_AGAIN_SECONDS", 0.01)
    connecting = asyncio.create_task(galley_gateway.main._connected(stop))
    await eventually(lambda: tries > 2, within=60)
    if stops:
        stop.set()
    client = await asyncio.wait_for(connecting, 60)
    assert (client is None) is stops
    assert caplog.messages[:2] == ["no way into the broker"] * 2
