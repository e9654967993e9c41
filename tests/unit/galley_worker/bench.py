"""The real Ledger, Settler and Claimant over the server in memory, and a producer beside them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from galley import envelope as wire
from galley import record as record_wire
from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.later import Door, send_later
from galley.broker.publish import Publisher
from galley.broker.pull import Delivery, Pulls
from galley.broker.topology import QueueLayout
from galley.envelope import Flags, encode
from galley.record import Claim, Record, Stored
from galley.retry import RetryPolicy
from galley_worker.claim import Held, Holder, Who
from galley_worker.claimant import Claimant
from galley_worker.ledger import Ledger
from galley_worker.life import Life
from galley_worker.settle import Settler
from galley_worker.solitude import Solitude
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker, MemoryServer, Seen

KEEP_SECONDS: Final = 3600
Value = TypeVar("Value")
POLICY: Final = RetryPolicy(attempts=3, crashes=3)


class Hands:
    """Takes deliveries as a worker's puller does."""

    def __init__(self) -> None:
        self.came: list[Delivery] = []

    def delivered(self, delivery: Delivery) -> None:
        self.came.append(delivery)

    def changed(self) -> None:
        """Nothing waits for that here."""

    def reconnected(self) -> None:
        """Nothing is kept that has not begun."""


@dataclass
class Worker:
    """What one worker process writes with."""

    broker: MemoryBroker
    pulls: Pulls
    hands: Hands
    ledger: Ledger
    settler: Settler
    claimant: Claimant
    who: Who
    solitude: Solitude


