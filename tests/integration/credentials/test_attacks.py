"""What a client can do with messages no client of ours sends, written as the attacker would.

Each attack uses real credentials of one role of one queue. Its victims are the connections and the streams of
others: the operator, the gateway, the queue's own workers, and other queues of the namespace.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from msgspec import structs
from nats.aio.msg import Msg

from galley import AsyncClient, Phase, When, call, dead_letter, record
from galley import envelope as wire
from galley.address import Kind, TaskAddress
from galley.audit import Action, Entry, Writer
from galley.broker import audit, namespace_streams, notes, topic_keeper, topology
from galley.broker.cancel import Cancelled
from galley.broker.connection import Broker
from galley.broker.control import Answer, Request, Verb, answering
from galley.broker.counts import CountReader
from galley.broker.ensure import ensure, stream_info
from galley.broker.errors import SubjectInvalid
from galley.broker.layout import layout_of
from galley.broker.lean_client import header_block
from galley.broker.listing import first_of
from galley.broker.object_collector import ObjectCollector
from galley.broker.object_sweep import Sweep
from galley.broker.objects import Place, hold_id
from galley.broker.permissions import Role
from galley.broker.pipeline import WRONG_SUBJECT
from galley.broker.signals import SignalReader
from galley.broker.topic_keeper import Declared, TopicKeeper, code_body
from galley.broker.topics import TopicPublisher, events_of, topics_of
from galley.dead_letter import DeadLetter
from galley.envelope import Envelope, encode_input
from galley.event import event_of
from galley.lanes import Lane
from galley.objects.content import Bytes
from galley.objects.store import INPUT, Objects
from galley.record import Failure, Record, State
from galley.topic import LIFE_TYPE, Subscribe, Topic
from galley.workflow.state import Root, encode
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats
from tests.support.workers import a_task_queue, workers

_numbers = count()
FAR: Final = datetime(2098, 1, 1, tzinfo=UTC)

BLOCKS: Final = (
    b"N", b"x" * 8, b"NATS/1.0", b"NATS/1.0 ", b"NATS/1.0\r\n", b"NATS/1.0 \xff\xfe\r\n\r\n",
    b"NATS/1.0 404 \xff\r\n\r\n", b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 9\xc2\xb2\r\n\r\n",
    b"NATS/1.0\r\n\xff: \xff\r\n\r\n", b"NATS/1.0\r\n:\r\n: :\r\n a: b\r\n\r\n",
    b"NATS/1.0\r\nA: " + b"b" * 500_000 + b"\r\n\r\n",
    b"NATS/1.0\r\n" + b"a:b\r\n" * 50_000 + b"\r\n", b"\r\n" * 9, b"\x00" * 30,
)  # fmt: skip
"""Where a client has its headers; the server passes on whatever is there."""

TOKENS: Final = (
    b"\x0b",
    b"a\x0cb",
    b"\x1c",
    b"\x85",
    b"\xff",
    b"\xc2\xa0",
    b"\x00",
    b"*",
    b">",
    b"%s",
    b"a" * 1000,
)
"""Words of subjects the server takes."""


@pytest.fixture
async def namespace(guarded_nats: GuardedNats) -> str:
    """A namespace with the queues `mine` and `theirs`."""
    name = f"attacked{next(_numbers)}"
    async with guarded_nats.operator() as operator:
        for queue in ("mine", "theirs"):
            await ensure(operator, a_queue(queue, namespace=name))
    return name


@asynccontextmanager
async def connected(
    nats: GuardedNats, namespace: str, *roles: Role, queue: str = "mine"
) -> AsyncIterator[list[Broker]]:
    """Open a connection with the credentials of each role of a queue."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Broker(nats.url, name=role, credentials=nats.write_creds(role, namespace, queue))
            )
            for role in roles
        ]


