"""Schedules: each tick runs once, whatever happens to the workers that fire it."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley.batch import SomeRefused
from galley.broker import schedules as stored
from galley.broker import topology
from galley.broker.schedules import reserved_for
from galley.calls import call
from galley.client import AsyncClient
from galley.encryption import DecryptionKeyMissing
from galley.encryption.payloads import Payloads
from galley.envelope import INPUT_LIMIT
from galley.envelope import decode as decode_task
from galley.envelope import encode as encode_task
from galley.errors import (
    EnvelopeInvalid,
    IdReserved,
    LaneNotEnabled,
    QueueNotFound,
    ScheduleInvalid,
    ScheduleNotFound,
)
from galley.file import File
from galley.lanes import Lane
from galley.record import Outcome, Record, State
from galley.reference import INLINE_LIMIT
from galley.repeat import Repeat
from galley.schedule import Action, Schedule, address_of, decode, encode, tick_id
from galley.schedules import ScheduleView
from galley_worker.ledger import Ledger
from galley_worker.measures import Measures
from galley_worker.planner import Planner
from galley_worker.settle import TICK_KEPT_SECONDS
from galley_worker.ticker import Ticker
from galley_worker.verdict import Succeed
from tests.support.builders import an_envelope
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.encryption.keys import payloads
from tests.unit.galley_worker.bench import KEEP_SECONDS, Bench, a_bench

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CALL = call("images", "resize", width=3)


def client_of(bench: Bench) -> AsyncClient:
    return AsyncClient.over(bench.producer, bench.layout.namespace)


def measures() -> Measures:
    return Measures("default", "images", lambda: 1, lambda: 0)


@asynccontextmanager
async def ticking(
    bench: Bench, name: str = "w1", *, wrong_by: timedelta = timedelta(0), counted: Measures | None = None,
    delay: float = 0.0,
) -> AsyncIterator[MemoryBroker]:  # fmt: skip
    """Run a worker's ticker, whose clock is wrong by so much, over a line with a delay."""
    async with MemoryBroker(bench.server, name, lambda: delay) as broker:
        ticker = Ticker(
            broker, bench.layout, Ledger(broker), counted or measures(), lambda: bench.server.now() + wrong_by
        )
        running = asyncio.create_task(ticker.run())
        try:
            yield broker
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def tasks(bench: Bench) -> list[str]:
    """Return the ids of the tasks that were submitted, in order."""
    return [
        each.subject.split(".")[-1]
        for each in bench.seen("stored", "schedule")
        if f".{topology.TIMER}." not in each.subject
    ]


def ended(bench: Bench, task_id: str, **changes: Any) -> None:
    """Have the task of a tick end as a worker writes it."""
    address = address_of(bench.layout.namespace, bench.layout.queue, "normal", task_id)  # type: ignore[arg-type]
    stream = bench.server.streams[topology.later_stream(address.namespace, address.queue)]
    for subject in (topology.schedule_subject(address), topology.due_subject(address)):
        if (message := stream.last(subject)) is not None:
            stream.remove(message.sequence)
    bench.put(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED, **changes))


async def begun(bench: Bench, cron: str | Repeat, name: str = "nightly", **rules: Any) -> ScheduleView:
    client = client_of(bench)
    made = await client.schedules.create(name, CALL, cron, **rules)

    async def looked_at() -> bool:
        kept = await stored.find(bench.producer, bench.layout.namespace, "images", name)
        return kept is not None and kept.schedule.progress.decided is not None

    if not made.suspended:
        await eventually(looked_at, within=30)
    return await client.schedules.get("images", name)


@asynccontextmanager
async def at_noon() -> AsyncIterator[Bench]:
    async with a_bench() as bench:
        bench.server._began += NOON - bench.server.now()
        yield bench


