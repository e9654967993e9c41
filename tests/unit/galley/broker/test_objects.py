"""Objects over a server in memory: written once, found again, refused when full, deleted when unused."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from msgspec import Raw

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.errors import BrokerFull, BrokerRefused, BrokerUnreachable
from galley.broker.object_sweep import GRACE_SECONDS, LEAVING_SECONDS, Sweep, Swept
from galley.broker.objects import PART, Place, hold_id
from galley.calls import call
from galley.client import AsyncClient
from galley.dead_letter import DeadLetter, encode
from galley.declared import with_put_files
from galley.errors import InputInvalid
from galley.file import File
from galley.objects.content import Bytes
from galley.objects.errors import (
    ObjectDamaged,
    ObjectMissing,
    ObjectsFull,
    ObjectStoreUnavailable,
)
from galley.objects.store import INPUT, RESULT, Objects
from galley.record import Failure, Outcome, Record, State
from galley.reference import Reference
from tests.support.builders import an_address, an_envelope
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.encryption.keys import payloads
from tests.unit.galley_worker.bench import Bench, a_bench

DATA = bytes(range(256)) * (3 * PART // 256) + b"the last part"


async def read(objects: Objects, address: TaskAddress, reference: Reference) -> bytes:
    return b"".join([piece async for piece in objects.get(Place.of(address), reference)])


def subjects(bench: Bench, verb: str) -> list[str]:
    pattern = topology.objects_of_queue(*place(bench), f"{verb}.>")
    return sorted(stream_of(bench).subjects(pattern))


def place(bench: Bench) -> Place:
    return Place(bench.layout.namespace, bench.layout.queue)


def stream_of(bench: Bench) -> Any:
    return bench.server.streams[topology.object_stream(*place(bench))]


async def stored(bench: Bench, data: bytes = DATA, role: str = INPUT) -> tuple[TaskAddress, Reference]:
    address = an_address(of=bench.layout)
    return address, await Objects(bench.producer).put(address, Bytes(data), role)


@in_virtual_time
async def test_equal_content_is_stored_once_and_read_in_its_order() -> None:
    async with a_bench() as bench:
        address, reference = await stored(bench)
        assert reference == Reference(hashlib.sha256(DATA).hexdigest(), len(DATA))
        _, again = await stored(bench)
        assert again == reference
        assert (len(subjects(bench, "part")), len(subjects(bench, "use"))) == (4, 2)
        assert await read(Objects(bench.producer), address, reference) == DATA


@in_virtual_time
async def test_an_empty_object_is_one_too() -> None:
    async with a_bench() as bench:
        address, reference = await stored(bench, b"")
        assert await read(Objects(bench.producer), address, reference) == b""


@in_virtual_time
async def test_an_upload_that_was_cut_off_goes_on_where_it_was() -> None:
    async with a_bench() as bench:
        line, parts = bench.producer.line, 0

        def lose(subject: str) -> bool:
            nonlocal parts
            parts += ".part." in subject
            return ".part." in subject and parts > 2

        line.lose(to_server=lose)
        upload = bench.start(stored(bench))
        await bench.pass_time(1)
        upload.cancel()
        line.lose()
        assert subjects(bench, "whole") == []
        address, reference = await stored(bench)
        assert await read(Objects(bench.producer), address, reference) == DATA


@in_virtual_time
async def test_a_lost_answer_costs_nothing_but_time() -> None:
    async with a_bench() as bench:
        line, prefix = bench.producer.line, bench.producer.pipeline._prefix
        line.lose(to_client=lambda subject: subject.startswith(prefix))
        upload = bench.start(stored(bench))
        await bench.pass_time(8)
        line.lose()
        address, reference = await upload
        assert await read(Objects(bench.producer), address, reference) == DATA


@in_virtual_time
async def test_a_full_store_refuses_with_figures_and_stores_no_part() -> None:
    async with a_bench() as bench:
        stream_of(bench).definition["max_bytes"] = len(DATA)
        with pytest.raises(ObjectsFull, match=f"no room for {len(DATA)} bytes: .* of {len(DATA)} "):
            await stored(bench)
        assert subjects(bench, "part") == []


@in_virtual_time
async def test_a_store_that_fills_up_meanwhile_refuses_too() -> None:
    async with a_bench() as bench:
        objects = Objects(bench.producer)
        stream_of(bench).definition["max_bytes"] = 2 * PART

        async def no_check(*_: object) -> None:
            """Find room that another upload takes."""

        objects._stream.check_room = no_check  # type: ignore[method-assign, assignment]
        with pytest.raises(ObjectsFull, match=f"of {2 * PART} bytes are used"):
            await objects.put(an_address(of=bench.layout), Bytes(DATA), INPUT)


@in_virtual_time
async def test_a_broker_without_room_is_another_error() -> None:
    async with a_bench() as bench:
        bench.server.full = (topology.objects_of_queue(*place(bench), "part"),)
        with pytest.raises(BrokerFull, match="store an object of queue"):
            await stored(bench)


@in_virtual_time
async def test_a_queue_without_the_stream_is_an_error_that_says_so() -> None:
    async with a_bench() as bench:
        del bench.server.streams[topology.object_stream(*place(bench))]
        with pytest.raises(ObjectStoreUnavailable, match="has no stream for them"):
            await stored(bench)
        with pytest.raises(ObjectStoreUnavailable, match="has no stream for them"):
            await read(Objects(bench.producer), an_address(of=bench.layout), Reference("a" * 64, 5))
        with pytest.raises(ObjectStoreUnavailable, match="has no stream for them"):
            await Objects(bench.producer)._stream.check_room(place(bench), 1)


@in_virtual_time
async def test_a_silent_broker_is_given_up_after_a_while() -> None:
    async with a_bench() as bench:
        address, reference = await stored(bench)
        bench.producer.line.lose(to_client=lambda _subject: True)
        for trial in (stored(bench), read(Objects(bench.producer), address, reference)):
            with pytest.raises(ObjectStoreUnavailable):
                await trial
        with pytest.raises(ObjectStoreUnavailable, match="say how much room"):
            await Objects(bench.producer)._stream.check_room(place(bench), 1)


@in_virtual_time
async def test_what_is_missing_or_changed_is_never_handed_out_as_good() -> None:
    async with a_bench() as bench:
        address, reference = await stored(bench)
        objects, stream = Objects(bench.producer), stream_of(bench)
        subject = topology.part_subject(*place(bench), reference.object, 1)
        good = stream.last(subject)
        for body, error in (
            (b"x" * PART, ObjectDamaged),
            (good.body[:-1], ObjectDamaged),
            (good.body + b"x", ObjectDamaged),
        ):
            stream.messages[good.sequence] = replace(good, body=body)
            with pytest.raises(error):
                await read(objects, address, reference)
        stream.remove(good.sequence)
        with pytest.raises(ObjectMissing, match="is not in object store of NATS"):
            await read(objects, address, reference)


@in_virtual_time
async def test_a_part_that_a_replica_does_not_have_yet_is_asked_for_again() -> None:
    async with a_bench() as bench:
        address, reference = await stored(bench)
        stream = stream_of(bench)
        subject = topology.part_subject(*place(bench), reference.object, 1)
        good = stream.last(subject)
        stream.remove(good.sequence)
        reading = bench.start(read(Objects(bench.producer), address, reference))
        await bench.pass_time(0.4)
        stream.store(subject, {}, good.body, good.at)
        assert await reading == DATA


class Collector:
    """Sweeps, and the tasks that keep objects from going."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.removed: list[tuple[str, str]] = []
        self.known = True

    async def remove(self, store: str, name: str) -> bool:
        self.removed.append((store, name))
        return self.known

    async def sweep(self, after: float = 0.0) -> Swept:
        await self.bench.pass_time(after)
        return await Sweep(self.bench.producer, place(self.bench), self.remove, self.bench.server.now).run()

    def end(self, address: TaskAddress, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        failure = Failure("Broken", "it broke") if outcome is Outcome.FAILED else None
        self.bench.put(address, Record(State.DONE, 1, outcome=outcome, failure=failure))


@in_virtual_time
async def test_an_object_goes_once_its_task_has_ended_and_not_before() -> None:
    async with a_bench() as bench:
        collector = Collector(bench)
        assert await collector.sweep() == Swept()
        address, _ = await stored(bench)
        # Not published yet: its producer has an hour for that.
        assert (await collector.sweep(after=GRACE_SECONDS - 10)).leaving == 0
        await bench.submit(address)
        assert (await collector.sweep(after=100)).leaving == 0
        async with bench.worker() as worker:
            delivery = await bench.take(worker)
            collector.end(address)
            worker.settler.drop(delivery)
            await bench.pass_time(0.1)
        assert (await collector.sweep()).leaving == 1
        assert (await collector.sweep(after=LEAVING_SECONDS - 10)).deleted == 0
        assert await collector.sweep(after=20) == Swept(0, 1, 0)
        assert stream_of(bench).messages == {}


@in_virtual_time
async def test_a_file_that_was_put_stays_as_long_as_asked_and_then_as_long_as_its_task() -> None:
    async with a_bench() as bench:
        collector = Collector(bench)
        until = bench.server.now().timestamp() + 3 * GRACE_SECONDS
        holder = an_address(of=bench.layout, id=hold_id(until))
        reference = await Objects(bench.producer).put(holder, Bytes(b"page"), INPUT, "page.bin")
        assert (await collector.sweep(after=3 * GRACE_SECONDS - 60)).leaving == 0
        address = an_address(of=bench.layout)
        named = bytes(File.stored(reference).as_json())
        referring = await with_put_files(
            bench.producer, address, an_envelope(input=Raw(b'{"page":%s}' % named))
        )
        assert referring.files == (reference,)
        await bench.submit(address, input=referring.input)
        assert (await collector.sweep(after=2 * GRACE_SECONDS)).leaving == 0
        # A task that has ended needs it no more, and what kept it has passed.
        work = bench.server.streams[topology.work_stream(*place(bench))]
        work.remove(next(iter(work.messages)))
        collector.end(address)
        assert (await collector.sweep()).leaving == 1


@pytest.mark.parametrize(
    ("inner", "problem"),
    [
        (b'{"digest":"%s","size":4}' % (b"0" * 64), "is not in object store"),
        (b'{"digest":"%s","size":4,"key":"a"}' % (b"0" * 64), "was not stored by `galley files put`"),
        (b'{"path":"page.bin"}', "missing required field"),
        (b'"s3://bucket/page"', "Expected `object`"),
        (b'{"local":"0123456789abcdef"}', "a file of another process"),
    ],
)
@in_virtual_time
async def test_what_stands_for_no_file_that_was_put_is_refused_with_what_to_do(
    inner: bytes, problem: str
) -> None:
    async with a_bench() as bench:
        envelope = an_envelope(input=Raw(b'{"page":{"galley.file":%s}}' % inner))
        with pytest.raises((InputInvalid, ObjectMissing), match=problem) as refused:
            await with_put_files(bench.producer, an_address(of=bench.layout), envelope)
        assert "galley files put" in str(refused.value.hint)


@in_virtual_time
async def test_a_result_goes_with_its_record_and_an_input_stays_with_its_dead_letter() -> None:
    async with a_bench() as bench:
        collector = Collector(bench)
        ok, _ = await stored(bench, b"result", RESULT)
        dead, _ = await stored(bench, b"input")
        collector.end(ok)
        collector.end(dead, Outcome.FAILED)
        letter = DeadLetter(Failure("Broken", "it broke"), bench.server.now(), "w1", 1, "normal")
        letters = bench.server.streams[topology.dead_stream(*place(bench))]
        letters.store(topology.dead_subject(dead), {}, encode(letter), bench.server.now())
        assert (await collector.sweep(after=2 * GRACE_SECONDS)).leaving == 0
        letters.remove(letters.last(topology.dead_subject(dead)).sequence)  # type: ignore[union-attr]
        records = bench.server.streams[topology.records_stream(*place(bench))]
        records.remove(records.last(topology.record_subject(ok)).sequence)  # type: ignore[union-attr]
        assert (await collector.sweep()).leaving == 2
        assert (await collector.sweep(after=LEAVING_SECONDS)).deleted == 2


@in_virtual_time
async def test_nothing_leaves_while_the_stream_of_dead_letters_has_no_leader() -> None:
    async with a_bench() as bench:
        collector = Collector(bench)
        dead, _ = await stored(bench, b"input")
        collector.end(dead, Outcome.FAILED)
        letter = DeadLetter(Failure("Broken", "it broke"), bench.server.now(), "w1", 1, "normal")
        name = topology.dead_stream(*place(bench))
        bench.server.streams[name].store(topology.dead_subject(dead), {}, encode(letter), bench.server.now())
        letters = bench.server.streams.pop(name)
        with pytest.raises(BrokerRefused, match="no server answers"):
            await collector.sweep(after=2 * GRACE_SECONDS)
        bench.server.streams[name] = letters
        assert (await collector.sweep(after=LEAVING_SECONDS)).leaving == 0


@in_virtual_time
async def test_a_producer_that_comes_while_an_object_leaves_gets_one_of_its_own() -> None:
    async with a_bench() as bench:
        collector = Collector(bench)
        address, reference = await stored(bench)
        collector.end(address)
        assert (await collector.sweep()).leaving == 1
        other, own = await stored(bench)
        assert own.id.startswith("own-")
        assert own.digest == reference.digest
        await bench.submit(other)
        # It referred to the shared one, too, before it saw that this one leaves: so that stays.
        assert (await collector.sweep(after=LEAVING_SECONDS)).deleted == 0
        assert await read(Objects(bench.producer), other, own) == DATA
        assert await read(Objects(bench.producer), other, reference) == DATA


@in_virtual_time
async def test_what_an_upload_left_that_was_killed_goes_after_the_grace() -> None:
    async with a_bench() as bench:
        collector = Collector(bench)
        _, reference = await stored(bench)
        stream = stream_of(bench)
        stream.remove(stream.last(topology.whole_subject(*place(bench), reference.object)).sequence)
        assert (await collector.sweep(after=GRACE_SECONDS + 10)).leaving == 1
        assert (await collector.sweep(after=LEAVING_SECONDS)).deleted == 1
        assert stream.messages == {}


@in_virtual_time
async def test_one_process_at_a_time_looks() -> None:
    async with a_bench() as bench:
        first, second = (Sweep(bench.producer, place(bench), Collector(bench).remove) for _ in range(2))
        assert (await first.taken(), await second.taken()) == (True, False)
        await bench.pass_time(130)
        assert await second.taken()


@in_virtual_time
async def test_an_object_of_a_bucket_that_is_not_known_stays() -> None:
    async with a_bench() as bench:
        collector = Collector(bench)
        address = an_address(of=bench.layout)
        objects = Objects(bench.producer)
        await objects._stream.use(address, "a" * 64, INPUT)
        await objects._stream.finish(place(bench), "a" * 64, 5, "s3://bucket")
        collector.end(address)
        collector.known = False
        await collector.sweep()
        assert (await collector.sweep(after=LEAVING_SECONDS)).deleted == 0
        collector.known = True
        assert (await collector.sweep()).deleted == 1
        assert collector.removed == [("s3://bucket", "a" * 64)] * 2
        # And a producer does not take it for one in the stream.
        assert await objects.remove(place(bench), "s3://bucket", "a" * 64) is False


@in_virtual_time
async def test_a_silent_broker_ends_a_sweep_and_nothing_else() -> None:
    async with a_bench() as bench:
        collector = Collector(bench)
        address, _ = await stored(bench)
        collector.end(address)
        bench.producer.line.lose(to_server=lambda subject: ".leaving." in subject and "$JS" not in subject)
        with pytest.raises(BrokerUnreachable):
            await collector.sweep()
        bench.producer.line.lose()
        assert (await collector.sweep()).leaving == 1


@in_virtual_time
async def test_an_object_is_not_deleted_between_the_look_for_it_and_the_task() -> None:
    async with a_bench() as bench:
        collector, objects = Collector(bench), Objects(bench.producer)
        first, reference = await stored(bench)
        collector.end(first)
        look = objects._stream.there

        async def look_and_sweep(*arguments: Any) -> Any:
            found = await look(*arguments)
            await collector.sweep()
            await collector.sweep(after=LEAVING_SECONDS)
            return found

        objects._stream.there = look_and_sweep  # type: ignore[method-assign, assignment]
        second = an_address(of=bench.layout)
        assert await objects.put(second, Bytes(DATA), INPUT) == reference
        await bench.submit(second)
        assert await read(objects, second, reference) == DATA


@in_virtual_time
async def test_equal_content_in_a_bucket_is_not_taken_for_that_of_the_stream() -> None:
    async with a_bench() as bench:
        objects, digest = Objects(bench.producer), hashlib.sha256(DATA).hexdigest()
        await objects._stream.finish(place(bench), digest, len(DATA), "s3://bucket")
        address, reference = await stored(bench)
        assert reference.id.startswith("own-")
        assert await read(objects, address, reference) == DATA


@in_virtual_time
async def test_a_full_store_refuses_the_task_and_the_next_smaller_one_is_accepted() -> None:
    async with a_bench() as bench:
        stream_of(bench).definition["max_bytes"] = 2 * PART
        client = AsyncClient.over(bench.producer, "default")
        with pytest.raises(ObjectsFull, match="the objects of queue 'images' have no room") as full:
            await client.submit(call("images", "resize", data="x" * (4 * PART)), task_id="large")
        assert (full.value.queue, full.value.limit) == ("images", 2 * PART)
        assert "objectBytes" in full.value.hint
        assert bench.in_work == 0
        await client.submit(call("images", "resize", data="x"), task_id="large")
        assert bench.in_work == 1


@in_virtual_time
async def test_an_encrypted_object_that_was_deleted_is_stored_again() -> None:
    async with a_bench() as bench:
        bench.producer.payloads = payloads()
        collector, objects = Collector(bench), Objects(bench.producer)
        first, second, third = (an_address(of=bench.layout) for _ in range(3))
        reference = await objects.put(first, Bytes(DATA), INPUT)
        assert (await objects.put(second, Bytes(DATA), INPUT)).object == reference.object
        collector.end(first)
        collector.end(second)
        await collector.sweep()
        assert (await collector.sweep(after=LEAVING_SECONDS)).deleted == 1
        again = await objects.put(third, Bytes(DATA), INPUT)
        assert again.object != reference.object
        assert await read(objects, third, again) == DATA


@in_virtual_time
async def test_a_result_that_is_stored_waits_for_its_record_and_a_claim_keeps_an_input() -> None:
    async with a_bench() as bench:
        collector = Collector(bench)
        ended, _ = await stored(bench, b"result", RESULT)
        running, _ = await stored(bench, b"input")
        bench.put(running, Record(State.RUN, 1))
        assert (await collector.sweep()).leaving == 0
        assert (await collector.sweep(after=GRACE_SECONDS + 1)).leaving == 1
        assert await Objects(bench.producer)._stream.there(place(bench), hashlib.sha256(b"input").hexdigest())
        assert ended != running