async def put(broker: Broker, subject: str, body: bytes, **headers: str) -> None:
    """Store a message; the attack fails if the server refuses it."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    ack = await (await broker.pipeline.send(subject, body, header_block(named)))
    assert ack.stored, ack


async def test_no_message_breaks_the_connection_of_one_who_hears_it(
    guarded_nats: GuardedNats, namespace: str
) -> None:
    """A heartbeat could cut off the operator of all namespaces, and a ping all workers of its queue."""
    heard: list[Msg] = []
    pinged: list[Verb] = []

    async def take(message: Msg) -> None:
        heard.append(message)

    async def react(verb: Verb, _request: Request) -> Answer:
        pinged.append(verb)
        return Answer("w1")

    async with (
        guarded_nats.operator() as operator,
        connected(guarded_nats, namespace, Role.WORKER, Role.PRODUCER) as (worker, producer),
        answering(worker, namespace, "mine", react),
    ):
        await TopicKeeper(operator, namespace, "tests").keep([Declared(Topic("orders"))])
        await operator.subscribe(topology.heartbeat_subject(namespace, "mine", "*"), take)
        await operator.subscribe(topology.live_subject(namespace, "*"), take)
        await producer.subscribe(topology.answer_subject(namespace, "mine", "*"), take)
        for each in (operator, worker, producer):
            await each.reached(5)
        ping = topology.control_subject(namespace, "mine", "ping")
        for block in BLOCKS:
            answer = topology.answer_subject(namespace, "mine", "a")
            producer.nats.publish_directly(ping, b"{}", answer, block)
            worker.nats.publish_directly(answer, b"{}", "", block)
            worker.nats.publish_directly(topology.heartbeat_subject(namespace, "mine", "w"), b"{}", "", block)
            producer.nats.publish_directly(topology.event_subject(namespace, "orders"), b"{}", "", block)
        for token in TOKENS:
            for broker, verb in ((worker, "hb"), (producer, "event"), (worker, "answer"), (producer, "task")):
                tail = {"hb": b"mine.", "event": b"", "answer": b"mine.", "task": b"mine.high.sdk."}[verb]
                subject = b"galley." + verb.encode() + b"." + namespace.encode() + b"." + tail + token
                broker.nats._pending += b"PUB ", subject, b" 2\r\n", b"{}\r\n"
                broker.nats._pending_data_size += len(subject) + 12
            for broker in (worker, producer):
                await broker.reached(5)
        for broker in (worker, producer):
            broker.publish(topology.heartbeat_subject(namespace, "mine", "last"), b"{}")
        await eventually(lambda: any(each.subject.endswith(".last") for each in heard), within=20)
        for each in (operator, worker, producer):
            await each.reached(5)
            assert each.nats.stats["reconnects"] == 0
        assert len(heard) > len(BLOCKS) + len(TOKENS)
        assert pinged


HIDING: Final = (
    {"Status": "404"}, {"Status": "503", "Description": "x"}, {"status": "404"}, {"Status": "abc"},
    {"Nats-Subject": "x"}, {"Nats-Sequence": "1"}, {"Nats-Time-Stamp": "2001-01-01T00:00:00Z"},
    {"Nats-Num-Pending": "0"}, {"Nats-Stream": ""}, {"Nats-Last-Sequence": "0"},
)  # fmt: skip
"""Headers that are the server's own when it answers a read."""


async def test_no_header_hides_or_moves_what_others_wrote(guarded_nats: GuardedNats, namespace: str) -> None:
    """One line of a manager hid all later ones of a namespace, and one of a worker ended subscriptions."""
    async with (
        guarded_nats.operator() as operator,
        connected(guarded_nats, namespace, Role.MANAGER, Role.WORKER, Role.PRODUCER) as clients,
    ):
        manager, worker, producer = clients
        keeper = TopicKeeper(operator, namespace, "tests")
        await keeper.keep([Declared(Topic("orders"))])
        code = code_body({"h": (Subscribe("orders"),)}, {})
        own, other = (topology.code_subscriptions_subject(namespace, each) for each in ("mine", "theirs"))
        line = b'{"action":"cancel","user":"alice"}'
        event = event_of(1, datetime.now(UTC), source="shop", event_id="e")
        for headers in HIDING:
            forged = {name.replace("-", "_"): text for name, text in headers.items()}
            await put(manager, topology.audit_subject(namespace, "mine", Writer.CLIENT), line, **forged)
            await put(worker, own, code, **forged)
            await put(producer, topology.event_subject(namespace, "orders"), b"{}", **forged)
            at = {name: text for name, text in forged.items() if name != "Nats_Subject"}
            await put(worker, own, code, **{**at, "Nats_Subject": other})
        await put(operator, other, code, Nats_TTL="never")
        await audit.store(operator, namespace, "theirs", Writer.OPERATOR, Entry(Action.EDIT, "eve"))
        await TopicPublisher(producer, namespace).publish("orders", event)

        lines = [each async for each in audit.lines_of(operator, namespace)]
        assert [(each.queue, each.writer) for each in lines] == [
            *[("mine", Writer.CLIENT)] * len(HIDING), ("theirs", Writer.OPERATOR),
        ]  # fmt: skip
        assert all(each.at.year > 2020 for each in lines)
        assert [each.event.id async for each in events_of(operator, namespace, "orders")] == ["e"]
        await keeper.keep([Declared(Topic("orders"))])
        (topic,) = await topics_of(operator, namespace)
        assert topic.queues == ("mine", "theirs")


