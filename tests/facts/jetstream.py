"""JetStream as the server speaks it: requests and answers, with no client library's opinion in between."""

import asyncio
import json
from types import TracebackType
from typing import Any, NamedTuple, Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from galley.broker import stream_config
from galley.broker.topology import QueueLayout
from galley.lanes import Lane

ANSWER_SECONDS = 20.0
BRIEF = 2.5
"""Seconds of a lease that a test outlasts; a busy machine does within them what the test does meanwhile."""


class Answer(NamedTuple):
    """What the server said to a publish or a request."""

    sequence: int
    code: int = 0
    problem: str = ""

    @property
    def refusal(self) -> tuple[int, str]:
        return self.code, self.problem


class Pulled(NamedTuple):
    """Messages a pull brought, and the status that ended it ("" if it was simply filled)."""

    messages: list[Msg]
    status: str = ""
    description: str = ""


class Pull:
    """One open pull request and the inbox it is answered on."""

    def __init__(self, subscription: Subscription, batch: int) -> None:
        self._subscription = subscription
        self._batch = batch
        self.heartbeats = 0
        self.headers: dict[str, str] = {}

    @property
    def answered(self) -> bool:
        """Whether something came that was not read."""
        return self._subscription.pending_msgs > 0

    async def ended(self, within: float = ANSWER_SECONDS) -> Pulled:
        """Return what came until the pull was filled or the server ended it."""
        messages: list[Msg] = []
        async with asyncio.timeout(within):
            while len(messages) < self._batch:
                message = await self._subscription.next_msg(within)
                if message.reply.startswith("$JS.ACK."):
                    messages.append(message)
                    continue
                self.headers = message.headers or {}
                if self.headers["Status"] == "100":
                    self.heartbeats += 1
                    continue
                return Pulled(messages, self.headers["Status"], self.headers.get("Description", ""))
        return Pulled(messages)

    async def heartbeat(self, within: float = ANSWER_SECONDS) -> dict[str, str]:
        message = await self._subscription.next_msg(within)
        return message.headers or {}


