"""Handlers that take the inputs of several tasks: what is refused, and how a client for tests runs them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from galley import Batch, Snooze, SubmissionInvalid, Subscribe, TaskFailed, current_batch, current_task, task
from galley.batching import batch_of, each_of, outcome_of, outcomes
from galley.errors import HandlerUnusable, InputInvalid
from galley.handler import Handler
from galley.retry import RetryPolicy
from galley.task_status import Phase
from galley.testing import EagerClient


@dataclass
class Reading:
    device: str
    value: float


@pytest.mark.parametrize("asked", [0, -1, 1001, True, 1.5, "10"])
def test_a_size_that_no_batch_has_is_refused(asked: Any) -> None:
    with pytest.raises(SubmissionInvalid, match="batch size"):
        batch_of(asked)


@pytest.mark.parametrize("wait", [-1, 60_001, 0.5, None])
def test_a_wait_that_no_batch_has_is_refused(wait: Any) -> None:
    with pytest.raises(SubmissionInvalid, match="batch wait_ms"):
        Batch(10, wait_ms=wait)


def test_a_number_is_a_size() -> None:
    assert batch_of(7) == Batch(7, wait_ms=10)
    assert batch_of(None) is None
    assert Batch(1, wait_ms=250).wait_seconds == 0.25


def _two(rows: list[int], more: list[int]) -> None: ...
def _none() -> None: ...
def _collecting(*rows: int) -> None: ...
def _one_row(row: int) -> None: ...


@pytest.mark.parametrize("function", [_two, _none, _collecting, _one_row])
def test_a_function_that_does_not_take_one_list_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(HandlerUnusable, match=r"with batch=\.\.\."):
        task(queue="batching", name="refused", batch=10)(function)


def test_a_call_has_one_element_and_is_checked_as_one() -> None:
    @task(queue="batching", name="store", batch=10)
    def store(rows: list[Reading]) -> list[int | Exception]:
        return [int(row.value) for row in rows]

    assert msgspec.json.decode(store.call(Reading("a", 2.5)).input) == {"rows": {"device": "a", "value": 2.5}}
    assert store([Reading("a", 2.5)]) == [2]
    result = store.call(Reading("a", 1)).result
    assert result is not None
    assert result.annotation is int
    with pytest.raises(InputInvalid, match="rows"):
        store.call("no reading")  # type: ignore[arg-type]


def test_a_subscription_maps_the_data_to_the_one_parameter() -> None:
    @task(queue="batching", name="listens", batch=10, subscribe=["a", Subscribe("b", input={"rows": "id"})])
    def listens(rows: list[Any]) -> None: ...

    assert isinstance(listens, Handler)
    assert [each.input for each in listens.subscribes] == [{"rows": "data"}, {"rows": "id"}]


def test_types_of_elements_and_results() -> None:
    assert each_of(list[int]) is int
    assert each_of(Sequence[str]) is str
    assert each_of(list) is Any
    assert outcome_of(None) is None
    assert outcome_of(list[int | Exception]) is int
    assert outcome_of(list[int | str | ValueError]) == int | str
    assert outcome_of(list[Exception]) is None
    assert outcome_of(Any) is Any


def test_what_is_no_list_of_outcomes_is_refused() -> None:
    assert outcomes(None, 2) == [None, None]
    assert outcomes((1, 2), 2) == [1, 2]
    with pytest.raises(ValueError, match="1 results for 2 inputs"):
        outcomes([1], 2)
    with pytest.raises(ValueError, match="not str"):
        outcomes("ab", 2)


SEEN: list[list[int]] = []


@task(queue="batching", batch=3, retry=RetryPolicy(attempts=2))
async def halve(numbers: list[int]) -> list[int | Exception]:
    assert current_task() is None
    assert [each.attempt for each in current_batch()] == [1 if number < 50 else 2 for number in numbers]
    SEEN.append(numbers)
    for each in current_batch():
        each.progress(0.5)
    if 66 in numbers:
        raise RuntimeError("all of them")
    return [number // 2 if number % 2 == 0 else ValueError(f"{number} is odd") for number in numbers]


def test_a_client_for_tests_runs_what_is_due_together() -> None:
    SEEN.clear()
    with EagerClient() as client:
        handles = client.submit_many([halve.call(number) for number in (2, 3, 4, 6)])
        assert SEEN == [[2, 3, 4], [6]]
        assert [handles[place].result() for place in (0, 2, 3)] == [1, 2, 3]
        status = handles[1].status()
        assert status.phase is Phase.RETRYING
        assert status.history.attempts[0].message == "ValueError: 3 is odd"
        assert status.history.attempts[0].batch == 0
        assert current_batch() == ()


@task(queue="batching", batch=5, retry=RetryPolicy(attempts=2, backoff_seconds=1.0))
def poisoned(numbers: list[int]) -> None:
    SEEN.append(numbers)
    if 13 in numbers:
        raise RuntimeError("13")


def test_after_a_batch_that_failed_as_a_whole_each_task_runs_apart() -> None:
    SEEN.clear()
    with EagerClient() as client:
        handles = client.submit_many([poisoned.call(number) for number in (1, 13, 2)])
        assert [handle.status().history.attempts[0].batch for handle in handles] == [3, 3, 3]
        client.advance(10)
        assert SEEN == [[1, 13, 2], [1], [13], [2]]
        assert [handle.status().phase for handle in handles] == [
            Phase.SUCCEEDED, Phase.FAILED, Phase.SUCCEEDED,
        ]  # fmt: skip
        with pytest.raises(TaskFailed):
            handles[1].result()


@task(queue="batching", batch=5)
def mixed(numbers: list[int]) -> Any:
    return numbers[1:] if 0 in numbers else [Snooze(5) if number == 1 else object() for number in numbers]


def test_an_outcome_that_cannot_be_stored_fails_and_one_may_be_put_off() -> None:
    with EagerClient(retry=RetryPolicy(attempts=1)) as client:
        later, unfit, short = client.submit_many([mixed.call(1), mixed.call(2), mixed.call(3)])
        assert later.status().phase is Phase.RETRYING
        assert unfit.status().phase is Phase.FAILED
        assert short.status().phase is Phase.FAILED
        few = client.submit(mixed.call(0))
        assert few.status().phase is Phase.FAILED


@task(queue="batching", name="strict", batch=5)
def strict(numbers: list[int]) -> list[int]:
    SEEN.append(numbers)
    return numbers


def test_an_input_that_does_not_fit_fails_alone() -> None:
    from galley import call  # noqa: PLC0415 - the handler's own `call` refuses it

    SEEN.clear()
    with EagerClient() as client:
        good, bad = client.submit_many([strict.call(1), call("batching", "strict", numbers="x")])
        assert good.result() == 1
        assert bad.status().failure is not None
        assert SEEN == [[1]]
        (alone,) = client.submit_many([call("batching", "strict", numbers="y")])
        assert alone.status().phase is Phase.FAILED
        assert SEEN == [[1]]