@in_virtual_time
async def test_each_tick_submits_one_task_with_the_id_of_the_tick() -> None:
    async with at_noon() as bench, ticking(bench):
        view = await begun(bench, "@every 10s", overlap="allow")
        assert view.next_at == NOON + timedelta(seconds=10)
        await bench.pass_time(31)
        assert tasks(bench) == [tick_id("nightly", NOON + timedelta(seconds=n)) for n in (10, 20, 30)]
        view = await client_of(bench).schedules.get("images", "nightly")
        assert (view.fired, view.skipped) == (3, 0)
        assert view.last_at == NOON + timedelta(seconds=30)
        assert view.next_at == NOON + timedelta(seconds=40)
        assert [tick.action for tick in view.recent] == [Action.FIRED] * 3
        task = bench.seen("stored", "schedule")[-2]
        assert b'"schedule":"nightly"' in task.body
        assert b'"width":3' in task.body


@in_virtual_time
async def test_a_minute_schedule_fires_for_hours_with_nothing_but_a_worker() -> None:
    async with at_noon() as bench, ticking(bench):
        await begun(bench, "* * * * *", overlap="allow")
        await bench.pass_time(3 * 3600)
        assert len(tasks(bench)) == 3 * 60
        assert len(set(tasks(bench))) == 3 * 60


@pytest.mark.parametrize("hours", [-5, 5])
@in_virtual_time
async def test_a_worker_whose_clock_is_wrong_neither_fires_early_nor_skips(hours: int) -> None:
    async with at_noon() as bench, ticking(bench, wrong_by=timedelta(hours=hours)):
        await begun(bench, "@every 10s", overlap="allow")
        await bench.pass_time(31)
        assert tasks(bench) == [tick_id("nightly", NOON + timedelta(seconds=n)) for n in (10, 20, 30)]


@in_virtual_time
async def test_no_tick_fires_again_after_the_servers_clock_went_back() -> None:
    async with at_noon() as bench, ticking(bench):
        await begun(bench, "@every 10s", overlap="allow", catch_up="all", catch_up_limit=1000)
        await bench.pass_time(25)
        bench.server._began -= timedelta(hours=1)
        await bench.pass_time(3600 + 30)
        assert len(tasks(bench)) == len(set(tasks(bench)))
        assert tick_id("nightly", NOON + timedelta(seconds=40)) in tasks(bench)
        assert tick_id("nightly", NOON - timedelta(seconds=10)) not in tasks(bench)


@pytest.mark.parametrize(
    ("rules", "expected", "skipped"),
    [
        ({"catch_up": "skip", "starting_deadline_seconds": 300}, [60], 59),
        ({"catch_up": "skip", "starting_deadline_seconds": 20}, [], 60),
        ({"catch_up": "one"}, [60], 59),
        ({"catch_up": "all", "catch_up_limit": 4}, [57, 58, 59, 60], 56),
    ],
)
@in_virtual_time
async def test_what_runs_of_the_ticks_that_passed_without_a_worker(
    rules: dict[str, Any], expected: list[int], skipped: int
) -> None:
    async with at_noon() as bench:
        async with ticking(bench):
            await begun(bench, "@every 1m", overlap="allow", **rules)
        await bench.pass_time(3600 + 30)
        assert tasks(bench) == []
        async with ticking(bench, "w2"):
            await bench.pass_time(5)
            assert tasks(bench) == [tick_id("nightly", NOON + timedelta(minutes=n)) for n in expected]
            view = await client_of(bench).schedules.get("images", "nightly")
            assert (view.fired, view.skipped) == (len(expected), skipped)
            assert view.next_at == NOON + timedelta(minutes=61)
            assert sum(tick.count for tick in view.recent if tick.action is Action.MISSED) == skipped


@in_virtual_time
async def test_with_overlap_skip_a_tick_waits_for_no_one_and_is_counted() -> None:
    async with at_noon() as bench, ticking(bench):
        await begun(bench, "@every 10s")
        await bench.pass_time(31)
        first = tick_id("nightly", NOON + timedelta(seconds=10))
        assert tasks(bench) == [first]
        view = await client_of(bench).schedules.get("images", "nightly")
        assert (view.fired, view.skipped) == (1, 2)
        assert first in view.recent[0].why
        ended(bench, first)
        await bench.pass_time(10)
        assert tasks(bench) == [first, tick_id("nightly", NOON + timedelta(seconds=40))]


