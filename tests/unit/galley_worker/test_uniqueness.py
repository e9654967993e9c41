"""Unique keys over a server in memory: producers that race, die or go unheard, and workers beside them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley import unique_key as wire
from galley.broker import topology
from galley.broker.errors import BrokerSilent
from galley.calls import Call, call
from galley.client import AsyncClient
from galley.envelope import decode
from galley.errors import QueueNotFound, SubmissionInvalid, TaskCancelled, UniqueConflict
from galley.handle import AsyncHandle
from galley.lanes import Lane
from galley.record import Outcome
from galley.unique import Unique, wanted
from galley.unique_key import KeyRecord, KeyState
from galley.when import When
from galley_worker.ending import Returned
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench
from tests.unit.galley_worker.test_attempts import Shop, a_shop

CALL: Final = call("images", "resize", path="a.png")
NEWER: Final = call("images", "resize", path="b.png")
STARTED: Final = Unique(key="k", until="started")
DEBOUNCE: Final = Unique(key="k", until="started", on_conflict="replace")
DIGEST: Final = wanted(STARTED, "resize", Raw(b"{}")).key.digest
KEY: Final = topology.key_subject("default", "images", DIGEST)


def client_of(shop: Shop, broker: MemoryBroker | None = None) -> AsyncClient:
    return AsyncClient.over(broker or shop.bench.producer, "default", patience_seconds=30)


@asynccontextmanager
async def another(bench: Bench, name: str) -> AsyncIterator[AsyncClient]:
    """A second producer, with a connection of its own."""
    async with MemoryBroker(bench.server, name) as broker:
        yield AsyncClient.over(broker, "default", patience_seconds=30)


async def run_next(shop: Shop) -> None:
    """Run the next attempt, if its task may begin."""
    before = len(shop.handlers.started)
    attempt = shop.begin(await shop.bench.take_any(shop.worker))

    async def decided() -> bool:
        return attempt.done() or len(shop.handlers.started) > before

    await eventually(decided, within=60)
    if not attempt.done():
        shop.handlers.started[-1].end(Returned(Raw(b"1")))
    await attempt


def key(bench: Bench) -> KeyRecord | None:
    message = bench.server.streams[topology.records_stream("default", "images")].last(KEY)
    return None if message is None else wire.decode(message.body)


def put_key(bench: Bench, record: KeyRecord) -> None:
    stream = bench.server.streams[topology.records_stream("default", "images")]
    bench.server._store(stream, KEY, {}, wire.encode(record))


def outcome(shop: Shop, handle: AsyncHandle[Any]) -> Outcome | None:
    return shop.bench.final(handle.address).outcome


@in_virtual_time
async def test_a_second_task_of_a_key_is_refused_with_the_id_of_the_first() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        first = await client.submit(CALL, unique="k")
        with pytest.raises(UniqueConflict, match=first.id) as refused:
            await client.submit(NEWER, unique="k")
        assert (refused.value.task_id, refused.value.state) == (first.id, "waits")
        await client.submit(NEWER, unique="other")
        assert shop.bench.in_work == 2


@in_virtual_time
async def test_the_existing_task_is_returned_when_asked_for_also_with_another_input() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        first = await client.submit(CALL, unique="k")
        again = await client.submit(NEWER, unique=Unique(key="k", on_conflict="existing"))
        assert (again.id, again.existed, first.existed) == (first.id, True, False)
        await run_next(shop)
        assert await again.result() == 1


@pytest.mark.parametrize("until", ["started", "finished"])
@in_virtual_time
async def test_a_key_is_held_until_its_task_has_begun_or_ended(until: str) -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        rules = Unique(key="k", until=until)  # type: ignore[arg-type]
        await client.submit(CALL, unique=rules)
        attempt = shop.begin(await shop.bench.take(shop.worker))
        execution = await shop.handlers.running()
        if until == "started":
            await client.submit(NEWER, unique=rules)
        else:
            with pytest.raises(UniqueConflict, match="has begun"):
                await client.submit(NEWER, unique=rules)
        execution.end(Returned(Raw(b"1")))
        await attempt
        if until == "finished":
            await client.submit(NEWER, unique=rules)


@in_virtual_time
async def test_a_key_without_text_stands_for_handler_and_input() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        await client.submit(CALL, unique=True)
        with pytest.raises(UniqueConflict, match="resize with this input"):
            await client.submit(Call("images", "resize", Raw(b'{ "path": "a.png" }')), unique=True)
        await client.submit(NEWER, unique=True)
        await client.submit(call("images", "rotate", path="a.png"), unique=True)


@in_virtual_time
async def test_a_key_may_be_made_of_some_arguments() -> None:
    async with a_shop() as shop:
        client, by = client_of(shop), Unique(by=("user",))
        await client.submit(call("images", "mail", user=7, text="one"), unique=by)
        with pytest.raises(UniqueConflict, match=r"mail\(user\)"):
            await client.submit(call("images", "mail", user=7, text="two"), unique=by)
        await client.submit(call("images", "mail", user=8, text="two"), unique=by)
        with pytest.raises(SubmissionInvalid, match="no argument 'user'"):
            await client.submit(call("images", "mail", text="two"), unique=by)


@in_virtual_time
async def test_of_two_producers_that_race_one_is_accepted() -> None:
    async with a_shop() as shop, another(shop.bench, "second") as second:
        sent = [client.submit(CALL, unique="k") for client in (client_of(shop), second) for _ in range(5)]
        came = await asyncio.gather(*sent, return_exceptions=True)
        accepted = [one for one in came if isinstance(one, AsyncHandle)]
        assert len(accepted) == 1
        assert {type(one) for one in came} == {AsyncHandle, UniqueConflict}
        while shop.bench.in_work:  # what lost the race after it was stored does not run
            await run_next(shop)
        assert len(shop.handlers.started) == 1
        assert outcome(shop, accepted[0]) is Outcome.SUCCEEDED


@in_virtual_time
async def test_a_newer_task_takes_the_place_of_one_that_waits() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        handles = [await client.submit(call("images", "resize", n=n), unique=DEBOUNCE) for n in range(4)]
        for _ in handles:
            await run_next(shop)
        assert [one.work.input for one in shop.handlers.started] == [Raw(b'{"n":3}')]
        with pytest.raises(TaskCancelled, match=f"task {handles[1].id}|took its place"):
            await handles[0].result()
        assert outcome(shop, handles[3]) is Outcome.SUCCEEDED


@in_virtual_time
async def test_a_replaced_task_of_a_slower_lane_does_not_run_after_the_newer_one_has_ended() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        later = shop.bench.server.now() + timedelta(hours=2)
        old = await client.submit(CALL, When(not_before=later), unique=DEBOUNCE)
        new = await client.submit(NEWER, unique=DEBOUNCE)
        await run_next(shop)
        assert outcome(shop, new) is Outcome.SUCCEEDED
        await shop.bench.pass_time(3600)
        third = await client.submit(NEWER, unique=DEBOUNCE)
        right = await _right_of(shop, old)
        assert right == third.id, "its key is still there to say so, though others had it since"


async def _right_of(shop: Shop, handle: AsyncHandle[Any]) -> str:
    assert handle.envelope is not None
    assert handle.envelope.unique is None
    uniqueness = shop.attempts._parts.uniqueness
    present = key(shop.bench)
    assert present is not None
    unique = replace(wanted(DEBOUNCE, "resize", Raw(b"{}")).key, epoch=present.epoch)
    return await uniqueness.begin(handle.address, unique, delivered_before=False)


@in_virtual_time
async def test_a_task_that_runs_is_not_replaced() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        rules = Unique(key="k", on_conflict="replace")
        await client.submit(CALL, unique=rules)
        shop.begin(await shop.bench.take(shop.worker))
        await shop.handlers.running()
        with pytest.raises(UniqueConflict, match="has begun"):
            await client.submit(NEWER, unique=rules)


@in_virtual_time
async def test_a_period_holds_a_key_after_its_task_has_ended_and_no_longer() -> None:
    async with a_shop() as shop:
        client, rules = client_of(shop), Unique(key="k", until=60)
        await client.submit(CALL, unique=rules)
        await run_next(shop)
        await shop.bench.pass_time(50)
        with pytest.raises(UniqueConflict):
            await client.submit(CALL, unique=rules)
        await shop.bench.pass_time(15)
        await client.submit(CALL, unique=rules)
        await run_next(shop)
        assert len(shop.handlers.started) == 2


@in_virtual_time
async def test_a_task_whose_period_ends_while_it_waits_runs_all_the_same() -> None:
    async with a_shop() as shop:
        client, rules = client_of(shop), Unique(key="k", until=2)
        first = await client.submit(CALL, unique=rules)
        await shop.bench.pass_time(5)
        second = await client.submit(NEWER, unique=rules)
        await run_next(shop)
        await run_next(shop)
        assert [outcome(shop, one) for one in (first, second)] == [Outcome.SUCCEEDED] * 2


@in_virtual_time
async def test_a_delayed_task_has_its_key_in_whatever_lane() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        later = shop.bench.server.now() + timedelta(hours=1)
        first = await client.submit(CALL, When(lane=Lane.LOW, not_before=later), unique="k")
        again = await client.submit(
            CALL, When(lane=Lane.HIGH), unique=Unique(key="k", on_conflict="existing")
        )
        assert again.id == first.id


@in_virtual_time
async def test_a_producer_that_died_after_its_claim_does_not_hold_the_key() -> None:
    async with a_shop() as shop:
        put_key(shop.bench, KeyRecord("01DEAD", KeyState.CLAIMED))
        handle = await client_of(shop).submit(CALL, unique="k")
        await run_next(shop)
        assert outcome(shop, handle) is Outcome.SUCCEEDED


@in_virtual_time
async def test_a_producer_that_died_while_it_replaced_a_task_has_not_taken_its_place() -> None:
    async with a_shop() as shop:
        first = await client_of(shop).submit(CALL, unique=STARTED)
        before = key(shop.bench)
        assert before is not None
        put_key(shop.bench, replace(before, task="01DEAD", state=KeyState.CLAIMED, previous=first.id))
        with pytest.raises(UniqueConflict, match=first.id):
            await client_of(shop).submit(NEWER, unique=STARTED)
        await run_next(shop)
        assert outcome(shop, first) is Outcome.SUCCEEDED


@in_virtual_time
async def test_a_key_of_a_task_that_ended_and_was_not_released_is_free() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        first = await client.submit(CALL, unique="k")
        await run_next(shop)
        put_key(shop.bench, KeyRecord(first.id, KeyState.BEGUN, begun=(first.id,)))
        await client.submit(NEWER, unique="k")


@in_virtual_time
async def test_a_key_of_a_task_nothing_is_left_of_is_free() -> None:
    async with a_shop() as shop:
        put_key(shop.bench, KeyRecord("01GONE", KeyState.BEGUN, begun=("01GONE",)))
        await client_of(shop).submit(CALL, unique="k")


@in_virtual_time
async def test_the_record_of_a_key_goes_soon_after_the_end_of_its_task() -> None:
    async with a_shop() as shop:
        await client_of(shop).submit(CALL, unique="k")
        await run_next(shop)
        await shop.bench.pass_time(5)
        assert key(shop.bench) is None


@in_virtual_time
async def test_a_task_whose_key_was_evicted_runs() -> None:
    async with a_shop() as shop:
        handle = await client_of(shop).submit(CALL, unique="k")
        stream = shop.bench.server.streams[topology.records_stream("default", "images")]
        last = stream.last(KEY)
        assert last is not None
        stream.remove(last.sequence)
        await run_next(shop)
        assert outcome(shop, handle) is Outcome.SUCCEEDED


@in_virtual_time
async def test_a_task_that_began_and_whose_worker_died_runs_again_though_a_newer_one_has_its_key() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        first = await client.submit(CALL, unique=STARTED)
        delivery = await shop.bench.take(shop.worker)
        unique = decode(delivery.body).unique
        assert unique is not None
        assert not await shop.attempts._parts.uniqueness.begin(first.address, unique, delivered_before=False)
        second = await client.submit(NEWER, unique=STARTED)
        shop.worker.settler.give_back(delivery)  # as its lease would end
        await run_next(shop)
        await run_next(shop)
        assert [outcome(shop, one) for one in (first, second)] == [Outcome.SUCCEEDED] * 2


@pytest.mark.parametrize("what", ["claim", "confirmation"])
@in_virtual_time
async def test_a_lost_answer_to_a_write_of_the_key_changes_nothing(what: str) -> None:
    async with a_shop() as shop:
        client, line = client_of(shop), shop.bench.producer.line
        prefix = shop.bench.producer.pipeline._prefix
        answers = iter([what == "claim", False, what == "confirmation"])
        line.lose(to_client=lambda subject: subject.startswith(prefix) and next(answers, False))
        handle = await client.submit(CALL, unique="k")
        with pytest.raises(UniqueConflict, match=handle.id):
            await client.submit(CALL, unique="k")
        await run_next(shop)
        assert outcome(shop, handle) is Outcome.SUCCEEDED
        assert shop.bench.in_work == 0


@in_virtual_time
async def test_a_worker_that_cannot_read_a_key_begins_its_task_once_it_can() -> None:
    async with a_shop() as shop:
        handle = await client_of(shop).submit(CALL, unique=STARTED)
        lost = [2]

        def reads_of_keys(subject: str) -> bool:
            lost[0] -= subject.startswith("$JS.API.DIRECT.GET.") and lost[0] > 0
            return subject.startswith("$JS.API.DIRECT.GET.") and lost[0] > 0

        attempt = shop.begin(await shop.bench.take_any(shop.worker))
        shop.worker.broker.line.lose(to_server=reads_of_keys)
        execution = await shop.handlers.running()
        execution.end(Returned(Raw(b"1")))
        await attempt
        assert outcome(shop, handle) is Outcome.SUCCEEDED


@in_virtual_time
async def test_a_broker_that_is_restarted_forgets_no_key() -> None:
    async with a_bench() as bench:
        client = AsyncClient.over(bench.producer, "default")
        first = await client.submit(CALL, unique="k")
        bench.server.kill()
        again = bench.start(client.submit(CALL, unique=Unique(key="k", on_conflict="existing")))
        await bench.pass_time(1)
        bench.server.start()
        assert (await again).id == first.id
        assert bench.in_work == 1


@in_virtual_time
async def test_a_queue_that_is_not_there_or_a_silent_broker_is_named() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        with pytest.raises(QueueNotFound):
            await client.submit(call("nowhere", "resize"), unique="k")
        prefix = shop.bench.producer.pipeline._prefix
        shop.bench.producer.line.lose(to_client=lambda subject: subject.startswith(prefix))
        with pytest.raises(BrokerSilent, match="unique key"):
            await client.submit(CALL, unique="k")


@in_virtual_time
async def test_many_with_keys_are_accepted_or_refused_one_by_one() -> None:
    async with a_shop() as shop:
        calls = [call("images", "resize", n=n % 2).options(unique=True) for n in range(4)]
        with pytest.raises(Exception, match="2 of 4 tasks were refused") as some:
            await client_of(shop).submit_many(calls)
        assert {type(one) for one in some.value.refused.values()} == {UniqueConflict}  # type: ignore[attr-defined]


@in_virtual_time
async def test_a_plain_task_asks_nothing_and_writes_nothing_about_keys() -> None:
    async with a_shop() as shop:
        await client_of(shop).submit(CALL)
        await run_next(shop)
        subjects = [each.subject for each in shop.bench.server.log]
        assert not any("unique" in subject for subject in subjects)
        assert shop.bench.seen("stored", "result")[0].body.count(b'"state":"done"') == 1, "on the fast path"


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"key": ""}, "not empty"),
        ({"key": "k" * 10_000_000}, "the limit is 1024"),
        ({"key": "\ud800"}, "not valid Unicode"),
        ({"key": "k", "by": ("user",)}, "give one of them"),
        ({"by": "user"}, "tuple of names"),
        ({"until": "ended"}, "started, finished or a number"),
        ({"until": 0}, "seconds"),
        ({"until": float("nan")}, "seconds"),
        ({"until": True}, "started, finished or a number"),
        ({"until": timedelta(days=400)}, "seconds"),
        ({"on_conflict": "wait"}, "reject, existing, replace"),
    ],
)
def test_rules_no_task_can_have_are_refused(rules: dict[str, Any], problem: str) -> None:
    with pytest.raises(SubmissionInvalid) as refused:
        Unique(**rules)
    assert problem in f"{refused.value} {refused.value.hint}"
    assert len(str(refused.value)) < 300


@in_virtual_time
async def test_a_key_and_an_id_of_ones_own_exclude_each_other() -> None:
    async with a_shop() as shop:
        with pytest.raises(SubmissionInvalid, match="id of your own"):
            await client_of(shop).submit(CALL, task_id="mine", unique="k")


@in_virtual_time
async def test_a_call_may_do_without_the_key_its_handler_has() -> None:
    async with a_shop() as shop:
        client, with_key = client_of(shop), CALL.options(unique="k")
        await client.submit(with_key)
        await client.submit(with_key.options(unique=False))
        await client.submit(with_key, unique=False)
        assert shop.bench.in_work == 3


@in_virtual_time
async def test_a_key_written_by_a_newer_version_keeps_no_task_from_running() -> None:
    async with a_shop() as shop:
        handle = await client_of(shop).submit(CALL, unique="k")
        put_key(shop.bench, KeyRecord("01X", KeyState.CONFIRMED, v=9))
        await run_next(shop)
        assert outcome(shop, handle) is Outcome.SUCCEEDED


@in_virtual_time
async def test_a_task_whose_key_was_evicted_takes_no_key_away_at_its_end() -> None:
    async with a_shop() as shop:
        client = client_of(shop)
        await client.submit(CALL, unique="k")
        attempt = shop.begin(await shop.bench.take(shop.worker))
        running = await shop.handlers.running()
        stream = shop.bench.server.streams[topology.records_stream("default", "images")]
        stream.remove(stream.last(KEY).sequence)  # type: ignore[union-attr]
        second = await client.submit(NEWER, unique="k")
        running.end(Returned(Raw(b"1")))
        await attempt
        with pytest.raises(UniqueConflict, match=second.id):
            await client.submit(CALL, unique="k")


@in_virtual_time
async def test_a_task_that_is_replaced_while_its_worker_looks_does_not_begin() -> None:
    async with a_shop() as shop:
        client, keys = client_of(shop), shop.attempts._parts.uniqueness._keys
        first = await client.submit(CALL, unique=DEBOUNCE)
        read = keys.read
        newer: list[AsyncHandle[Any]] = []

        async def read_and_lose(*arguments: Any) -> Any:
            found = await read(*arguments)
            if not newer:
                newer.append(await client.submit(NEWER, unique=DEBOUNCE))
            return found

        keys.read = read_and_lose  # type: ignore[method-assign, assignment]
        await run_next(shop)
        await run_next(shop)
        assert outcome(shop, first) is Outcome.CANCELLED
        assert [one.work.task_id for one in shop.handlers.started] == [newer[0].id]


@pytest.mark.parametrize("asked", ["$JS.API.DIRECT.GET.", KEY])
@in_virtual_time
async def test_a_key_that_the_credentials_do_not_permit_ends_its_task_and_holds_no_slot(asked: str) -> None:
    async with a_shop() as shop:
        handle = await client_of(shop).submit(CALL, unique="k")
        line = shop.worker.broker.line
        line.may_not = lambda subject: subject.startswith(asked) and KEY in subject
        await asyncio.wait_for(shop.begin(await shop.bench.take(shop.worker)), 10)
        final = shop.bench.final(handle.address)
        assert final.failure is not None
        assert (final.outcome, final.failure.reason) == (Outcome.FAILED, "NotAllowed")
        assert (shop.bench.letters(handle.address), shop.handlers.started) == (1, [])
