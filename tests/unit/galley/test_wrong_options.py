"""Options of the wrong type are refused where they are written, with what to pass instead."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from galley import AsyncClient, GalleyError, RetryPolicy, SubmissionInvalid, call, task
from galley.testing import EagerClient

OF_TASK: tuple[dict[str, Any], ...] = (
    {"retry": 3},
    {"retry": {"attempts": 3}},
    {"retry": RetryPolicy(waits_seconds=5)},  # type: ignore[arg-type]
    {"retry": RetryPolicy(rules=3)},  # type: ignore[arg-type]
    {"retry": RetryPolicy(rules=(3,))},  # type: ignore[arg-type]
    {"timeout_seconds": timedelta(seconds=5)},
    {"timeout": "5"},
    {"timeout": timedelta(0)},
    {"timeout": timedelta(days=2)},
    {"timeout": 5, "timeout_seconds": 5},
    {"unique": 3},
    {"unique": b"key"},
    {"cache": "5"},
    {"cache": timedelta(seconds=5)},
    {"cache": 5, "version": 3},
    {"store_result": "no"},
    {"subscribe": 3, "queue": "q"},
    {"subscribe": [3], "queue": "q"},
    {"cron": timedelta(minutes=1)},
    {"labels": "team"},
    {"batch": "3"},
)

OF_CALL: tuple[dict[str, Any], ...] = (
    {"retry": 3},
    {"not_before": "tomorrow"},
    {"not_before": 60},
    {"deadline": date(2030, 1, 1)},
    {"deadline": timedelta(minutes=5)},
    {"key": 3},
    {"key": b"k"},
    {"unique": 0},
    {"lane": 3},
    {"timeout": 5, "timeout_seconds": 5},
    {"task_id": 3},
    {"task_id": ""},
    {"labels": {"a": 1}},
)


def _shown(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())[:60]


@pytest.mark.parametrize("options", OF_TASK, ids=_shown)
def test_an_option_of_a_handler_that_has_the_wrong_type_is_a_typed_error(options: dict[str, Any]) -> None:
    def handler(item: int = 1) -> int:
        return item

    with pytest.raises(GalleyError) as raised:
        task(**options)(handler)
    assert raised.value.hint


@pytest.mark.parametrize("options", OF_CALL, ids=_shown)
def test_an_option_of_a_call_that_has_the_wrong_type_is_a_typed_error(options: dict[str, Any]) -> None:
    with pytest.raises(GalleyError) as raised:
        call("q", "h").options(**options)
    assert raised.value.hint


def test_right_options_beside_them_are_accepted() -> None:
    later = datetime.now(UTC) + timedelta(minutes=5)
    rules = (
        call("q", "h").options(retry=RetryPolicy(attempts=3), not_before=later, key="3", unique=False).rules
    )
    assert rules is not None
    assert rules.not_before == later


@pytest.mark.parametrize(
    "given", [{"timeout": 90}, {"timeout": timedelta(seconds=90)}, {"timeout_seconds": 90}]
)
def test_a_timeout_is_given_in_seconds_or_as_a_timedelta(given: dict[str, Any]) -> None:
    def handler() -> None: ...

    assert task(**given)(handler).timeout_seconds == 90
    rules = call("q", "h").options(**given).rules
    assert rules is not None
    assert rules.timeout_seconds == 90


@task(queue="q")
def double(n: int = 1) -> int:
    return 2 * n


def plain() -> None:
    """No handler."""


async def a_coroutine() -> None:
    """Never awaited."""


NO_CALLS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "a handler": (lambda: double, "<handler q/double> is the handler", "pass double.call(...)"),
    "a function": (lambda: plain, "plain is no handler", "decorate the function with @galley.task"),
    "a coroutine": (a_coroutine, "it is a coroutine of a_coroutine", "handler(...) runs it in this process"),
    "a result": (lambda: double(2), "it is of type int", "handler(...) runs it in this process"),
    "nothing": (lambda: None, "it is of type NoneType", "pass handler.call(...)"),
}


@pytest.mark.parametrize("kind", NO_CALLS)
async def test_what_is_no_call_is_refused_with_what_to_pass(kind: str) -> None:
    given, problem, hint = NO_CALLS[kind]
    with pytest.raises(SubmissionInvalid) as refused:
        await AsyncClient("nats://127.0.0.1:1").submit(given())
    assert problem in str(refused.value)
    assert hint in refused.value.hint
    eager = EagerClient()
    for submit in (eager.submit, lambda call: eager.schedules.create("nightly", call, "@daily")):
        with pytest.raises(SubmissionInvalid, match=re.escape(problem)):
            submit(given())