@in_virtual_time
async def test_with_overlap_replace_the_earlier_task_is_cancelled_first() -> None:
    async with at_noon() as bench, ticking(bench):
        heard: list[bytes] = []

        async def hear(message: Any) -> None:
            heard.append(message.data)

        await bench.producer.subscribe(topology.control_subject("default", "images", "cancel"), hear)
        await begun(bench, "@every 10s", overlap="replace")
        await bench.pass_time(21)
        first, second = tasks(bench)
        record = bench.record(address_of("default", "images", "normal", first))  # type: ignore[arg-type]
        assert record is not None
        assert record.record.outcome is Outcome.CANCELLED
        assert len(heard) == 1
        assert first.encode() in heard[0]
        assert bench.record(address_of("default", "images", "normal", second)) is None  # type: ignore[arg-type]


@in_virtual_time
async def test_deleting_stops_it_even_while_a_worker_looks_at_it() -> None:
    for moment in range(0, 400, 23):
        async with at_noon() as bench, ticking(bench, delay=0.05):
            await begun(bench, "@every 1s", overlap="allow")
            await bench.pass_time(2 + moment / 1000)
            await client_of(bench).schedules.delete("images", "nightly")
            fired = len(tasks(bench))
            await bench.pass_time(30)
            # One whose tick had come when it was deleted may still be on its way.
            assert len(tasks(bench)) <= fired + 1
            with pytest.raises(ScheduleNotFound):
                await client_of(bench).schedules.get("images", "nightly")


@in_virtual_time
async def test_a_changed_schedule_replaces_what_was_planned() -> None:
    async with at_noon() as bench, ticking(bench):
        await begun(bench, "0 13 * * *")
        await bench.pass_time(60)
        changed = await begun(bench, "30 12 * * *")
        assert changed.repeat.cron == "30 12 * * *"
        await bench.pass_time(2 * 3600)
        assert tasks(bench) == [tick_id("nightly", NOON + timedelta(minutes=30))]


@in_virtual_time
async def test_the_same_schedule_made_again_is_left_as_it_is() -> None:
    async with at_noon() as bench, ticking(bench):
        await begun(bench, "@every 1m", overlap="allow")
        bench.mark()
        await client_of(bench).schedules.create("nightly", CALL, "@every 1m", overlap="allow")
        assert bench.seen("stored") == []
        await client_of(bench).schedules.create(
            "nightly", call("images", "resize", width=4), "@every 1m", overlap="allow"
        )
        assert bench.seen("stored", "schedule")  # by the client, and perhaps by the worker that looked at it


@in_virtual_time
async def test_a_suspended_schedule_fires_no_more_until_it_is_resumed() -> None:
    async with at_noon() as bench, ticking(bench):
        client = client_of(bench)
        await begun(bench, "@every 10s", overlap="allow", catch_up="all")
        await bench.pass_time(11)
        assert (await client.schedules.suspend("images", "nightly")).next_at is None
        await bench.pass_time(2)
        before = bench.seen("stored")
        await bench.pass_time(100)
        assert (len(tasks(bench)), bench.seen("stored")) == (1, before), "it costs nothing"
        # A program that makes its schedules when it starts does not undo that.
        assert (await client.schedules.create("nightly", CALL, "@every 20s", overlap="allow")).suspended
        await client.schedules.resume("images", "nightly")
        await bench.pass_time(15)
        assert tasks(bench)[1:] == [tick_id("nightly", NOON + timedelta(seconds=120))]


@in_virtual_time
async def test_what_a_suspended_schedule_missed_is_not_caught_up() -> None:
    async with at_noon() as bench, ticking(bench):
        client = client_of(bench)
        await begun(bench, "@every 10s", overlap="allow", catch_up="all")
        await bench.pass_time(11)
        await client.schedules.suspend("images", "nightly")
        await bench.pass_time(100)
        await client.schedules.resume("images", "nightly")
        await bench.pass_time(12)
        assert tasks(bench)[1:] == [tick_id("nightly", NOON + timedelta(seconds=120))]


