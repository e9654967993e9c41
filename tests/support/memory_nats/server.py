"""The server: subjects, streams, the API, and the clock. It keeps a log of all that happened to it."""

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from galley.broker import stream_config, topology
from galley.broker.topology import QueueLayout
from tests.support.memory_nats.consumer import Consumer
from tests.support.memory_nats.stream import Headers, Message, Refusal, Stream, matches

if TYPE_CHECKING:
    from tests.support.memory_nats.client import MemoryClient

MESSAGE_NOT_FOUND = 10037
SEQUENCE_NOT_FOUND = 10043
STREAM_NOT_FOUND = 10059
NO_LEADER = 10008
CONSUMER_NOT_FOUND = 10014
NO_ROOM = 10047


class Seen(NamedTuple):
    """One thing that happened at the server."""

    what: str
    """`stored`, `refused`, `delivered`, `ack`, `nak`, `renewal`, `purged`, `fired`, `expired`."""
    subject: str
    sequence: int
    body: bytes = b""
    headers: Headers = MappingProxyType({})
    stream: str = ""
    at: float = 0.0
    times: int = 0
    """For a delivery: how often the message was handed out."""

    @property
    def kind(self) -> str:
        """The second word of the subject: `task`, `result`, `again`, `dead`, `due`, `schedule`."""
        return self.subject.split(".")[1] if self.subject.startswith("galley.") else ""