async def test_no_event_is_suppressed_by_one_that_came_before(
    guarded_nats: GuardedNats, namespace: str
) -> None:
    """The server drops a message whose id it knows, and says it has stored it."""
    async with (
        guarded_nats.operator() as operator,
        connected(guarded_nats, namespace, Role.PRODUCER) as (attacker,),
        Broker(
            guarded_nats.url, name="victim",
            credentials=guarded_nats.write_creds(Role.PRODUCER, namespace, "theirs"),
        ) as victim,
    ):  # fmt: skip
        await TopicKeeper(operator, namespace, "tests").keep([Declared(Topic("orders"))])
        event = event_of(1, datetime.now(UTC), source="shop", event_id="order-7")
        digest = sha256(b"shop\0order-7").hexdigest()
        subject = topology.event_subject(namespace, "orders")
        for guess in ("order-7", "shop.order-7", "orders.order-7", digest, f"orders.{digest[:32]}"):
            await put(attacker, subject, b"{}", Nats_Msg_Id=guess)
        published = await TopicPublisher(victim, namespace).publish("orders", event)
        found = [each async for each in events_of(operator, namespace, "orders")]
        assert [(each.event.id, each.sequence) for each in found] == [("order-7", published.sequence)]
        # What SECURITY.md does not promise: the queues of a namespace can name each other as the source.
        source = f"galley/{namespace}/theirs"
        forged = event_of({}, datetime.now(UTC), source=source, event_type=f"{LIFE_TYPE}failed")
        assert await TopicPublisher(attacker, namespace).publish("orders", forged)