@in_virtual_time
async def test_a_schedule_that_the_code_no_longer_has_goes() -> None:
    async with at_noon() as bench, ticking(bench):
        await begun(bench, "@every 10s", overlap="allow")
        kept = await stored.find(bench.producer, "default", "images", "nightly")
        assert kept is not None
        gone, place = replace(kept.schedule, gone=True), ("default", "images")
        assert await stored.replaced(bench.producer, place, gone, stored.AT_ONCE, instead_of=kept.sequence)
        await bench.pass_time(60)
        assert tasks(bench) == []
        assert bench.server.streams[topology.later_stream(*place)].messages == {}


@in_virtual_time
async def test_run_now_submits_once_for_each_token_whatever_the_policy() -> None:
    async with at_noon() as bench, ticking(bench):
        client = client_of(bench)
        await begun(bench, "0 3 * * *", suspended=True)
        first = await client.schedules.run_now("images", "nightly", "monday")
        again = await client.schedules.run_now("images", "nightly", "monday")
        other = await client.schedules.run_now("images", "nightly")
        assert first.id == again.id != other.id
        assert (first.existed, again.existed) == (False, True)
        assert bench.in_work == 2


@in_virtual_time
async def test_jitter_follows_from_the_id_and_stays_below_its_limit() -> None:
    async with at_noon() as bench, ticking(bench):
        await begun(bench, Repeat("@every 10m", jitter_seconds=300, overlap="allow"))  # type: ignore[arg-type]
        await bench.pass_time(3 * 3600)
        headers = [
            (each.subject.split(".")[-1], each.headers[topology.SCHEDULE])
            for each in bench.seen("stored", "schedule")
            if ".timer." not in each.subject
        ]
        late = []
        for task_id, at in headers:
            tick = int(task_id.rpartition("-")[2])
            late.append(datetime.fromisoformat(at.removeprefix("@at ")).timestamp() - tick)
        assert len(late) == 18
        assert all(0 <= each < 300 for each in late)
        assert len({round(each) for each in late}) > 9


@in_virtual_time
async def test_an_ended_schedule_stays_to_be_looked_at() -> None:
    async with at_noon() as bench, ticking(bench):
        await begun(bench, "@every 10s", overlap="allow", end=NOON + timedelta(seconds=25))
        await bench.pass_time(100)
        view = await client_of(bench).schedules.get("images", "nightly")
        assert (view.fired, view.next_at) == (2, None)


@in_virtual_time
async def test_what_is_no_schedule_is_dropped_and_an_error_costs_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with at_noon() as bench, ticking(bench):
        stream = bench.server.streams[topology.later_stream("default", "images")]
        bench.server._store(stream, topology.fired_subject("default", "images", "junk"), {}, b"{}")
        junk = topology.fired_subject("default", "images", "junk")
        await eventually(lambda: stream.last(junk) is None, within=5)
        real = Ledger.plan
        failing = [True]

        async def plan(self: Ledger, address: Any, *rest: Any) -> None:
            if failing and address.id.startswith("broken"):
                raise ZeroDivisionError
            await real(self, address, *rest)

        monkeypatch.setattr(Ledger, "plan", plan)
        await begun(bench, "@every 10s", "broken", overlap="allow", catch_up="one")
        await begun(bench, "@every 10s", "sound", overlap="allow")
        await bench.pass_time(11)
        assert tasks(bench) == [tick_id("sound", NOON + timedelta(seconds=10))]
        failing.clear()
        await bench.pass_time(60)
        assert sum(each.startswith("broken") for each in tasks(bench)) >= 2


@in_virtual_time
async def test_a_tick_that_cannot_be_stored_is_refused_and_the_next_one_is_tried() -> None:
    async with at_noon() as bench, ticking(bench):
        view = await begun(bench, "@every 10s", overlap="allow")
        kept = await stored.find(bench.producer, "default", "images", "nightly")
        assert kept is not None
        broken = replace(kept.schedule, task=Raw(b'{"handler":""}'))
        await stored.store(
            bench.producer, ("default", "images"), broken, view.next_at or NOON, instead_of=kept.sequence
        )
        await bench.pass_time(21)
        assert tasks(bench) == []
        later = await stored.find(bench.producer, "default", "images", "nightly")
        assert later is not None
        assert [tick.action for tick in later.schedule.progress.recent] == [Action.REFUSED] * 2


