"""Selecting tasks, and doing something to many of them."""

from datetime import UTC, datetime, timedelta

import pytest

from galley.broker.cancel import Cancelled
from galley.broker.errors import BrokerUnreachable
from galley.errors import CancelIncomplete, SelectorInvalid, TaskNotFound
from galley.handle import AsyncHandle
from galley.queues import AsyncQueues, TaskSelection
from galley.task_status import Phase, TaskStatus
from tests.support.builders import an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TASKS = [
    TaskStatus(an_address(id="old"), Phase.QUEUED, "resize", submitted_at=NOW - timedelta(hours=3)),
    TaskStatus(
        an_address(id="new"), Phase.RUNNING, "blur", submitted_at=NOW - timedelta(minutes=1),
        labels={"team": "a"},
    ),
    TaskStatus(an_address(id="unknown"), Phase.QUEUED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("which", "ids"),
    [
        (TaskSelection(), ["old", "new", "unknown"]),
        (TaskSelection(phases=(Phase.QUEUED,)), ["old", "unknown"]),
        (TaskSelection(phases=()), []),
        (TaskSelection(handler="blur"), ["new"]),
        (TaskSelection(labels="team=a"), ["new"]),
        (TaskSelection(labels="team!=a"), ["old", "unknown"]),
        (TaskSelection(older_than=timedelta(hours=3)), ["old"]),
        (TaskSelection(younger_than=timedelta(hours=3)), ["new"]),
        (TaskSelection(older_than=timedelta(hours=1), handler="blur"), []),
    ],
)
def test_each_rule_admits_what_fits_it(which: TaskSelection, ids: list[str]) -> None:
    assert [status.address.id for status in which.of(TASKS, NOW)] == ids


def test_a_selection_by_no_selector_is_refused() -> None:
    with pytest.raises(SelectorInvalid):
        TaskSelection(labels="a b")


@in_virtual_time
async def test_what_cannot_be_cancelled_is_told_with_those_that_were(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: dict[str, Cancelled | Exception | None] = {
        "old": Cancelled.BEFORE_START,
        "new": BrokerUnreachable("nats://x", "away"),
        "unknown": None,
    }

    async def cancel(handle: AsyncHandle[object]) -> Cancelled:
        outcome = outcomes[handle.id]
        if outcome is None:
            raise TaskNotFound("images", handle.id)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(AsyncHandle, "cancel_unnoted", cancel)
    async with a_bench() as bench:
        queues = AsyncQueues(bench.producer, "default")
        with pytest.raises(CancelIncomplete) as incomplete:
            await queues.cancel_these("images", TASKS)
        assert (incomplete.value.cancelled, incomplete.value.left) == (["old"], 2)
        outcomes["new"] = Cancelled.TOO_LATE
        assert [status.address.id for status in await queues.cancel_these("images", TASKS)] == ["old"]


@in_virtual_time
async def test_a_paused_queue_hands_out_nothing_and_says_so() -> None:
    async with a_bench() as bench, bench.worker() as worker:
        queues = AsyncQueues(bench.producer, "default")
        await queues.pause("images")
        await bench.submit()
        view = await queues.get("images")
        assert (view.paused, view.held) == (True, 1)
        taking = bench.start(bench.take(worker))
        await bench.pass_time(60)
        assert not taking.done()
        await queues.resume("images")
        delivery = await taking
        assert delivery.delivered == 1
        assert not (await queues.get("images")).paused