async def test_no_event_stays_longer_than_the_retention(
    guarded_nats: GuardedNats, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that never go would fill the room of all topics of the namespace for good."""
    # The minutes for which events stay beyond it, until it is counted who missed them.
    for module in (namespace_streams, topic_keeper):
        monkeypatch.setattr(module, "LATE_SECONDS", 1)
    async with (
        guarded_nats.operator() as operator,
        connected(guarded_nats, namespace, Role.PRODUCER) as (attacker,),
    ):
        keeper = TopicKeeper(operator, namespace, "tests")
        declared = [
            Declared(Topic("orders", retention_seconds=2)),
            Declared(Topic("bills", retention_seconds=2)),
        ]
        await keeper.keep(declared)
        for topic in ("orders", "no-topic", "*", ">"):
            await put(attacker, topology.event_subject(namespace, topic), b"x" * 1000, Nats_TTL="never")

        async def gone() -> bool:
            await keeper.keep(declared)
            return (
                await first_of(operator, topology.topics_stream(namespace), f"galley.event.{namespace}.>")
                is None
            )

        await eventually(gone, within=30)
        assert [topic.name for topic in await topics_of(operator, namespace)] == ["bills", "orders"]
        event = event_of(1, datetime.now(UTC), source="shop")
        await TopicPublisher(attacker, namespace).publish("orders", event)
        await keeper.keep(declared)
        assert [each.event.id async for each in events_of(operator, namespace, "orders")] == [event.id]


async def test_an_object_named_as_a_pattern_takes_no_other_along(
    guarded_nats: GuardedNats, namespace: str
) -> None:
    """An object that no task refers to is deleted by its name, and `*` was the name of all."""
    place, now = Place(namespace, "mine"), time.time()
    async with connected(guarded_nats, namespace, Role.WORKER, Role.PRODUCER) as (worker, attacker):
        for name in ("*", ">"):
            await put(attacker, topology.part_subject(*place, name, 0), b"x")
        await put(attacker, topology.whole_subject(*place, "*"), b'{"size":1,"store":"s3://theirs/b"}')
        used = TaskAddress(*place, Lane.NORMAL, Kind.DIRECT, hold_id(now + 10 * 86400))
        reference = await Objects(attacker).put(used, Bytes(b"kept"), INPUT)
        removed: list[str] = []

        async def remove(store: str, name: str) -> bool:
            removed.append(f"{store}/{name}")
            return True

        for hours in (2, 4, 6):
            clock = partial(datetime.fromtimestamp, now + hours * 3600, UTC)
            await Sweep(worker, place, remove, clock).run()
        read = [piece async for piece in Objects(attacker).get(place, reference)]
        assert (b"".join(read), removed) == (b"kept", [])


async def test_a_task_named_as_a_pattern_is_a_dead_letter_alone(
    guarded_nats: GuardedNats, namespace: str, tmp_path: Path
) -> None:
    """What is written about a task goes to subjects that end with its id."""
    queue = a_task_queue(namespace)
    async with guarded_nats.operator() as operator:
        await ensure(operator, layout_of(queue, "tests"))
    creds = guarded_nats.write_creds(Role.WORKER, namespace, "drills")
    async with connected(guarded_nats, namespace, Role.PRODUCER, Role.MANAGER, queue="drills") as (
        attacker,
        manager,
    ):
        client = AsyncClient.over(attacker, namespace)
        later = await client.submit(call("drills", "echo", value=1), When(not_before=FAR), task_id="later")
        body = wire.encode(Envelope("echo", datetime.now(UTC), input=encode_input("echo", {"value": 2})))
        for token in ("*", ">", "\x01", "a*", "x" * 300):
            for verb, kind in (("task", "sdk"), ("task", "turn"), ("plan", "sdk")):
                await put(attacker, f"galley.{verb}.{namespace}.drills.normal.{kind}.{token}", body)
        await put(attacker, f"galley.wait.{namespace}.drills.nowhere.sdk.lost", body)
        with workers(guarded_nats.url, queue, tmp_path, GALLEY_CREDENTIALS=str(creds)):
            good = await client.submit(call("drills", "echo", value=3), task_id="good")
            assert await good.result(within=30) == 3
            letters = AsyncClient.over(manager, namespace).dead_letters

            async def buried() -> bool:
                ids = {each.id for each in await letters.find("drills")}
                return {r"\x2a", r"\x3e", r"\x01"} <= ids

            await eventually(buried, within=30)
        assert (await later.status()).phase is Phase.SCHEDULED
        async with guarded_nats.operator() as operator:
            tasks = await AsyncClient.over(operator, namespace).tasks("drills")
        listed = {each.address.id: each.phase for each in tasks}
        assert (listed["later"], listed["lost"]) == (Phase.SCHEDULED, Phase.QUEUED)


UNREADABLE_WHOLES: Final = (b"{", b"\xff", b'{"size":"x"}', b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", b"")


async def test_an_object_that_cannot_be_read_is_deleted_and_keeps_no_other(
    guarded_nats: GuardedNats, namespace: str
) -> None:
    """Who may submit can write what stands about an object, and the operator looks at all queues in turn."""
    now = time.time()
    stamps = {"Nats-Time-Stamp": "bogus", "Nats-Sequence": "bogus", "Nats-Subject": "bogus"}
    async with (
        connected(guarded_nats, namespace, Role.PRODUCER) as (attacker,),
        connected(guarded_nats, namespace, Role.PRODUCER, queue="theirs") as (victim,),
        guarded_nats.operator() as operator,
    ):
        for number, body in enumerate(UNREADABLE_WHOLES):
            name = f"{number:064x}"
            await put(attacker, topology.part_subject(namespace, "mine", name, 0), b"x")
            await put(attacker, topology.whole_subject(namespace, "mine", name), body)
            used = TaskAddress(namespace, "mine", Lane.NORMAL, Kind.DIRECT, "gone")
            await put(attacker, topology.use_subject(used, name, INPUT), b"x", **stamps)
        # Of a task that never was: nothing keeps it.
        theirs = Objects(victim)
        address = TaskAddress(namespace, "theirs", Lane.NORMAL, Kind.DIRECT, "never-was")
        await theirs.put(address, Bytes(b"unused"), INPUT)
        for hours in (2, 4, 6):
            clock = partial(datetime.fromtimestamp, now + hours * 3600, UTC)
            collector = ObjectCollector(operator, "tests", namespace.__eq__, now=clock)
            for queue in ("mine", "theirs"):
                stream, own = (
                    topology.object_stream(namespace, queue),
                    topology.sweep_subject(namespace, queue),
                )
                await operator.api("forget", f"STREAM.PURGE.{stream}", {"filter": own})
            await collector.once()
        for queue in ("mine", "theirs"):
            info = await stream_info(operator, topology.object_stream(namespace, queue))
            assert info is not None
            assert info["state"]["messages"] <= 1, (queue, "what no task refers to is still there")


COMMAND: Final = "x.cancel 0\r\n\r\nPUB $JS.API.STREAM.DELETE.{} 0\r\n\r\nPUB galley.x"
"""What a name would have to be to become a command of the one who puts it into a subject."""


async def test_no_name_becomes_a_command_of_who_looks_at_it(
    guarded_nats: GuardedNats, namespace: str
) -> None:
    """A producer deleted streams of other namespaces by the queues of a workflow that the operator cancelled.

    The second part is what would hold if a decoder let such a name through.
    """
    theirs = topology.work_stream(namespace, "theirs")
    command, now = COMMAND.format(theirs), datetime.now(UTC)
    root = Root("f", 1, 1, (0,), 0, 0, now, FAR, marks=".", uid="gone")
    async with (
        guarded_nats.operator() as operator,
        connected(guarded_nats, namespace, Role.PRODUCER, Role.WORKER) as (attacker, worker),
    ):
        roots = {
            "f": structs.replace(root, queues=(command,)),
            "many": structs.replace(root, id="many", tasks=10**8),
            "other": root, "marks": structs.replace(root, id="marks", marks="?"),
        }  # fmt: skip
        for name, each in roots.items():
            await put(attacker, topology.flow_subject(namespace, "mine", name), encode(each))
        good = structs.replace(root, id="good", tasks=150, nodes=150, marks="..")
        await put(attacker, topology.flow_subject(namespace, "mine", "good"), encode(good))
        for part, marks in (("0", b"\xff" * 100), ("9", b"s"), ("x", b"s"), ("1" * 900, b"s")):
            subject = topology.flow_part_subject(namespace, "mine", "good", f"marks.{part}")
            await put(worker, subject, marks)
        workflows = AsyncClient.over(operator, namespace).workflows
        found = await workflows.list("mine")
        assert [(each.id, each.succeeded) for each in found] == [("good", 0)]
        assert await workflows.get("mine", "good").cancel() is Cancelled.RUNNING

        with pytest.raises(SubjectInvalid):
            await operator.request(f"$JS.API.INFO.{command}", b"")
        with pytest.raises(SubjectInvalid):
            await anext(operator.request_many(f"$JS.API.INFO.{command}", b""))
        with pytest.raises(SubjectInvalid):
            await operator.subscribe(f"galley.{command}", lambda _: asyncio.sleep(0))
        operator.publish(f"galley.ctl.{command}")
        operator.publish("galley.x", b"", command)
        ack = await (await operator.pipeline.send(f"galley.ctl.{command}", b""))
        assert (ack.stored, ack.code) == (False, WRONG_SUBJECT)
        assert await operator.reached(5)
        assert operator.nats.stats["reconnects"] == 0
        assert await stream_info(operator, theirs) is not None


async def test_no_subject_hides_what_others_stored(
    guarded_nats: GuardedNats, namespace: str, tmp_path: Path
) -> None:
    """Workers may write to any subject of their records, letters and notes; each reader goes through all."""
    place, now = (namespace, "mine"), datetime.now(UTC)
    letter = DeadLetter(Failure("Odd", "no"), now, "w", 1, "normal")
    body = {
        "dead": dead_letter.encode(letter), "result": record.encode(Record(State.RUN, 1)), "note": b"{}",
        "count": b"",
    }  # fmt: skip
    async with (
        guarded_nats.operator() as operator,
        connected(guarded_nats, namespace, Role.WORKER, Role.PRODUCER) as (worker, producer),
    ):
        client = AsyncClient.over(operator, namespace)
        await AsyncClient.over(producer, namespace).submit(call("mine", "echo"), task_id="good")
        for verb in ("dead", "result", "note"):
            for tail in ("sdk", "x.y", "sdk.a.b.c", "k8s.\xe9", "unique.key", "sdk.>", "sdk.*", "..", "sdk."):
                subject = f"galley.{verb}.{namespace}.mine.{tail}"
                worker.nats.publish_directly(subject, body[verb], "", header_block({"Galley": "v=1;a=1;f=5"}))
        for tail in ("high.nothing", "nowhere.succeeded", "high.wait-\u00b2", "*.>"):
            subject = f"galley.count.{namespace}.mine.{tail}"
            worker.nats.publish_directly(subject, b"", "", header_block({"Nats-Incr": "1"}))
        for tail in ("part.a.b", "whole.>", "use.a.input.sdk.x", "leaving.*", "other", "use.a.b.c.d"):
            worker.nats.publish_directly(f"galley.object.{namespace}.mine.{tail}", b"{}", "", b"")
        died = TaskAddress(*place, Lane.NORMAL, Kind.DIRECT, "died")
        await put(worker, topology.dead_subject(died), body["dead"])
        assert await worker.reached(5)
        assert "good" in {each.address.id for each in await client.tasks("mine")}
        assert "died" in {each.id for each in await client.dead_letters.find("mine")}
        assert (await CountReader(operator).read(*place)).totals == {}
        await notes.output_of(operator, TaskAddress(*place, Lane.NORMAL, Kind.DIRECT, "good"))
        await SignalReader(operator).read(*place)
        await Sweep(operator, Place(*place), lambda _store, _name: asyncio.sleep(0, True)).run()