@in_virtual_time
async def test_without_room_a_tick_waits_until_there_is_some() -> None:
    async with at_noon() as bench, ticking(bench):
        await begun(bench, "@every 10s", overlap="allow", catch_up="one")
        definition = bench.server.streams[topology.later_stream("default", "images")].definition
        before, definition["max_bytes"] = definition["max_bytes"], 1500
        await bench.pass_time(31)
        assert tasks(bench) == []
        definition["max_bytes"] = before
        await eventually(lambda: tasks(bench), within=60)


@in_virtual_time
async def test_the_input_of_an_encrypted_queue_is_encrypted_in_the_schedule_and_in_each_task() -> None:
    async with a_bench() as bench:
        bench.server._began += NOON - bench.server.now()
        stream = bench.server.streams[topology.work_stream("default", "images")]
        stream.definition["metadata"][topology.ENCRYPTION_KEY] = topology.ENCRYPTED
        bench.producer.payloads = payloads()
        secret = call("images", "resize", card="4111")
        async with ticking(bench) as broker:
            broker.payloads = payloads()
            await client_of(bench).schedules.create("nightly", secret, "@every 10s", overlap="allow")
            await client_of(bench).schedules.create("nightly", secret, "@every 10s", overlap="allow")
            await bench.pass_time(21)
            stored_here = [each.body for each in bench.seen("stored")]
            assert not any(b"4111" in body for body in stored_here)
            (first, *_) = tasks(bench)
            address = address_of("default", "images", Lane.NORMAL, first)
            later = bench.server.streams[topology.later_stream("default", "images")]
            message = later.last(topology.due_subject(address))
            assert message is not None
            assert b"4111" in bytes((await broker.payloads.read_task(address, message.body)).input)
            handle = await client_of(bench).schedules.run_now("images", "nightly")
            assert handle.envelope is not None
            # Without the keys it is shown, and cannot be run.
            bench.producer.payloads = Payloads()
            assert (await client_of(bench).schedules.get("images", "nightly")).input is None
            with pytest.raises(DecryptionKeyMissing):
                await client_of(bench).schedules.run_now("images", "nightly")


@in_virtual_time
async def test_a_schedule_that_is_not_encrypted_fires_nothing_in_a_queue_that_has_to_be() -> None:
    async with at_noon() as bench, MemoryBroker(bench.server, "w1") as broker:
        broker.payloads = payloads()
        ticker = Ticker(broker, bench.layout, Ledger(broker), measures(), bench.server.now, plaintext=False)
        running = asyncio.create_task(ticker.run())
        view = await begun(bench, "@every 10s", overlap="allow")
        await bench.pass_time(11)
        view = await client_of(bench).schedules.get("images", "nightly")
        assert tasks(bench) == []
        assert [tick.action for tick in view.recent] == [Action.REFUSED]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_the_end_of_a_tick_is_kept_for_a_day_though_results_are_not() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        for schedule, kept in (("nightly", str(TICK_KEPT_SECONDS)), ("", str(KEEP_SECONDS))):
            address = await bench.submit(schedule=schedule)
            held = bench.held(await bench.take(worker))
            assert await worker.settler.settle(held, Succeed(Raw(b"1")))
            (*_, record) = bench.seen("stored", "result")
            assert record.subject == topology.record_subject(address)
            assert record.headers[topology.TTL] == kept


@in_virtual_time
async def test_an_input_above_256_kib_goes_with_the_schedule() -> None:
    async with at_noon() as bench, ticking(bench):
        large = call("images", "resize", width="3" * (INLINE_LIMIT + 1))
        assert large.large
        await client_of(bench).schedules.create("nightly", large, "@every 10s", overlap="allow")
        await bench.pass_time(11)
        assert tasks(bench) == [tick_id("nightly", NOON + timedelta(seconds=10))]
        task = bench.seen("stored", "schedule")[-2]
        assert bytes(large.input) in task.body


