"""A connection that is reset: what the server had sent before is read, and nothing waits for its lease."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from galley.broker.connection import Broker
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually

BODY = b"on its way"


class Way:
    """A TCP proxy, in threads of its own, that can reset the connections of its clients."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self.forwarded = threading.Event()
        """Set when the message came from the server and was passed on."""
        self.ended = threading.Event()
        """Set once nothing reads from a client any more."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server.port))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the server does
            self._clients.append(client)
            threading.Thread(target=_relay, args=(server, client, self.forwarded), daemon=True).start()
            threading.Thread(target=self._of_client, args=(client, server), daemon=True).start()

    def _of_client(self, client: socket.socket, server: socket.socket) -> None:
        _relay(client, server, threading.Event())
        self.ended.set()

    def reset(self) -> None:
        """Close the connections as the kernel does if a process dies that has not read everything."""
        for client in [client for client in self._clients if client.fileno() >= 0]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Wakes the thread that reads from it, which would keep it open.
            client.shutdown(socket.SHUT_RD)
            client.close()
        self._clients.clear()

    def close(self) -> None:
        self._listener.close()
        self.reset()


def _relay(source: socket.socket, target: socket.socket, told: threading.Event) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
            if BODY in data:
                told.set()
    except OSError:
        return
    finally:
        source.close()


@contextmanager
def way_to(server: NatsServer) -> Iterator[Way]:
    way = Way(server)
    try:
        yield way
    finally:
        way.close()


def publish_from_elsewhere(server: NatsServer, subject: str, body: bytes) -> None:
    """Publish without this process's event loop."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        lines = b'CONNECT {"verbose":false}\r\nPUB %s %d\r\n%s\r\nPING\r\n'
        connection.sendall(lines % (subject.encode(), len(body), body))
        said = b""
        while b"PONG" not in said:
            said += connection.recv(4096)


# The reset is what the test is about.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*StreamWriter:pytest.PytestUnraisableExceptionWarning"
)
async def test_what_arrived_before_a_reset_is_read_although_something_was_to_be_written(
    nats_server: NatsServer,
) -> None:
    heard: list[bytes] = []
    with way_to(nats_server) as way:
        async with Broker(way.url, name="test") as broker:
            await broker.nats.subscribe_directly(
                "x", lambda _subject, _reply, body, _headers: heard.append(body)
            )
            assert await broker.reached(5)
            # All in one turn of the event loop: it wakes up with something to read, to write, and a reset.
            broker.publish("y")
            publish_from_elsewhere(nats_server, "x", BODY)
            assert way.forwarded.wait(30)
            way.reset()
            assert way.ended.wait(30)
            await eventually(lambda: heard == [BODY], within=30)
            await eventually(lambda: broker.connected, within=20)


async def test_a_client_with_a_question_left_closes_while_it_tries_to_connect(
    own_nats_server: NatsServer,
) -> None:
    async with Broker(own_nats_server.url, name="test") as broker:
        before = broker.nats._transport
        own_nats_server.kill()
        # It is trying to connect: there is a new transport, and no connection.
        await eventually(lambda: broker.nats._transport is not before and not broker.connected, within=20)
        asking = asyncio.create_task(broker.request("$JS.API.INFO", b""))
        await eventually(lambda: broker.nats.pending_data_size > 0, within=20)
    asking.cancel()
    await asyncio.wait([asking])


async def test_clients_of_a_server_that_was_lost_do_not_all_return_at_once(nats_server: NatsServer) -> None:
    waits = set()
    for _ in range(5):
        async with Broker(nats_server.url, name="test") as broker:
            waits.add(broker.nats.options["reconnect_time_wait"])
    assert len(waits) == 5
    assert all(0.5 <= wait <= 1.5 for wait in waits)