class Heard:
    """Messages a plain core subscription hears."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def one(self, within: float = ANSWER_SECONDS) -> Msg:
        return await self._subscription.next_msg(within)

    @property
    def waiting(self) -> int:
        return self._subscription.pending_msgs


class JetStream:
    """A connection that speaks the raw API."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @classmethod
    async def connect(cls, url: str, **options: Any) -> Self:
        return cls(await nats.connect(url, connect_timeout=2, reconnect_time_wait=0.05, **options))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()

    async def api(self, verb: str, request: object = None) -> dict[str, Any]:
        """Return the answer to an API request, errors included."""
        body = b"" if request is None else json.dumps(request).encode()
        message = await self.client.request(f"$JS.API.{verb}", body, timeout=ANSWER_SECONDS)
        answer: dict[str, Any] = json.loads(message.data)
        return answer

    async def ok(self, verb: str, request: object = None) -> dict[str, Any]:
        """Return the answer to an API request that must succeed."""
        answer = await self.api(verb, request)
        assert "error" not in answer, answer["error"]
        return answer

    async def refused(self, verb: str, request: object = None) -> tuple[int, str]:
        """Return code and text of the refusal of an API request that must fail."""
        answer = await self.api(verb, request)
        assert "error" in answer, f"{verb} was accepted"
        return answer["error"]["err_code"], answer["error"]["description"]

    async def create_queue(self, layout: QueueLayout, *, lease_seconds: float = 30) -> None:
        """Create exactly the streams and consumers Galley uses, with a lease of one's own choice."""
        for definition in stream_config.stream_definitions(layout, replicas=1):
            await self.ok(f"STREAM.CREATE.{definition['name']}", definition)
        for stream, definition in stream_config.consumer_definitions(layout):
            await self.create_consumer(stream, {**definition, "ack_wait": int(lease_seconds * 1e9)})

    async def create_consumer(self, stream: str, definition: dict[str, Any]) -> None:
        await self.ok(*self.consumer_request(stream, definition))

    @staticmethod
    def consumer_request(
        stream: str, definition: dict[str, Any], action: str = "create"
    ) -> tuple[str, dict[str, Any]]:
        verb = f"CONSUMER.CREATE.{stream}.{definition['name']}.{definition['filter_subject']}"
        return verb, {"stream_name": stream, "config": definition, "action": action}

    async def publish(
        self, subject: str, body: bytes = b"{}", headers: dict[str, str] | None = None
    ) -> Answer:
        """Publish and return what the stream said; code 503 and no text if no stream takes the subject."""
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox, max_msgs=1)
        await self.client.publish(subject, body, inbox, headers)
        message = await subscription.next_msg(ANSWER_SECONDS)
        if not message.data:
            return Answer(0, int((message.headers or {})["Status"]))
        answer = json.loads(message.data)
        if "error" in answer:
            return Answer(0, answer["error"]["err_code"], answer["error"]["description"])
        return Answer(answer["seq"])

    async def stored(self, subject: str, body: bytes = b"{}", headers: dict[str, str] | None = None) -> int:
        """Publish what must be accepted, and return its sequence."""
        answer = await self.publish(subject, body, headers)
        assert answer.sequence, answer.refusal
        return answer.sequence

    async def pull(self, stream: str, lane: str = Lane.NORMAL, **request: Any) -> Pull:
        """Open a pull; without `no_wait` or `expires` it lives for five seconds."""
        if "no_wait" not in request:
            request.setdefault("expires", 5_000_000_000)
        request.setdefault("batch", 1)
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        verb = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{lane}"
        await self.client.publish(verb, json.dumps(request).encode(), inbox)
        await self.client.flush()
        return Pull(subscription, request["batch"])

    async def next(self, stream: str, lane: str = Lane.NORMAL) -> Msg:
        """Return the next message of a lane, which must come within the life of one pull."""
        pulled = await (await self.pull(stream, lane)).ended()
        assert pulled.messages, f"no message: {pulled.status} {pulled.description}"
        return pulled.messages[0]

    async def is_empty(self, stream: str, lane: str = Lane.NORMAL) -> bool:
        """Whether a lane has nothing to hand out at this moment."""
        pulled = await (await self.pull(stream, lane, no_wait=True)).ended()
        return not pulled.messages

    async def acknowledge(self, message: Msg, word: bytes = b"+ACK") -> bytes:
        """Answer a delivery, and return what the server says to that."""
        return (await self.client.request(message.reply, word, timeout=ANSWER_SECONDS)).data

    async def held(self, stream: str) -> int:
        """Return how many messages a stream holds."""
        info = await self.ok(f"STREAM.INFO.{stream}")
        count: int = info["state"]["messages"]
        return count

    async def consumer(self, stream: str, lane: str = Lane.NORMAL) -> dict[str, Any]:
        return await self.ok(f"CONSUMER.INFO.{stream}.{lane}")

    async def get(self, stream: str, subject: str) -> Msg:
        """Read the last message of a subject directly."""
        return await self.client.request(
            f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout=ANSWER_SECONDS
        )

    async def get_many(self, stream: str, request: object) -> tuple[list[Msg], dict[str, str]]:
        """Read several messages directly; returns them and the headers of the word that ends them."""
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        await self.client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), inbox)
        messages: list[Msg] = []
        while True:
            message = await subscription.next_msg(ANSWER_SECONDS)
            headers = message.headers or {}
            if "Status" in headers:
                return messages, headers
            messages.append(message)

    async def hear(self, subject: str) -> Heard:
        """Subscribe as a plain listener without any right on a stream."""
        subscription = await self.client.subscribe(subject)
        await self.client.flush()
        return Heard(subscription)


def delivered(message: Msg) -> int:
    """Return how often a message was handed out, this time included."""
    return int(message.reply.split(".")[4])