@in_virtual_time
async def test_an_input_that_is_too_large_for_a_schedule_is_refused() -> None:
    async with a_bench() as bench:
        large = call("images", "resize", width="3" * INPUT_LIMIT)
        for wrong, words in (
            (large, f"has an input of {len(large.input)} bytes of JSON; a schedule keeps {INPUT_LIMIT} "),
            (replace(CALL, files=(File(__file__),)), "has files; a schedule keeps"),
            (CALL.options(task_id="mine"), "an id of its own"),
            (CALL.options(deadline=NOON + timedelta(days=900)), "a time of its own"),
        ):
            with pytest.raises(ScheduleInvalid, match=words):
                await client_of(bench).schedules.create("nightly", wrong, "@daily")
        for queue, lane, error in (
            ("nowhere", None, QueueNotFound),
            ("images", Lane.CRITICAL, LaneNotEnabled),
        ):
            with pytest.raises(error):
                await client_of(bench).schedules.create(
                    "nightly", replace(CALL, queue=queue, lane=lane), "@daily"
                )
        for name in ("", "a.b", "x" * 49, "-a", "ä"):
            with pytest.raises(ScheduleInvalid):
                await client_of(bench).schedules.get("images", name)


@in_virtual_time
async def test_metrics_tell_what_fired_what_did_not_and_how_late() -> None:
    counted = measures()
    async with at_noon() as bench, ticking(bench, counted=counted):
        await begun(bench, "@every 10s")
        await bench.pass_time(31)
        text = counted.text().decode()
        labels = 'namespace="default",queue="images",schedule="nightly"'
        assert f'galley_schedule_ticks_total{{action="Fired",{labels}}} 1.0' in text
        assert f'galley_schedule_ticks_total{{action="Skipped",{labels}}} 2.0' in text
        assert f"galley_schedule_late_seconds{{{labels}}} 0.0" in text


@pytest.mark.parametrize("seed", range(6))
@in_virtual_time
async def test_each_tick_runs_exactly_once_under_restarts_double_fires_and_two_workers(seed: int) -> None:
    chance = random.Random(seed)
    async with at_noon() as bench:
        timer = topology.later_stream("default", "images")

        async def unruly(name: str) -> None:
            """A worker that is killed again and again, and whose line loses and delays messages."""
            while True:
                async with MemoryBroker(bench.server, name, lambda: chance.random() * 0.2) as broker:
                    skewed = partial(_skewed, bench, chance.choice((-7200, 0, 0, 7200)))
                    ticker = Ticker(broker, bench.layout, Ledger(broker), measures(), skewed)
                    broker.line.lose(
                        to_server=lambda _subject: chance.random() < 0.03,
                        to_client=lambda _subject: chance.random() < 0.03,
                    )
                    running = asyncio.create_task(ticker.run())
                    await asyncio.sleep(chance.expovariate(1 / 40))
                    running.cancel()
                    if chance.random() < 0.5:
                        broker.line.lose(to_server=lambda _subject: True)  # killed: nothing is given back
                    await asyncio.gather(running, return_exceptions=True)

        async def double_fires() -> None:
            """Deliver what a server may deliver twice: copies of a schedule that is due."""
            while True:
                await asyncio.sleep(chance.expovariate(1 / 30))
                stream = bench.server.streams[timer]
                subject = topology.fired_subject("default", "images", "nightly")
                if (message := stream.last(subject)) is not None:
                    bench.server._store(stream, subject, {}, message.body)

        async with ticking(bench, "first"):
            await begun(bench, "@every 20s", overlap="allow", catch_up="all", catch_up_limit=1000)
        for name in ("a", "b"):
            bench.start(unruly(name))
        bench.start(double_fires())
        await bench.pass_time(1800)
        for each in bench.started:
            each.cancel()
        async with ticking(bench, "last"):
            await bench.pass_time(200)
        ran = Counter(each for each in tasks(bench))
        last = max(int(each.rpartition("-")[2]) for each in ran)
        expected = [f"nightly-{second}" for second in range(int(NOON.timestamp()) + 20, last + 1, 20)]
        assert last >= NOON.timestamp() + 1800
        assert sorted(ran) == expected, "none is missing"
        assert set(_stored_at_once(bench)) == {1}, "no tick has two tasks at one time"


def _skewed(bench: Bench, seconds: int) -> datetime:
    return bench.server.now() + timedelta(seconds=seconds)


