"""Results that are used again, over a server in memory: for exactly as long as asked, and each once."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec import Raw

from galley.address import Kind, TaskAddress
from galley.broker.cached_tasks import publish_cached
from galley.broker.publish import Publisher, Receipt
from galley.cached import Cached, Entry, entry_of
from galley.calls import Call, call
from galley.envelope import Envelope, digest_of
from galley.errors import TaskConflict
from galley.lanes import Lane
from galley.record import Failure, Outcome, Record, State
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

HOUR = 3600.0
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
REPORT = call("images", "report", month="may")
MOMENTS = [NOON + timedelta(seconds=n) for n in range(0, 3600, 450)]
"""Beginnings all over a period, wherever that begins."""


async def submit(bench: Bench, at: datetime, work: Call[object] = REPORT, seconds: float = HOUR) -> Receipt:
    """Submit as a client does at some time of day."""
    entry = entry_of(work, Cached(seconds), at)
    address = TaskAddress("default", "images", Lane.NORMAL, Kind.DIRECT, entry.id)
    digest = digest_of(work.handler, work.input)
    envelope = Envelope(work.handler, at, input=work.input, digest=digest)
    return await publish_cached(bench.producer, Publisher(bench.producer), address, envelope, entry)


def end(bench: Bench, receipt: Receipt, at: datetime, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    failure = Failure("Broken", "it broke") if outcome is Outcome.FAILED else None
    record = Record(
        State.DONE, 1, handler="report", submitted_at=at, outcome=outcome, failure=failure, result=Raw(b"1")
    )
    bench.put(receipt.address, record)


@pytest.mark.parametrize("begun", MOMENTS)
@in_virtual_time
async def test_a_result_counts_for_exactly_as_long_as_asked_whenever_it_was_made(begun: datetime) -> None:
    async with a_bench() as bench:
        first = await submit(bench, begun)
        assert not first.duplicate
        end(bench, first, begun)
        for after in (1, 1800, 3599):
            again = await submit(bench, begun + timedelta(seconds=after))
            assert (again.duplicate, again.address.id) == (True, first.address.id), after
        later = begun + timedelta(seconds=3601)
        second = await submit(bench, later)
        assert (second.duplicate, second.address.id != first.address.id) == (False, True)
        end(bench, second, later)
        assert (await submit(bench, later + timedelta(seconds=3599))).address.id == second.address.id


@pytest.mark.parametrize("begun", MOMENTS[::3])
@in_virtual_time
async def test_what_waits_or_runs_is_not_run_beside_itself_in_the_next_period(begun: datetime) -> None:
    async with a_bench() as bench:
        first = await submit(bench, begun)
        assert (await submit(bench, begun + timedelta(seconds=3500))).address.id == first.address.id
        assert bench.in_work == 1


@in_virtual_time
async def test_a_failure_is_not_kept_in_the_period_after_it_either() -> None:
    async with a_bench() as bench:
        for begun in MOMENTS:
            work = call("images", "report", month=begun.isoformat())
            first = await submit(bench, begun, work)
            end(bench, first, begun, Outcome.FAILED)
            at = begun + timedelta(seconds=1000)
            second = await submit(bench, at, work)
            assert second.address.id != first.address.id
            end(bench, second, at)
            third = await submit(bench, at + timedelta(seconds=3000), work)
            assert third.address.id == second.address.id


@in_virtual_time
async def test_an_entry_that_was_forged_for_other_work_is_a_conflict() -> None:
    async with a_bench() as bench:
        entry = entry_of(REPORT, Cached(HOUR), NOON)
        forged = TaskAddress("default", "images", Lane.NORMAL, Kind.DIRECT, entry.before)
        outcome = Outcome.SUCCEEDED
        bench.put(forged, Record(State.DONE, 1, handler="other", submitted_at=NOON, outcome=outcome))
        with pytest.raises(TaskConflict, match="other"):
            await submit(bench, NOON)


def test_queues_versions_and_inputs_have_entries_of_their_own() -> None:
    def of(work: Call[object], version: str = "") -> Entry:
        return entry_of(work, Cached(HOUR, version), NOON)

    entries = [
        of(REPORT),
        of(REPORT, "2"),
        of(call("texts", "report", month="may")),
        of(call("images", "other", month="may")),
        of(call("images", "report", month="june")),
    ]
    ids = [each for entry in entries for each in (entry.id, entry.before)]
    assert len(set(ids)) == len(ids)