@dataclass
class Bench:
    """A queue on a server in memory."""

    server: MemoryServer
    producer: MemoryBroker
    layout: QueueLayout = field(default_factory=a_queue)
    started: set[asyncio.Task[Any]] = field(default_factory=set)
    holder: Holder = Holder.GONE
    """What is found of the process that claimed a message before."""

    async def ask(self, _address: TaskAddress, _claim: Claim) -> Holder:
        """Answer for the process that made a claim."""
        return self.holder

    async def submit(self, address: TaskAddress | None = None, **changes: Any) -> TaskAddress:
        """Have a task on the broker; `envelope` fields by name, `chosen_id` as in `publish`."""
        chosen = bool(changes.pop("chosen_id", False))
        address = address or an_address(of=self.layout)
        await Publisher(self.producer).publish(address, an_envelope(**changes), chosen_id=chosen)
        return address

    async def schedule(self, address: TaskAddress, flags: Flags, **changes: Any) -> None:
        """Have a task come from the later stream as a retry does."""
        now, body = self.server.now(), encode(an_envelope(**changes))
        await (await send_later(self.producer, address, body, flags, now, Door.AGAIN))

    async def take(self, worker: Worker, stream: str = "") -> Delivery:
        """Return the next delivery of the lane `normal` to a worker, which may have to wait for it."""
        name = stream or topology.work_stream(self.layout.namespace, self.layout.queue)
        source = next(
            source
            for pair in worker.pulls.sources.values()
            for source in pair
            if source.stream == name and source.lane == "normal"
        )
        await worker.pulls.orient()

        async def came() -> bool:
            if not worker.hands.came and not worker.pulls.is_open(source):
                await worker.pulls.park(source)
            return bool(worker.hands.came)

        await eventually(came, within=120)
        return worker.hands.came.pop(0)

    async def take_any(self, worker: Worker, lanes: Collection[str] = ("normal",)) -> Delivery:
        """Return the next delivery of some lanes, from the work or the later stream."""
        await worker.pulls.orient()
        sources = [
            source for pair in worker.pulls.sources.values() for source in pair if source.lane in lanes
        ]

        async def came() -> bool:
            for source in sources:
                if not worker.hands.came and not worker.pulls.is_open(source):
                    await worker.pulls.park(source)
            return bool(worker.hands.came)

        await eventually(came, within=400)
        return worker.hands.came.pop(0)

    def publish_raw(self, address: TaskAddress, body: bytes, header: str, subject: str = "") -> None:
        """Have a message in the work stream as another program writes it."""
        stream = self.server.streams[topology.work_stream(address.namespace, address.queue)]
        headers = {topology.FLAGS_HEADER: header}
        self.server._store(stream, subject or topology.task_subject(address), headers, body)

    def held(self, delivery: Delivery, **changes: Any) -> Held:
        """Return a delivery as an attempt holds it: nothing claimed yet."""
        envelope, flags = wire.decode(delivery.body), Flags.decode(delivery.header)
        defaults: dict[str, Any] = {
            "fence": flags.fence if flags.attempt > 1 else 0,
            "claimed": False,
            "history": envelope.history,
            "started_at": self.server.now(),
        }
        return Held(delivery, envelope, flags, **{**defaults, **changes})

    async def claimed(self, worker: Worker, delivery: Delivery) -> Held:
        """Return a delivery that its worker has claimed."""
        held = self.held(delivery)
        assert await worker.claimant.claim(held, POLICY)
        return held

    def record(self, address: TaskAddress) -> Stored | None:
        """Return the record that stands at the server now."""
        stream = self.server.streams[topology.records_stream(address.namespace, address.queue)]
        message = stream.last(topology.record_subject(address))
        return None if message is None else Stored(record_wire.decode(message.body), message.sequence)

    def final(self, address: TaskAddress) -> Record:
        """Return the record of a task that must have ended."""
        stored = self.record(address)
        assert stored is not None
        assert stored.record.done, stored.record
        return stored.record

    def put(self, address: TaskAddress, record: Record) -> int:
        """Write a record as another worker does; returns its sequence."""
        stream = self.server.streams[topology.records_stream(address.namespace, address.queue)]
        subject = topology.record_subject(address)
        body = record_wire.encode(record)
        self.server._store(stream, subject, {}, body)
        return stream.last_sequence

    def letters(self, address: TaskAddress) -> int:
        """Return how many dead letters of a task there are."""
        stream = self.server.streams[topology.dead_stream(address.namespace, address.queue)]
        return len(stream.subjects(topology.dead_subject(address)))

    def scheduled(self, address: TaskAddress) -> int:
        """Return how many schedules of a task wait."""
        stream = self.server.streams[topology.later_stream(address.namespace, address.queue)]
        return len(stream.subjects(topology.again_subject(address)))

    @property
    def in_work(self) -> int:
        """Messages in the work stream."""
        return len(
            self.server.streams[topology.work_stream(self.layout.namespace, self.layout.queue)].messages
        )

    def writes(self) -> list[str]:
        """Return what was written since `mark`, in the order it was."""
        return [_word(each) for each in self.server.log if each.what in _WRITES]

    def seen(self, what: str, kind: str = "") -> list[Seen]:
        return [each for each in self.server.log if each.what == what and (not kind or each.kind == kind)]

    def start(self, work: Coroutine[Any, Any, Value]) -> asyncio.Task[Value]:
        """Begin something beside the test; what is left of it is cancelled at the end."""
        task = asyncio.get_running_loop().create_task(work)
        self.started.add(task)
        return task

    @staticmethod
    async def pass_time(seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    def mark(self) -> None:
        """Forget what happened so far."""
        self.server.log.clear()

    @asynccontextmanager
    async def worker(
        self, name: str = "w1", holder: str = "h1", life: Life | None = None
    ) -> AsyncIterator[Worker]:
        """Run what a worker writes with."""
        async with MemoryBroker(self.server, name) as broker:
            hands = Hands()
            who, ledger = Who(name, holder), Ledger(broker)
            settler = Settler(ledger, who, KEEP_SECONDS, self.server.now, life=life)
            claimant = Claimant(ledger, settler, who, self.server.now, self.ask, solitude := Solitude())
            async with Pulls(broker, self.layout, hands) as pulls:
                await pulls.orient()  # what is submitted from here on comes by the fast path
                yield Worker(broker, pulls, hands, ledger, settler, claimant, who, solitude)


_WRITES: Final = ("stored", "refused", "ack", "nak", "purged")


def _word(seen: Seen) -> str:
    return {"stored": seen.kind, "refused": f"refused {seen.kind}"}.get(seen.what, seen.what)


@asynccontextmanager
async def a_bench() -> AsyncIterator[Bench]:
    """A server with one queue, and a producer."""
    server = MemoryServer()
    server.create(a_queue())
    async with MemoryBroker(server, "producer") as producer:
        bench = Bench(server, producer)
        try:
            yield bench
        finally:
            for task in bench.started:
                task.cancel()
            await asyncio.gather(*bench.started, return_exceptions=True)