def _stored_at_once(bench: Bench) -> list[int]:
    """Return how many messages each tick's task has: they are all still there, since nothing runs them."""
    stream = bench.server.streams[topology.later_stream("default", "images")]
    ids = Counter(
        message.subject.split(".")[-1]
        for message in stream.messages.values()
        if ".timer." not in message.subject
    )
    return list(ids.values())


def test_a_schedule_of_a_later_version_or_with_wrong_values_is_none() -> None:
    schedule = Schedule("nightly", Repeat("@daily"), Raw(b"{}"), "resize")
    assert decode(encode(schedule)) == schedule
    wrong = encode(schedule).replace(b"@daily", b"@never")
    for body in (b"", b"{}", b"\xff", encode(replace(schedule, v=2)), wrong):
        with pytest.raises(EnvelopeInvalid):
            decode(body)


def next_tick(view: ScheduleView) -> str:
    assert view.next_at is not None
    return tick_id(view.name, view.next_at)


@in_virtual_time
async def test_the_id_of_a_tick_to_come_is_refused_to_others_and_free_again_afterwards() -> None:
    async with a_bench() as bench, ticking(bench):
        taken = next_tick(await begun(bench, "@every 5m"))
        client = client_of(bench)
        with pytest.raises(IdReserved, match="belongs to a tick of schedule 'nightly'"):
            await client.submit(CALL, task_id=taken)
        with pytest.raises(SomeRefused):
            await client.submit_many([CALL.options(task_id=taken)])
        await client.submit(CALL, task_id="daily-1772366400")  # of no schedule
        await client.submit(CALL, task_id="nightly-17723664000")  # of no tick
        await eventually(lambda: taken in tasks(bench), within=400)
        # Its task waits: another of the id would run in its place.
        address = address_of("default", "images", Lane.NORMAL, taken)
        assert await reserved_for(bench.producer, address) == "nightly"
        ended(bench, taken)
        assert await reserved_for(bench.producer, address) == ""


@in_virtual_time
async def test_what_has_the_id_of_a_tick_stays_while_dead_letters_have_no_room() -> None:
    async with a_bench() as bench, ticking(bench), bench.worker() as worker:
        address = address_of("default", "images", Lane.NORMAL, next_tick(await begun(bench, "@every 5m")))
        forged = encode_task(an_envelope("forged", schedule="nightly"))
        await (await bench.producer.pipeline.send(topology.task_subject(address), forged))
        letters = bench.server.streams[topology.dead_stream(address.namespace, address.queue)]
        letters.definition |= {"discard": "new", "max_bytes": 1}
        assert await worker.settler.refused_id(await bench.take(worker))
        assert (bench.in_work, bench.letters(address)) == (1, 0)
        letters.definition["max_bytes"] = -1
        assert await worker.settler.refused_id(await bench.take(worker))
        await eventually(lambda: bench.in_work == 0, within=60)
        assert bench.letters(address) == 1


@pytest.mark.parametrize("planned", [False, True])
@in_virtual_time
async def test_what_a_producer_writes_under_the_id_of_a_tick_does_not_stand_in_its_way(planned: bool) -> None:
    async with a_bench() as bench, ticking(bench), bench.worker() as worker:
        taken = next_tick(await begun(bench, "@every 5m"))
        address = address_of("default", "images", Lane.NORMAL, taken)
        soon = bench.server.now() + timedelta(minutes=5) if planned else None
        forged = encode_task(an_envelope("forged", not_before=soon, schedule="nightly"))
        subject = topology.plan_subject(address) if planned else topology.task_subject(address)
        await (await bench.producer.pipeline.send(subject, forged))
        if planned:
            planner = Planner(worker.broker, bench.layout, worker.ledger, worker.settler, bench.server.now)
            running = bench.start(planner.run())
            await eventually(lambda: bench.in_work == 0, within=60)
            running.cancel()
        else:
            assert await worker.settler.refused_id(await bench.take(worker))
            await eventually(lambda: bench.in_work == 0, within=60)
        assert bench.record(address) is None
        assert bench.letters(address) == 1
        assert tasks(bench) == []
        await eventually(lambda: taken in tasks(bench), within=400)
        delivery = await bench.take_any(worker)
        assert (delivery.address.id, decode_task(delivery.body).handler) == (taken, "resize")
