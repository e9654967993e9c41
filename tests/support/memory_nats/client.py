"""A connection to the server in memory, in the place of the library's: what is above it is the real thing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

from nats.aio.client import ServerVersion
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import MaxPayloadError, NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from galley.broker.connection import REQUEST_SECONDS, Broker
from galley.broker.lean_client import LeanClient, header_block
from galley.broker.lean_parser import React
from galley.broker.pipeline import PublishPipeline
from galley.broker.topology import MIN_SERVER
from tests.support.memory_nats.server import MemoryServer
from tests.support.memory_nats.stream import Headers, matches

MAX_PAYLOAD = 1024 * 1024

Sent = Callable[[str], bool]
"""Takes the subject of a message; returns whether it gets lost."""


class _Came(NamedTuple):
    """A message as it arrives."""

    subject: str
    reply: str
    body: bytes
    block: bytes
    headers: Headers | None


class MemorySubscription:
    """Interest in a subject."""

    def __init__(
        self,
        client: "MemoryClient",
        subject: str,
        callback: Callable[[Msg], Awaitable[None]] | None,
        react: React | None,
    ) -> None:
        self.subject = subject
        self._client = client
        self._callback, self._react = callback, react
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._left = 0
        self.delivered = 0

    @property
    def pending_msgs(self) -> int:
        return self._queue.qsize()

    def take(self, came: "_Came") -> None:
        self.delivered += 1
        if self._left:
            self._left -= 1
            if not self._left:
                self._client.forget(self)
        if self._react is not None:
            self._react(came.subject, came.reply, came.body, came.block)
            return
        headers = None if came.headers is None else dict(came.headers)
        message = Msg(self._client, came.subject, came.reply, came.body, headers)
        if self._callback is None:
            self._queue.put_nowait(message)
        else:
            self._client.call(self._callback(message))

    async def next_msg(self, timeout: float | None = 1.0) -> Msg:  # noqa: ASYNC109 - as the library's
        try:
            async with asyncio.timeout(timeout):
                return await self._queue.get()
        except TimeoutError:
            raise NatsTimeoutError from None

    async def unsubscribe(self, limit: int = 0) -> None:
        if limit:
            self._left = limit
        else:
            self._client.forget(self)

    async def drain(self) -> None:
        await self._client.flush()
        self._client.forget(self)


class _Lost(NamedTuple):
    """Which messages get lost on their way."""

    to_server: Sent
    to_client: Sent


class MemoryClient(LeanClient):
    """A client whose line may be slow, cut, and lose what a test chooses."""

    def __init__(self, server: MemoryServer, delay: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__()
        self.server = server
        self.epoch = 1
        """Number of the connection: what was under way on an earlier one never arrives."""
        self.lost = _Lost(lambda _subject: False, lambda _subject: False)
        self.may_not: Sent = lambda _subject: False
        """Subjects that the credentials of this connection do not permit."""
        self.denied: Callable[[str], None] = lambda _subject: None
        self.reconnect_seconds = 1.0
        self._up = False
        self._shut = False
        self._delay = delay
        self._interest: list[MemorySubscription] = []
        self._there_at = self._back_at = 0.0
        self._inboxes = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._pings: set[asyncio.Future[bool]] = set()
        self._hooks: dict[str, Callable[[], Awaitable[None]]] = {}
        self._arrive: list[asyncio.TimerHandle] = []

    # -- what the library offers

    @property
    def connected_server_version(self) -> ServerVersion:
        return ServerVersion(".".join(map(str, MIN_SERVER)))

    async def connect(self, *_servers: Any, **options: Any) -> None:
        self._hooks = {name: options[name] for name in ("disconnected_cb", "reconnected_cb")}
        self._connect()

    def _connect(self) -> None:
        self.server.clients.append(self)
        self._server_info = {"server_id": self.server.life, "jetstream": True}
        self._up = True

    async def close(self) -> None:
        self._shut = True
        self._up = False
        self.server.leave(self)
        for call in self._calls:
            call.cancel()

    async def give_up(self) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        return self._up

    @property
    def is_closed(self) -> bool:
        return self._shut

    @property
    def crowded(self) -> bool:
        return False

    def new_inbox(self) -> str:
        self._inboxes += 1
        return f"_INBOX.{id(self)}.{self._inboxes}"

    async def subscribe(self, subject: str, **options: Any) -> Subscription:  # type: ignore[override]
        return cast("Subscription", self._subscribe(subject, options.get("cb"), None))

    async def subscribe_directly(self, subject: str, react: React) -> Subscription:
        return cast("Subscription", self._subscribe(subject, None, react))

    def _subscribe(
        self, subject: str, callback: Callable[[Msg], Awaitable[None]] | None, react: React | None
    ) -> MemorySubscription:
        subscription = MemorySubscription(self, subject, callback, react)
        self._interest.append(subscription)
        return subscription

    def publish_directly(self, subject: str, body: bytes, reply: str = "", headers: bytes = b"") -> None:
        if len(body) > self._max_payload:
            raise MaxPayloadError
        self._send(subject, reply, _parsed(headers), body)

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        self._send(subject, reply, headers or {}, payload)

    async def request(  # type: ignore[override]
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,  # noqa: ASYNC109 - as the library's
        **_options: Any,
    ) -> Msg:
        inbox = self.new_inbox()
        answer = self._subscribe(inbox, None, None)
        try:
            self._send(subject, inbox, {}, payload)
            message = await answer.next_msg(timeout)
        finally:
            self.forget(answer)
        if (message.headers or {}).get("Status") == "503":
            raise NoRespondersError
        return message

    async def flush(self, timeout: int = 10) -> None:  # noqa: ASYNC109
        if not self._up:
            return
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pings.add(pong)
        self._to_server("", lambda: self._to_client("", lambda: _answer(pong)))
        try:
            async with asyncio.timeout(timeout):
                await pong
        except TimeoutError:
            raise NatsTimeoutError from None
        finally:
            self._pings.discard(pong)

    # -- what the server says

    def hear(self, subject: str, reply: str, body: bytes, headers: Headers) -> int:
        """Take in a plain message; returns for how many of us it was."""
        ours = [each for each in self._interest if matches(each.subject, subject)]
        for subscription in ours:
            self._deliver(subscription, subject, reply, body, headers)
        return len(ours)

    def deliver_answer(self, inbox: str, body: bytes, headers: Headers | None = None) -> None:
        for subscription in [each for each in self._interest if matches(each.subject, inbox)]:
            self._deliver(subscription, inbox, "", body, headers)

    def deliver_to_inbox(self, inbox: str, subject: str, reply: str, body: bytes, headers: Headers) -> None:
        for subscription in [each for each in self._interest if matches(each.subject, inbox)]:
            self._deliver(subscription, subject, reply, body, headers)

    def deliver_status(self, inbox: str, status: str, description: str, more: Headers | None = None) -> None:
        block = f"NATS/1.0 {status} {description}".rstrip().encode() + b"\r\n\r\n"
        headers = (
            {"Status": status} | ({"Description": description} if description else {}) | dict(more or {})
        )
        for subscription in [each for each in self._interest if matches(each.subject, inbox)]:
            self._to_client(inbox, self._taken(subscription, _Came(inbox, "", b"", block, headers)))

    def _deliver(
        self,
        subscription: MemorySubscription,
        subject: str,
        reply: str,
        body: bytes,
        headers: Headers | None,
    ) -> None:
        block = header_block(headers) if headers else b""
        came = _Came(subject, reply, body, block, headers or None)
        self._to_client(subject, self._taken(subscription, came))

    def _taken(self, subscription: MemorySubscription, came: "_Came") -> Callable[[], None]:
        def take() -> None:
            if subscription in self._interest:
                subscription.take(came)

        return take

    def forget(self, subscription: MemorySubscription) -> None:
        if subscription in self._interest:
            self._interest.remove(subscription)

    def end_subscription(self, subscription: Subscription) -> None:
        self.forget(cast("MemorySubscription", subscription))

    def call(self, callback: Awaitable[None]) -> None:
        async def run() -> None:
            await callback

        task = asyncio.get_running_loop().create_task(run())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    # -- the line

    def lose(
        self, to_server: Sent = lambda _subject: False, to_client: Sent = lambda _subject: False
    ) -> None:
        """Lose messages by their subjects from now on; nothing by default."""
        self.lost = _Lost(to_server, to_client)

    def cut(self, *, lose_sent: bool = False) -> None:
        """Break the connection; it comes back after `reconnect_seconds`, if the server is there then."""
        if not self._up:
            return
        self._up = False
        self.epoch += 1
        self.server.leave(self)
        if lose_sent:
            for arrival in self._arrive:
                arrival.cancel()
        self._arrive.clear()
        for pong in list(self._pings):
            _answer(pong)  # the library says at once that all is well
        self.call(self._hooks["disconnected_cb"]())
        asyncio.get_running_loop().call_later(self.reconnect_seconds, self._come_back)

    def _come_back(self) -> None:
        if self._shut:
            return
        if not self.server.up:
            asyncio.get_running_loop().call_later(self.reconnect_seconds, self._come_back)
            return
        self._connect()
        self.call(self._hooks["reconnected_cb"]())

    def _send(self, subject: str, reply: str, headers: Headers, body: bytes) -> None:
        if self.may_not(subject):
            self._to_client("", lambda: self.denied(subject.lower()))
            return
        self._to_server(subject, lambda: self.server.receive(self, subject, reply, headers, body))

    def _to_server(self, subject: str, arrive: Callable[[], Any]) -> None:
        if not self._up or self.lost.to_server(subject):
            return
        loop = asyncio.get_running_loop()
        self._there_at = max(self._there_at + 1e-9, loop.time() + self._delay())
        self._arrive = [each for each in self._arrive if each.when() > loop.time()]
        self._arrive.append(loop.call_at(self._there_at, arrive))

    def _to_client(self, subject: str, arrive: Callable[[], Any]) -> None:
        if not self._up or self.lost.to_client(subject):
            return
        loop, epoch = asyncio.get_running_loop(), self.epoch

        def arrived() -> None:
            if epoch == self.epoch and self._up:
                arrive()

        self._back_at = max(self._back_at + 1e-9, loop.time() + self._delay())
        loop.call_at(self._back_at, arrived)


class MemoryBroker(Broker):
    """The real connection, over a line to the server in memory."""

    def __init__(
        self, server: MemoryServer, name: str = "test", delay: Callable[[], float] = lambda: 0.0
    ) -> None:
        super().__init__("nats://memory:4222", name=name)
        self.line = MemoryClient(server, delay)
        self.nats = self.line
        self.pipeline = PublishPipeline(self.line, REQUEST_SECONDS)
        self.nats.denied = self._on_denied
        self.nats.unheard = self._tell_unheard


def _answer(pong: asyncio.Future[bool]) -> None:
    if not pong.done():
        pong.set_result(True)


def _parsed(block: bytes) -> dict[str, str]:
    lines = block.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)