class MemoryServer:
    """A server that any number of `MemoryClient`s speak to."""

    def __init__(self, began: datetime | None = None) -> None:
        self.streams: dict[str, Stream] = {}
        self.consumers: dict[tuple[str, str], Consumer] = {}
        self.clients: list[MemoryClient] = []
        self.log: list[Seen] = []
        self.up = True
        self.starts = 1
        self.frozen = False
        self.uncounted = 0
        """Messages that consumers do not count yet: the real server does that a moment after it confirmed."""
        self.leaderless = False
        """Whether the API answers as servers do that have no leader: it is temporarily unavailable."""
        self.full: tuple[str, ...] = ()
        """Beginnings of the subjects there is no room for."""
        self.stale: dict[str, tuple[Message, int]] = {}
        """Older messages that a lagging replica answers reads of a subject with, and how often."""
        self._kept: list[Callable[[], None]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()
        self._began = (began or datetime.now(UTC)) - timedelta(seconds=self._loop.time())

    def now(self) -> datetime:
        """Return the time of day, which passes as the event loop's does."""
        return self._began + timedelta(seconds=self._loop.time())

    @property
    def life(self) -> str:
        """The id of the server, another one after each start."""
        return f"LIFE{self.starts}"

    def create(self, layout: QueueLayout) -> None:
        """Make the streams and consumers of a queue."""
        for definition in stream_config.stream_definitions(layout, replicas=1):
            self.streams.setdefault(definition["name"], Stream(definition))
        for stream, definition in stream_config.consumer_definitions(layout):
            self._make_consumer(stream, definition)

    def seen(self, *kinds: str) -> list[str]:
        """Return what happened of these kinds, such as `stored result` and `ack`, in order."""
        words = [f"{each.what} {each.kind}" if each.what == "stored" else each.what for each in self.log]
        return [word for word in words if not kinds or word in kinds]

    def kill(self, forgets: Callable[[int], bool] = lambda _sequence: False) -> None:
        """End without a word. `forgets` says which deliveries had not been written down."""
        self.up = False
        for consumer in self.consumers.values():
            for sequence in list(consumer.pending):
                if forgets(sequence):
                    consumer.forget(sequence)
            consumer.restarted()
        for client in list(self.clients):
            client.cut(lose_sent=True)

    def start(self) -> None:
        """Be there again; clients notice by themselves."""
        self.up = True
        self.starts += 1

    def freeze(self) -> None:
        """Neither read nor write until thawed."""
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        kept, self._kept = self._kept, []
        for each in kept:
            each()

    def receive(
        self, client: "MemoryClient", subject: str, reply: str, headers: Headers, body: bytes
    ) -> None:
        """Take in what a client published."""
        if self.frozen:
            self._kept.append(lambda: self.receive(client, subject, reply, headers, body))
            return
        if not self.up:
            return
        if subject.startswith("$JS.ACK."):
            self._word(subject, body)
            if reply:
                client.deliver_answer(reply, b"")
        elif subject.startswith("$JS.API."):
            self._api(client, subject.removeprefix("$JS.API."), reply, body)
        else:
            self._published(client, subject, reply, headers, body)

    def publish(self, subject: str, body: bytes, headers: Headers, reply: str = "") -> int:
        """Have all plain listeners hear a message; returns how many there were."""
        return sum(client.hear(subject, reply, body, headers) for client in list(self.clients))

    def _note(self, what: str, subject: str, sequence: int, **more: Any) -> None:
        self.log.append(Seen(what, subject, sequence, at=self._loop.time(), **more))
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def until_noted(self, read: int) -> None:
        """Wait until the log is longer than that."""
        while len(self.log) <= read:
            self._waiting.append(self._loop.create_future())
            await self._waiting[-1]

    # -- publishing

    def _published(
        self, client: "MemoryClient", subject: str, reply: str, headers: Headers, body: bytes
    ) -> None:
        heard = self.publish(subject, body, headers, reply)
        stream = next((each for each in self.streams.values() if each.takes(subject)), None)
        if stream is None:
            if reply and not heard:
                client.deliver_status(reply, "503", "")
            return
        try:
            message = self._store(stream, subject, headers, body)
        except Refusal as refusal:
            self._note("refused", subject, 0, body=body, headers=headers, stream=stream.name)
            error = {"code": 400, "err_code": refusal.code, "description": refusal.description}
            answer: dict[str, Any] = {"stream": stream.name, "seq": 0, "error": error}
        else:
            answer = {"stream": stream.name, "seq": message.sequence}
        if reply:
            client.deliver_answer(reply, json.dumps(answer).encode())

    def _store(self, stream: Stream, subject: str, headers: Headers, body: bytes) -> Message:
        if subject.startswith(self.full):
            raise Refusal(NO_ROOM, "insufficient storage resources available")
        if (known := stream.known(headers, self.now())) is not None:
            return known
        before = stream.last(subject)
        message = stream.store(subject, headers, body, self.now())
        self._note("stored", subject, message.sequence, body=body, headers=headers, stream=stream.name)
        seconds = headers.get(topology.TTL, "never")
        if seconds != "never" and topology.SCHEDULE not in headers:
            self._loop.call_later(float(seconds), self._expire, stream, message)
        if schedule := headers.get(topology.SCHEDULE):
            at = datetime.fromisoformat(schedule.removeprefix("@at "))
            seconds_left = (at - self.now()).total_seconds()
            self._loop.call_later(
                max(seconds_left, topology.SHORTEST_DELAY_SECONDS), self._fire, stream, message
            )
        if (republish := stream.definition.get("republish")) and matches(republish["src"], subject):
            self._republish(stream, republish, message, before)
        for (name, _), consumer in list(self.consumers.items()):
            if name == stream.name:
                consumer.serve()
        return message

    def _republish(
        self, stream: Stream, rule: dict[str, Any], message: Message, before: Message | None
    ) -> None:
        words = message.subject.split(".")
        # `galley.done.<ns>.>` and `galley.bell.<ns>.<q>.{{wildcard(1)}}.>` both keep the tail of the subject.
        target = ".".join(["galley", rule["dest"].split(".")[1], *words[2:]])
        about = {
            **message.headers,
            "Nats-Stream": stream.name,
            "Nats-Subject": message.subject,
            "Nats-Sequence": str(message.sequence),
            "Nats-Time-Stamp": message.at.isoformat(),
            "Nats-Last-Sequence": str(before.sequence if before else 0),
            "Nats-Msg-Size": str(len(message.body)),
        }
        self.publish(target, b"" if rule.get("headers_only") else message.body, about)

    def _expire(self, stream: Stream, message: Message) -> None:
        if message.sequence in stream.messages:
            stream.remove(message.sequence)
            self._note("expired", message.subject, message.sequence, stream=stream.name)

    def _fire(self, stream: Stream, message: Message) -> None:
        if stream.messages.get(message.sequence) is not message:
            return
        if not self.up or self.frozen:
            self._loop.call_later(topology.SHORTEST_DELAY_SECONDS, self._fire, stream, message)
            return
        stream.remove(message.sequence)
        kept = {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}
        kept |= {"Nats-Scheduler": message.subject, "Nats-Schedule-Next": "purge"}
        self._note("fired", message.subject, message.sequence, stream=stream.name)
        self._store(stream, message.headers[topology.SCHEDULE_TARGET], kept, message.body)

    # -- leases

    def _word(self, subject: str, body: bytes) -> None:
        _, _, stream_name, consumer_name, _, sequence_word, *_ = subject.split(".")
        stream, sequence = self.streams.get(stream_name), int(sequence_word)
        consumer = self.consumers.get((stream_name, consumer_name))
        if stream is None or consumer is None:
            return
        message = stream.messages.get(sequence)
        about = message.subject if message else ""
        if body.startswith(b"+WPI"):
            self._note("renewal", about, sequence, stream=stream_name)
            consumer.renew(sequence)
        elif body.startswith(b"-NAK"):
            self._note("nak", about, sequence, stream=stream_name)
            if delay := json.loads(body[4:] or b"{}").get("delay", 0) / 1e9:
                consumer.renew(sequence, delay)
            else:
                consumer.give_back(sequence)
        elif sequence in consumer.pending or sequence in consumer.given_back:
            self._note("ack", about, sequence, stream=stream_name)
            if stream.definition["retention"] == "workqueue":
                stream.remove(sequence)
            consumer.acknowledge(sequence)

    def _delivered(self, consumer: Consumer, message: Message, count: int) -> None:
        self._note("delivered", message.subject, message.sequence, stream=consumer.stream.name, times=count)

    # -- the API

    def _api(self, client: "MemoryClient", verb: str, reply: str, body: bytes) -> None:
        action, _, name = verb.partition(".")
        if action == "INFO":
            client.deliver_answer(reply, b'{"type":"io.nats.jetstream.api.v1.account_info_response"}')
        elif action == "DIRECT":
            self._direct_get(client, name.removeprefix("GET."), reply, body)
        elif verb.startswith("CONSUMER.MSG.NEXT."):
            _, _, _, stream, lane = verb.split(".")
            consumer = self.consumers.get((stream, lane))
            if consumer is None:
                client.deliver_status(reply, "503", "")
            else:
                consumer.pull(client, reply, json.loads(body))
        else:
            request = json.loads(body) if body else {}
            try:
                answer = self._administer(verb, request)
            except Refusal as refusal:
                answer = {
                    "error": {"code": 404, "err_code": refusal.code, "description": refusal.description}
                }
            client.deliver_answer(reply, json.dumps(answer).encode())

    def _administer(self, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        if self.leaderless:
            raise Refusal(NO_LEADER, "JetStream system temporarily unavailable")
        kind, action, *names = verb.split(".")
        actions: dict[str, Callable[..., dict[str, Any]]] = {
            "STREAM.LIST": self._list,
            "STREAM.CREATE": self._create_stream,
            "STREAM.UPDATE": self._update_stream,
            "STREAM.INFO": lambda name, asked: self._stream_info(self._stream(name), asked),
            "STREAM.PURGE": lambda name, asked: self._purge(self._stream(name), asked),
            "STREAM.DELETE": self._delete_stream,
            "STREAM.MSG": lambda what, name, asked: (
                self._message(self._stream(name), asked)
                if what == "GET"
                else self._delete_message(self._stream(name), asked["seq"])
            ),
            "CONSUMER.CREATE": self._create_consumer,
            "CONSUMER.INFO": lambda of, name, _asked: self._consumer_info(self._consumer(of, name)),
            "CONSUMER.PAUSE": self._pause_consumer,
            "CONSUMER.DELETE": self._delete_consumer,
            "CONSUMER.NAMES": lambda of, _asked: {"consumers": [n for s, n in self.consumers if s == of]},
        }
        return actions[f"{kind}.{action}"](*names, request)

    def _list(self, _request: dict[str, Any]) -> dict[str, Any]:
        found = [self._stream_info(stream, {}) for stream in self.streams.values()]
        return {"total": len(found), "offset": 0, "limit": 256, "streams": found}

    def _create_stream(self, name: str, definition: dict[str, Any]) -> dict[str, Any]:
        return self._stream_info(self.streams.setdefault(name, Stream(definition)), {})

    def _update_stream(self, name: str, definition: dict[str, Any]) -> dict[str, Any]:
        self._stream(name).definition = definition
        return self._stream_info(self._stream(name), {})

    def _delete_stream(self, name: str, _request: dict[str, Any]) -> dict[str, Any]:
        self._stream(name)
        for key in [key for key in self.consumers if key[0] == name]:
            self.consumers.pop(key).refuse_pulls("409", "Consumer Deleted")
        del self.streams[name]
        return {"success": True}

    def _message(self, stream: Stream, asked: dict[str, Any]) -> dict[str, Any]:
        if "last_by_subj" in asked:
            found = stream.last(asked["last_by_subj"])
        else:
            found = stream.next_of(asked["next_by_subj"], asked["seq"])
        if found is None:
            raise Refusal(MESSAGE_NOT_FOUND, "no message found")
        block = "NATS/1.0\r\n" + "".join(f"{name}: {text}\r\n" for name, text in found.headers.items())
        hdrs, data = (base64.b64encode(each).decode() for each in (f"{block}\r\n".encode(), found.body))
        return {"message": {"subject": found.subject, "seq": found.sequence, "hdrs": hdrs, "data": data,
                            "time": found.at.isoformat()}}  # fmt: skip

    def _delete_message(self, stream: Stream, sequence: int) -> dict[str, Any]:
        if sequence not in stream.messages:
            raise Refusal(SEQUENCE_NOT_FOUND, f"sequence {sequence} not found")
        message = stream.messages[sequence]
        stream.remove(sequence)
        self._note("deleted", message.subject, sequence, stream=stream.name)
        return {"success": True}

    def _create_consumer(self, stream: str, *rest: Any) -> dict[str, Any]:
        return self._consumer_info(self._make_consumer(stream, rest[-1]["config"]))

    def _delete_consumer(self, stream: str, name: str, _request: dict[str, Any]) -> dict[str, Any]:
        self._consumer(stream, name)
        self.consumers.pop((stream, name)).refuse_pulls("409", "Consumer Deleted")
        return {"success": True}

    def _pause_consumer(self, stream: str, name: str, request: dict[str, Any]) -> dict[str, Any]:
        consumer = self._consumer(stream, name)
        consumer.paused = "pause_until" in request
        consumer.serve()
        return {"paused": consumer.paused}

    def _stream(self, name: str) -> Stream:
        if name not in self.streams:
            raise Refusal(STREAM_NOT_FOUND, "stream not found")
        return self.streams[name]

    def _consumer(self, stream: str, name: str) -> Consumer:
        if (stream, name) not in self.consumers:
            raise Refusal(CONSUMER_NOT_FOUND, "consumer not found")
        return self.consumers[stream, name]

    def _make_consumer(self, stream: str, definition: dict[str, Any]) -> Consumer:
        name = definition.get("name") or definition["durable_name"]
        present = self.consumers.get((stream, name))
        if present is not None:
            present.definition = definition
            present.serve()
            return present
        consumer = Consumer(self._stream(stream), definition, self._delivered)
        self.consumers[stream, name] = consumer
        return consumer

    def _stream_info(self, stream: Stream, request: dict[str, Any]) -> dict[str, Any]:
        state: dict[str, Any] = {
            "messages": len(stream.messages),
            "bytes": stream.bytes,
            "first_seq": min(stream.messages, default=stream.last_sequence + 1),
            "last_seq": stream.last_sequence,
        }
        if pattern := request.get("subjects_filter"):
            state["subjects"] = stream.subjects(pattern)
        now = self.now().isoformat()
        return {"config": stream.definition, "state": state, "created": self._began.isoformat(), "ts": now}

    def _consumer_info(self, consumer: Consumer) -> dict[str, Any]:
        return {
            "name": consumer.name,
            "config": consumer.definition,
            "num_pending": max(0, consumer.waiting - self.uncounted),
            "num_ack_pending": consumer.in_flight,
            "num_waiting": len(consumer.pulls),
            "paused": consumer.paused,
            "delivered": {"stream_seq": consumer.next_sequence - 1},
            "ack_floor": {"stream_seq": consumer.acknowledged_to},
        }

    def _purge(self, stream: Stream, asked: dict[str, Any]) -> dict[str, Any]:
        pattern, end = asked.get("filter", ">"), asked.get("seq") or float("inf")
        there = [each for subject in stream.subjects(pattern) for each in stream.of(subject)]
        gone = sorted((each for each in there if each.sequence < end), key=lambda each: each.sequence)
        gone = gone[: len(gone) - asked.get("keep", 0)]
        for message in gone:
            stream.remove(message.sequence)
            self._note("purged", message.subject, message.sequence, stream=stream.name)
        if "*" not in pattern:  # by a pattern the server forgets later that a worker had it
            for message in gone:
                for (name, _), consumer in self.consumers.items():
                    if name == stream.name:
                        consumer.purged(message.sequence)
        return {"success": True, "purged": len(gone)}

    def _direct_get(self, client: "MemoryClient", name: str, reply: str, body: bytes) -> None:
        stream_name, _, subject = name.partition(".")
        stream = self.streams.get(stream_name)
        if stream is None:
            client.deliver_status(reply, "503", "")
        elif subject:
            self._answer_message(client, reply, self._read(stream, subject), stream)
        else:
            self._direct_many(client, stream, reply, json.loads(body))

    def _read(self, stream: Stream, subject: str) -> Message | None:
        old, times = self.stale.get(subject, (None, 0))
        if old is None or times == 0:
            return stream.last(subject)
        self.stale[subject] = old, times - 1
        return old

    def _direct_many(
        self, client: "MemoryClient", stream: Stream, reply: str, request: dict[str, Any]
    ) -> None:
        pattern, sequence = request["next_by_subj"], request.get("seq", 1)
        if since := request.get("start_time"):
            later = (m.sequence for m in stream.messages.values() if m.at >= datetime.fromisoformat(since))
            sequence = min(later, default=stream.last_sequence + 1)
        if "batch" not in request:
            self._answer_message(client, reply, stream.next_of(pattern, sequence), stream)
            return
        found = 0
        while found < request["batch"] and (message := stream.next_of(pattern, sequence)) is not None:
            found, sequence = found + 1, message.sequence + 1
            self._answer_message(client, reply, message, stream)
        if found:
            left = sum(
                each.sequence >= sequence and matches(pattern, each.subject)
                for each in stream.messages.values()
            )
            client.deliver_status(reply, "204", "EOB", {"Nats-Num-Pending": str(left)})
        else:
            client.deliver_status(reply, "404", "Message Not Found")

    def _answer_message(
        self, client: "MemoryClient", reply: str, message: Message | None, stream: Stream
    ) -> None:
        if message is None:
            client.deliver_status(reply, "404", "Message Not Found")
            return
        headers = {
            **message.headers,
            "Nats-Stream": stream.name,
            "Nats-Subject": message.subject,
            "Nats-Sequence": str(message.sequence),
            "Nats-Time-Stamp": message.at.isoformat().replace("+00:00", "Z"),
        }
        client.deliver_answer(reply, message.body, headers)

    def leave(self, client: "MemoryClient") -> None:
        with suppress(ValueError):
            self.clients.remove(client)
