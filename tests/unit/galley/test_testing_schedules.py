"""Schedules of the clients for users' tests follow the rules of workers, by the client's clock."""

from datetime import timedelta
from typing import Any

import pytest

from galley import RetryAfter, RetryPolicy, ScheduleInvalid, ScheduleNotFound, call, task
from galley.schedule import Action
from galley.testing import START, AsyncEagerClient, EagerClient

ran: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    ran.clear()


@task(queue="reports")
def report(kind: str) -> str:
    ran.append(kind)
    return kind


@task(queue="reports", retry=RetryPolicy(attempts=100))
def stuck() -> None:
    raise RetryAfter(90)


def test_ticks_fire_as_the_clock_moves_once_each() -> None:
    client = EagerClient()
    made = client.schedules.create("nightly", report.call("mail"), "0 3 * * *", time_zone="Europe/Berlin")
    assert made.next_at == START + timedelta(hours=2)
    client.advance(2 * 3600 - 1)
    assert ran == []
    client.advance(1)
    assert ran == ["mail"]
    client.advance(2 * 24 * 3600)
    assert ran == ["mail"] * 3
    seen = client.schedules.get("reports", "nightly")
    assert (seen.fired, seen.skipped, [tick.action for tick in seen.recent]) == (3, 0, [Action.FIRED] * 3)
    task_of_tick = client.handle("reports", seen.last_id)
    assert task_of_tick.result() == "mail"
    assert client.schedules.list("reports") == [seen]


def test_a_suspended_schedule_fires_no_more_until_it_is_resumed() -> None:
    client = EagerClient()
    client.schedules.create("often", report.call("x"), "@every 10s")
    assert client.schedules.suspend("reports", "often").next_at is None
    client.advance(60)
    assert ran == []
    assert client.schedules.resume("reports", "often").next_at == START + timedelta(seconds=70)
    client.advance(10)
    assert ran == ["x"]
    client.schedules.delete("reports", "often")
    client.advance(60)
    assert ran == ["x"]
    with pytest.raises(ScheduleNotFound):
        client.schedules.get("reports", "often")


@pytest.mark.parametrize(
    ("overlap", "fired", "skipped", "cancelled"),
    [("skip", 1, 3, 0), ("allow", 4, 0, 0), ("replace", 4, 0, 3)],
)
def test_overlap_is_as_workers_have_it(overlap: str, fired: int, skipped: int, cancelled: int) -> None:
    client = EagerClient()
    client.schedules.create("busy", call("reports", "stuck"), "@every 1m", overlap=overlap)
    client.advance(240)
    seen = client.schedules.get("reports", "busy")
    assert (seen.fired, seen.skipped) == (fired, skipped)
    ended = [status for status in client.tasks("reports") if status.phase == "Cancelled"]
    assert len(ended) == cancelled


def test_a_changed_schedule_forgets_its_ticks_and_the_same_one_is_left_as_it_is() -> None:
    client = EagerClient()
    first = client.schedules.create("often", report.call("a"), "@every 1m")
    assert client.schedules.create("often", report.call("a"), "@every 1m") == first
    client.schedules.create("often", report.call("b"), "@every 1m", suspended=True)
    client.schedules.create("often", report.call("b"), "@every 2m", suspended=False)
    client.advance(120)
    assert ran == ["b"]


def test_run_now_runs_beside_the_ticks_and_a_token_runs_once() -> None:
    client = EagerClient()
    client.schedules.create("nightly", report.call("mail"), "@daily", suspended=True)
    assert client.schedules.run_now("reports", "nightly").result() == "mail"
    first = client.schedules.run_now("reports", "nightly", "ticket-7")
    again = client.schedules.run_now("reports", "nightly", "ticket-7")
    assert (first.id, again.existed) == (again.id, True)
    assert ran == ["mail", "mail"]


@pytest.mark.parametrize(
    ("made", "rules"),
    [
        (report.call("x"), {"cron": "0 0 30 2 *"}),
        (report.call("x"), {"cron": "@daily", "time_zone": "Mars/Base"}),
        (report.call("x").options(task_id="own"), {"cron": "@daily"}),
        (report.call("x").options(not_before=START), {"cron": "@daily"}),
    ],
)
def test_what_the_real_client_refuses_is_refused(made: Any, rules: dict[str, Any]) -> None:
    with pytest.raises(ScheduleInvalid):
        EagerClient().schedules.create("name", made, **rules)


@pytest.mark.parametrize("name", [3, None, b"name", ["name"], "", "a b"])
def test_what_is_no_name_of_a_schedule_is_refused(name: Any) -> None:
    with pytest.raises(ScheduleInvalid, match="cannot be the name of a schedule"):
        EagerClient().schedules.create(name, report.call("x"), "@daily")


async def test_the_async_client_has_the_same() -> None:
    client = AsyncEagerClient()
    await client.schedules.create("often", report.call("a"), "@every 1m", jitter_seconds=30)
    await client.advance(91)
    assert ran == ["a"]
    assert (await client.schedules.suspend("reports", "often")).suspended
    assert not (await client.schedules.resume("reports", "often")).suspended
    assert len(await client.schedules.list("reports")) == 1
    assert (await client.schedules.get("reports", "often")).fired == 1
    handle = await client.schedules.run_now("reports", "often")
    assert await handle.result() == "a"
    await client.schedules.delete("reports", "often")
    assert await client.schedules.list("reports") == []


def test_more_jitter_than_period_leaves_ticks_out_unless_they_may_overlap() -> None:
    client = EagerClient()
    for overlap in ("skip", "allow"):
        client.schedules.create(
            overlap, report.call(overlap), "@every 1m", jitter_seconds=1800, overlap=overlap
        )
    client.advance(3600)
    skip, allow = (client.schedules.get("reports", name) for name in ("skip", "allow"))
    assert (skip.skipped > 30, allow.fired, allow.skipped) == (True, 60, 0)
    client.advance(1800)
    assert ran.count("allow") >= 60, "each starts, though later"
    assert 0 < ran.count("skip") < 30


def test_run_now_runs_a_suspended_schedule_and_leaves_it_suspended() -> None:
    client = EagerClient()
    client.schedules.create("often", report.call("x"), "@every 1h", suspended=True)
    assert client.schedules.run_now("reports", "often").result() == "x"
    seen = client.schedules.get("reports", "often")
    assert (seen.suspended, seen.next_at, ran) == (True, None, ["x"])
    client.advance(3 * 24 * 3600)
    assert ran == ["x"], "and what passed meanwhile is not caught up with"
    client.schedules.resume("reports", "often")
    assert ran == ["x"]
