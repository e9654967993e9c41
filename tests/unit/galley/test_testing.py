"""Clients for users' tests follow the rules of the real ones, without a broker."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest

import galley
from galley import (
    InputInvalid,
    NonRetryable,
    Phase,
    ResultTimeout,
    RetryAfter,
    RetryPolicy,
    Snooze,
    SomeRefused,
    TaskCancelled,
    TaskConflict,
    TaskFailed,
    TaskNotFound,
    When,
    call,
    current_task,
    task,
)
from galley.testing import START, AsyncEagerClient, EagerClient


@dataclass
class Stay:
    day: date
    nights: int


ran: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    ran.clear()
    yield
    assert current_task() is None


@task(queue="trips")
def leave(stay: Stay) -> date:
    return stay.day + timedelta(days=stay.nights)


@task(queue="trips")
def nested(stays: list[Stay]) -> Any:
    raise KeyError("no such stay")


@task(queue="trips", retry=RetryPolicy(attempts=3, backoff_seconds=10))
def flaky(times: int) -> int:
    now = current_task()
    assert now is not None
    ran.append((now.attempt, now.last_error))
    if now.attempt <= times:
        raise RetryAfter(60) if times == 1 else OSError("the disk is green")
    return now.attempt


@task(queue="trips")
def never() -> None:
    raise NonRetryable("a bad address")


@task(queue="trips")
def snoozing() -> str:
    ran.append("x")
    if len(ran) < 3:
        raise Snooze(30, "not ready")
    return "ready"


@task(queue="trips")
def private() -> object:
    return object()


@task(queue="trips")
async def aecho(value: str) -> list[str]:
    await asyncio.sleep(0)
    now = current_task()
    return [value, now.handler if now else ""]


@task(queue="trips")
def waits_in_a_loop() -> int:
    return asyncio.run(asyncio.sleep(0, 7))


def test_types_travel_as_they_do_through_a_broker() -> None:
    client = EagerClient()
    handle = client.submit(leave.call(stay=Stay(date(2026, 2, 28), 2)))
    assert handle.result() == date(2026, 3, 2)
    assert client.input(handle) == {"stay": {"day": "2026-02-28", "nights": 2}}
    assert handle.wait().phase is Phase.SUCCEEDED
    with pytest.raises(InputInvalid):
        leave.call(stay="tomorrow")  # type: ignore[arg-type]
    with pytest.raises(TaskFailed, match="InputInvalid"):
        client.submit(call("trips", "leave", stay={"day": 1})).result()
    with pytest.raises(TaskFailed, match="HandlerNotFound"):
        client.submit(call("trips", "unknown")).result()


def test_retries_follow_the_policy_by_a_clock_of_their_own() -> None:
    client = EagerClient()
    handle = client.submit(flaky.call(times=2))
    assert (handle.status().phase, handle.status().due_at) == (Phase.RETRYING, START + timedelta(seconds=10))
    assert handle.result() == 3
    assert client.now == START + timedelta(seconds=30)
    assert [attempt for attempt, _ in ran] == [1, 2, 3]
    assert ran[2][1] == "HandlerRaised: OSError: the disk is green"
    with pytest.raises(TaskFailed, match="the disk is green") as failed:
        client.submit(flaky.call(times=9)).result()
    assert isinstance(failed.value.__cause__, OSError)
    assert len(client.tasks("trips", Phase.FAILED)) == 1


def test_a_handler_chooses_the_next_start() -> None:
    client = EagerClient()
    handle = client.submit(flaky.call(times=1))
    assert handle.status().due_at == START + timedelta(seconds=60)
    assert handle.result() == 2
    ran.clear()
    asleep = client.submit(snoozing.call())
    with pytest.raises(ResultTimeout):
        asleep.result(within=29)
    client.advance(30)
    assert len(ran) == 2
    assert asleep.result() == "ready"
    assert asleep.status().history.errors == 0
    with pytest.raises(TaskFailed, match="a bad address"):
        client.submit(never.call()).result()


def test_a_start_in_the_future_a_deadline_and_a_cancel() -> None:
    client = EagerClient()
    later = client.submit(aecho.call(value="a").options(not_before=START + timedelta(hours=1)))
    gone = client.submit(aecho.call(value="b").options(not_before=START + timedelta(hours=1)))
    assert later.status().phase is Phase.SCHEDULED
    gone.cancel()
    client.advance(3600)
    assert later.result() == ["a", "aecho"]
    with pytest.raises(TaskCancelled):
        gone.result()
    late = client.submit(snoozing.call(), When(deadline=client.now + timedelta(seconds=10)))
    with pytest.raises(TaskFailed, match="DeadlineExceeded"):
        late.result()


def test_ids_of_ones_own_are_one_task_or_a_conflict() -> None:
    client = EagerClient()
    first = client.submit(aecho.call(value="a"), task_id="k1")
    again = client.submit(aecho.call(value="a").options(task_id="k1"))
    assert (first.existed, again.existed, again.result()) == (False, True, ["a", "aecho"])
    with pytest.raises(SomeRefused) as some:
        client.submit_many([aecho.call(value="b").options(task_id="k1"), aecho.call(value="c")])
    assert isinstance(some.value.refused[0], TaskConflict)
    assert some.value.submitted[1].result() == ["c", "aecho"]
    with pytest.raises(TaskNotFound):
        client.handle("trips", "other").status()


def test_tasks_may_wait_until_they_are_asked_for() -> None:
    client = EagerClient(run=False)
    handles = client.submit_many(
        aecho.call(value=value).options(lane=lane) for value, lane in (("a", "low"), ("b", "high"))
    )
    assert [status.phase for status in client.tasks("trips")] == [Phase.QUEUED] * 2
    assert [handle.result() for handle in client.as_completed(handles)] == [["a", "aecho"], ["b", "aecho"]]


def test_a_result_that_is_no_json_fails_the_task() -> None:
    with pytest.raises(TaskFailed, match="unsupported"):
        EagerClient().submit(private.call()).result()


async def test_coroutines_use_a_client_of_their_own() -> None:
    async with AsyncEagerClient() as client:
        handles = await client.submit_many(
            [aecho.call(value="a"), waits_in_a_loop.call(), flaky.call(times=2)]
        )
        assert [await handle.result() async for handle in client.as_completed(handles)] == [
            ["a", "aecho"],
            7,
            3,
        ]
        assert (await handles[0].status()).phase is Phase.SUCCEEDED
    in_a_loop = EagerClient()
    assert in_a_loop.submit(aecho.call(value="b")).result() == ["b", "aecho"]


@pytest.mark.parametrize(
    ("real", "eager"),
    [
        (galley.Client, EagerClient),
        (galley.AsyncClient, AsyncEagerClient),
        (galley.Handle, galley.testing.EagerHandle),
        (galley.AsyncHandle, galley.testing.AsyncEagerHandle),
    ],
)
def test_a_client_for_tests_has_every_method_of_the_real_one(real: type, eager: type) -> None:
    def methods(kind: type) -> set[str]:
        return {name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}

    inner = {"over", "cancel_unnoted"}
    assert methods(real) - inner <= methods(eager)


@galley.task(queue="trips")
def saves(times: int) -> list[int]:
    me = galley.current_task()
    assert me is not None
    done = [*(me.last_checkpoint or []), me.attempt]
    me.checkpoint(done)
    me.progress(me.attempt / times, "on its way")
    if me.attempt < times:
        raise ValueError("not yet")
    return done


def test_checkpoints_go_to_the_next_attempt_and_progress_is_shown() -> None:
    client = EagerClient(retry=RetryPolicy(attempts=3))
    handle = client.submit(saves.call(times=3))
    assert handle.result() == [1, 2, 3]
    progress = handle.progress()
    assert progress is not None
    assert str(progress) == "100% on its way"
    assert list(handle.follow_logs()) == client.logs("trips", handle.id) == []


async def test_the_asynchronous_client_has_them_too() -> None:
    async with AsyncEagerClient() as client:
        handle = await client.submit(saves.call(times=1))
        assert await handle.result() == [1]
        assert await handle.progress() is not None
        assert [line async for line in handle.follow_logs()] == await client.logs("trips", handle.id)


def test_what_has_ended_cannot_report() -> None:
    kept: list[galley.CurrentTask] = []

    @galley.task(queue="trips", name="keeps")
    def keeps() -> None:
        me = galley.current_task()
        assert me is not None
        kept.append(me)

    EagerClient().submit(keeps.call()).result()
    with pytest.raises(galley.AttemptOver):
        kept[0].progress(1)
    with pytest.raises(galley.AttemptOver):
        kept[0].checkpoint(1)


def test_unique_keys_follow_the_rules_of_a_queue() -> None:
    client = EagerClient(run=False)
    rules = galley.Unique(key="k", until="started", on_conflict="replace")
    first = client.submit(galley.call("keys", "nothing_here"), unique=rules)
    second = client.submit(galley.call("keys", "nothing_here", n=2), unique=rules)
    with pytest.raises(galley.TaskCancelled, match=f"task {second.id} of the same unique key"):
        first.result()
    with pytest.raises(galley.UniqueConflict, match=second.id):
        client.submit(galley.call("keys", "nothing_here"), unique="k")
    again = client.submit(
        galley.call("keys", "nothing_here"), unique=galley.Unique(key="k", on_conflict="existing")
    )
    assert (again.id, again.existed) == (second.id, True)
    client.advance(1)
    assert not client.submit(galley.call("keys", "nothing_here"), unique="k").existed
    with pytest.raises(galley.SubmissionInvalid, match="id of your own"):
        client.submit(galley.call("keys", "nothing_here"), unique="k", task_id="mine")


def test_a_period_of_a_unique_key_ends_by_the_clients_clock() -> None:
    client = EagerClient()
    rules = galley.Unique(key="k", until=60)
    client.submit(galley.call("keys", "nothing_here"), unique=rules)
    with pytest.raises(galley.UniqueConflict, match="has begun"):
        client.submit(galley.call("keys", "nothing_here"), unique=rules)
    client.advance(61)
    client.submit(galley.call("keys", "nothing_here"), unique=rules)


@galley.task(queue="discarding", store_result=False)
def discarding() -> object:
    """Return what could not even be encoded."""
    return object()


def test_a_result_that_is_not_stored_is_none() -> None:
    assert EagerClient().submit(discarding.call()).result() is None


def test_a_dead_task_is_found_edited_and_redriven_as_on_a_queue() -> None:
    client = EagerClient()
    handle = client.submit(galley.call("keys", "nothing_here", n=1))
    client.submit(galley.call("keys", "nothing_here", n=2))
    [dead, other] = client.dead_letters.find("keys")
    assert (dead.id, dead.reason, bytes(dead.input or b"")) == (handle.id, "HandlerNotFound", b'{"n":1}')
    assert client.dead_letters.find("keys", galley.Selection(reason="Boom")) == []
    edited = client.dead_letters.edit("keys", handle.id, input={"n": 3}, handler="still_nothing")
    assert (edited.handler, bytes(edited.input or b"")) == ("still_nothing", b'{"n":3}')
    assert client.dead_letters.redrive("keys", handle.id) is galley.Redriven.QUEUED
    with pytest.raises(galley.TaskFailed, match="still_nothing"):
        handle.result()
    for would in (client.dead_letters.redrive_all, client.dead_letters.drop_all):
        assert [each.id for each in would("keys", dry_run=True)] == [handle.id, other.id]
    assert [each.id for each in client.dead_letters.redrive_all("keys", rate=1)] == [handle.id, other.id]
    client.dead_letters.drop("keys", handle.id)
    with pytest.raises(galley.DeadLetterNotFound):
        client.dead_letters.get("keys", handle.id)
    assert [each.id for each in client.dead_letters.drop_all("keys")] == [other.id]
    assert client.dead_letters.find("keys") == []


async def test_an_asynchronous_client_for_tests_has_dead_letters_too() -> None:
    client = AsyncEagerClient()
    handle = await client.submit(galley.call("keys", "nothing_here"))
    assert [dead.id for dead in await client.dead_letters.find("keys")] == [handle.id]
    await client.dead_letters.edit("keys", handle.id, input={})
    await client.dead_letters.redrive("keys", handle.id)
    with pytest.raises(galley.TaskFailed):
        await handle.result()
    assert len(await client.dead_letters.redrive_all("keys")) == 1
    await client.advance(1)
    assert (await client.dead_letters.get("keys", handle.id)).reason == "HandlerNotFound"
    await client.dead_letters.drop("keys", handle.id)
    assert await client.dead_letters.drop_all("keys") == []


RUNS: list[int] = []


@galley.task(queue="caching", cache=3600, version="2", retry=galley.RetryPolicy(attempts=1))
def expensive(value: int) -> int:
    """Fail the first time with 13."""
    RUNS.append(value)
    if value == 13 and RUNS.count(13) == 1:
        raise ValueError(value)
    return value * 2


def test_a_cached_result_is_used_again_for_its_time_and_a_failure_is_not() -> None:
    RUNS.clear()
    client = EagerClient()
    first, second = client.submit(expensive.call(1)), client.submit(expensive.call(1))
    assert (first.existed, second.existed, second.result()) == (False, True, 2)
    assert client.submit(expensive.call(2)).result() == 4
    assert RUNS == [1, 2]
    client.advance(3599)
    assert client.submit(expensive.call(1)).existed, "whenever its period began"
    client.advance(2)
    assert client.submit(expensive.call(1)).result() == 2
    assert RUNS == [1, 2, 1]
    with pytest.raises(galley.TaskFailed):
        client.submit(expensive.call(13)).result()
    assert client.submit(expensive.call(13)).result() == 26


@pytest.mark.parametrize(("cache", "version"), [(0, ""), (1e9, ""), (True, ""), (None, "1")])
def test_cache_rules_that_cannot_be_are_refused(cache: float | None, version: str) -> None:
    with pytest.raises(galley.SubmissionInvalid, match=r"cache|version"):
        galley.task(queue="caching", name="wrong", cache=cache, version=version)(lambda: None)


@task(queue="test-testing")
def goes_on(n: int) -> int:
    onward: int = galley.then(goes_on.map(range(n)))
    return onward


def test_a_workflow_is_refused_with_the_advice_to_use_a_real_worker() -> None:
    client = EagerClient()
    workflow: Any = galley.chain(goes_on.call(1))
    for submit in (client.submit, lambda given: client.schedules.create("nightly", given, "0 3 * * *")):
        with pytest.raises(galley.SubmissionInvalid, match="workflow") as refused:
            submit(workflow)
        assert "galley_queue" in refused.value.hint
    with pytest.raises(SomeRefused, match="workflow"):
        client.submit_many([workflow])


def test_a_handler_that_goes_on_with_a_workflow_fails_at_once_and_says_why() -> None:
    handle = EagerClient().submit(goes_on.call(1), When(retry=RetryPolicy(attempts=5)))
    with pytest.raises(TaskFailed, match=r"NonRetryable.*galley\.then.*galley_queue"):
        handle.result()
    assert handle.status().attempt == 1
