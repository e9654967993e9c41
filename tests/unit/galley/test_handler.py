"""Handlers: what `@task` makes of a function, and what a call of it carries."""

import asyncio
import contextlib
import copy
import functools
import inspect
import json
import pickle
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

import galley.handler
from galley import AsyncClient, Call, Handler, InputInvalid, call, task
from galley.broker.connection import Broker
from galley.errors import (
    HandlerExists,
    HandlerNameInvalid,
    HandlerUnusable,
    QueueNameInvalid,
    RetryAfter,
    Snooze,
    SubmissionInvalid,
)
from galley.registry import Registry
from galley.retry import Backoff, RetryPolicy
from galley.typed import Typed
from galley.unique import Unique
from galley.workflow.result import Partial


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Give each test a registry of its own, so that its handlers do not outlive it."""
    own = Registry()
    monkeypatch.setattr(galley.handler, "REGISTRY", own)
    return own


def test_a_handler_is_still_a_function(registry: Registry) -> None:
    @task(queue="sums")
    def add(a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    assert add(2, b=3) == 5
    assert add.__doc__ == "Add two numbers."
    assert inspect.signature(add) == inspect.signature(add.function)
    assert registry.of_queue("sums") == {"add": add}


async def test_an_async_handler_is_still_a_coroutine_function() -> None:
    @task
    async def add(a: int, b: int) -> int:
        return a + b

    assert add.is_async
    assert add.queue == "default"
    assert await add(1, 2) == 3


def test_a_call_carries_the_arguments_by_name() -> None:
    @task(queue="sums", name="plus")
    def add(a: int, b: int = 1, **more: int) -> int:
        return a + b + sum(more.values())

    made = add.call(1, c=3)
    assert (made.queue, made.handler) == ("sums", "plus")
    assert json.loads(bytes(made.input)) == {"a": 1, "c": 3}


def test_a_call_by_name_alone_carries_the_same() -> None:
    made = call("texts", "checksum", path="a.txt", queue="not the queue")
    assert made == Call("texts", "checksum", made.input)
    assert json.loads(bytes(made.input)) == {"path": "a.txt", "queue": "not the queue"}


@pytest.mark.parametrize("wrong", [lambda add: add.call(1, 2, 3), lambda add: add.call(a=1, wrong=2)])
def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(wrong: Callable[[Any], Any]) -> None:
    @task
    def add(a: int, b: int = 1) -> int:
        return a + b

    with pytest.raises(InputInvalid, match="input of handler 'add'") as refused:
        wrong(add)
    assert "(a: int, b: int = 1) -> int" in refused.value.hint


async def test_a_call_that_lacks_arguments_is_a_step_and_no_task() -> None:
    @task(queue="sums")
    def add(a: int, b: int = 1) -> int:
        return a + b

    made = add.call(b=2)  # type: ignore[call-arg]

    assert made.partial == Partial(missing=("a",))
    client = AsyncClient.over(Broker("nats://127.0.0.1:1", name="none"))
    with pytest.raises(InputInvalid, match="missing a required argument: 'a'"):
        await client.submit(made)


def test_arguments_without_a_name_cannot_travel() -> None:
    @task
    def total(*numbers: int) -> int:
        return sum(numbers)

    with pytest.raises(InputInvalid, match="'numbers' has no name to travel by"):
        total.call(1, 2)


@pytest.mark.parametrize("name", ["a b", "-a", "a.", "é", "a" * 64, "a/b"])
def test_a_name_a_task_may_not_carry_is_refused(name: str) -> None:
    with pytest.raises(HandlerNameInvalid) as refused:
        task(name=name)(lambda: None)
    assert "1 to 63" in refused.value.hint


def test_two_functions_of_one_queue_cannot_have_the_same_name() -> None:
    def first() -> None:
        """Do nothing."""

    def second() -> None:
        """Do nothing else."""

    task(queue="sums", name="add")(first)
    task(queue="other", name="add")(second)
    with pytest.raises(HandlerExists, match="handler 'add' of queue 'sums' is both") as refused:
        task(queue="sums", name="add")(second)
    for name, line in ((refused.value.first, first), (refused.value.second, second)):
        assert line.__qualname__ in name
        assert __file__ in name


def test_a_handler_that_names_no_queue_belongs_to_each_queue_that_imports_it(registry: Registry) -> None:
    @task
    def add() -> None:
        """Do nothing."""

    @task(queue="sums", name="add")
    def add_of_sums() -> None:
        """Do nothing else."""

    @task(queue="other")
    def hidden() -> None:
        """Do nothing."""

    assert registry.of_queue("jobs") == {"add": add}
    assert registry.of_queue("default") == {"add": add}
    assert registry.of_queue("sums") == {"add": add_of_sums}
    assert add.call().queue == "default"
    assert add.call().on("jobs") == replace(add.call(), queue="jobs")


def test_a_handler_that_names_the_default_queue_belongs_to_that_one_alone(registry: Registry) -> None:
    @task(queue="default")
    def add() -> None:
        """Do nothing."""

    assert registry.of_queue("jobs") == {}
    assert registry.of_queue("default") == {"add": add}


@pytest.mark.parametrize("arguments", [{"a": 1, "c": 2}, {"a": 1, "b": 2, "more": 3}])
def test_arguments_by_name_alone_have_to_fit_the_function(arguments: dict[str, Any]) -> None:
    @task
    def add(a: int, b: int = 1) -> int:
        return a + b

    with pytest.raises(InputInvalid, match="argument"):
        add.call(**arguments)


def test_an_argument_by_position_alone_is_refused_by_name_and_may_be_left_out() -> None:
    @task
    def power(base: int = 2, /, exponent: int = 1) -> int:
        return int(base**exponent)

    assert json.loads(bytes(power.call(exponent=3).input)) == {"exponent": 3}
    with pytest.raises(InputInvalid):
        power.call(base=2)  # type: ignore[call-arg]


def test_a_handler_may_have_an_argument_named_self() -> None:
    def compare(self: int, other: int) -> bool:
        return self == other

    handler = Handler(compare, "q", "compare")
    assert json.loads(bytes(handler.call(self=1, other=2).input)) == {"self": 1, "other": 2}
    assert handler(self=1, other=1)


class Service:
    """Methods of all kinds, and where `@task` may stand."""

    def __init__(self, step: int = 1) -> None:
        self.step = step

    def add(self, n: int) -> int:
        """Add the step."""
        return n + self.step

    async def wait(self, n: int) -> int:
        """Add nothing."""
        return n

    @staticmethod
    def fixed(n: int) -> int:
        """Return it."""
        return n

    @classmethod
    def made(cls, n: int) -> int:
        """Return it."""
        return n


class Calling:
    def __call__(self, n: int) -> int:
        return n


class CallingAsync:
    async def __call__(self, n: int) -> int:
        return n


def plain(n: int) -> int:
    return n


async def waiting(n: int) -> int:
    return n


@functools.wraps(waiting)
def around(*args: Any, **kwargs: Any) -> Any:
    return waiting(*args, **kwargs)


USABLE: dict[str, tuple[Any, bool]] = {
    "function": (plain, False),
    "async function": (waiting, True),
    "bound method": (Service(0).add, False),
    "bound async method": (Service(0).wait, True),
    "static method": (Service.__dict__["fixed"], False),
    "partial": (functools.partial(plain), False),
    "partial of async": (functools.partial(waiting), True),
    "callable": (Calling(), False),
    "async callable": (CallingAsync(), True),
    "lambda": (lambda n: n, False),
    "cached": (functools.lru_cache(plain), False),
    "plain around async": (around, False),
    "another handler": (task(queue="kinds", name="inner")(plain), False),
}


@pytest.mark.parametrize("kind", USABLE)
def test_what_can_run_is_a_handler(kind: str) -> None:
    function, waits = USABLE[kind]
    made = task(name="kind")(function)
    assert made.is_async is waits
    assert json.loads(bytes(made.call(n=3).input)) == {"n": 3}
    result = made(n=3)
    assert (asyncio.run(result) if inspect.iscoroutine(result) else result) == 3


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@contextlib.contextmanager
def context() -> Iterator[None]:
    yield


def before_the_slash(n: int, /) -> int:
    return n


class GeneratingCall:
    def __call__(self) -> Iterator[int]:
        yield 1


REFUSED: dict[str, tuple[Any, str]] = {
    "text": ("emails", "it is a text"),
    "class": (Service, "it is a class"),
    "method": (Service.add, "it is a method of Service"),
    "class method": (Service.__dict__["made"], "it needs its class or object"),
    "property": (property(plain), "it needs its class or object"),
    "generator": (generator, "it is a generator"),
    "async generator": (async_generator, "it is a generator"),
    "partial of a generator": (functools.partial(generator), "it is a generator"),
    "callable that yields": (GeneratingCall(), "it is a generator"),
    "context manager": (context, "it is a context manager"),
    "nothing to call": (5, "it cannot be called"),
    "positional only": (before_the_slash, "argument 'n' has no name to travel by"),
    "built in with a position": (len, "argument 'obj' has no name to travel by"),
    "built in without a signature": (max, "its signature is not known"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_run_is_refused_at_once(kind: str) -> None:
    function, problem = REFUSED[kind]
    with pytest.raises(HandlerUnusable) as refused:
        task(name="kind")(function)
    assert problem in refused.value.problem
    assert refused.value.hint


def test_a_coroutine_is_refused() -> None:
    coroutine = waiting(1)
    with pytest.raises(HandlerUnusable, match="the result of a call"):
        task(coroutine)  # type: ignore[call-overload]
    coroutine.close()


@pytest.mark.parametrize("function", [functools.partial(plain), Calling()])
def test_what_has_no_name_needs_one(function: Any) -> None:
    with pytest.raises(HandlerUnusable, match="it has no name of its own"):
        task(function)


@pytest.mark.parametrize("name", ["", "_private", "größe", 5])
def test_a_name_is_never_passed_over(name: Any) -> None:
    with pytest.raises(HandlerNameInvalid):
        task(name=name)(plain)


@pytest.mark.parametrize("queue", ["", "Emails", "e mails", "a.b", "*", "a" * 64, 5])
def test_a_queue_that_cannot_be_is_refused_wherever_it_is_named(queue: Any) -> None:
    with pytest.raises(QueueNameInvalid):
        task(queue=queue)(plain)
    with pytest.raises(QueueNameInvalid):
        call(queue, "plain")
    with pytest.raises(QueueNameInvalid):
        task(plain).call(1).on(queue)


def test_a_call_by_name_has_a_name_that_can_be() -> None:
    with pytest.raises(HandlerNameInvalid):
        call("texts", "no such name")


@task(queue="kinds")
def documented(n: int, *, factor: int = 2) -> int:
    """Multiply."""
    return n * factor


@task(queue="kinds")
async def documented_async(n: int) -> int:
    """Wait."""
    return n


def test_a_handler_passes_for_its_function() -> None:
    assert documented.__name__ == documented.__qualname__ == "documented"  # type: ignore[attr-defined]
    assert documented.__module__ == __name__
    assert documented.__doc__ == "Multiply."
    assert inspect.getdoc(documented) == "Multiply."
    assert str(inspect.signature(documented)) == "(n: int, *, factor: int = 2) -> int"
    assert typing.get_type_hints(documented) == {"n": int, "factor": int, "return": int}
    assert inspect.getsourcelines(inspect.unwrap(documented))[0][0].startswith("@task")
    assert not inspect.iscoroutinefunction(documented)
    assert inspect.iscoroutinefunction(documented_async)
    assert task(queue="kinds")(functools.lru_cache(plain)).cache_info().hits == 0  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        documented.delay(1)  # type: ignore[attr-defined]


def test_a_handler_is_copied_and_pickled_by_reference() -> None:
    assert pickle.loads(pickle.dumps(documented)) is documented
    assert copy.copy(documented) is documented
    assert copy.deepcopy({"a": documented})["a"] is documented
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(task(name="local")(lambda: None))


def test_the_methods_of_another_queue_lead_to_the_one_that_submits() -> None:
    made = task(queue="kinds", name="mail")(lambda: None)
    for other in ("delay", "apply_async", "send"):
        assert not hasattr(made, other)
        with pytest.raises(
            AttributeError, match=rf"handler 'mail' .* {other!r}; .* client\.submit\(mail\.call"
        ):
            getattr(made, other)


def test_an_attribute_of_the_function_does_not_replace_one_of_the_handler() -> None:
    def marked() -> None:
        """Do nothing."""

    marked.queue = marked.call = marked.name = "mine"  # type: ignore[attr-defined]
    made = task(queue="kinds")(marked)
    assert (made.queue, made.name) == ("kinds", "marked")
    assert made.call() == Call("kinds", "marked", made.call().input, Typed(None))


@pytest.mark.parametrize("kind", [RetryAfter, Snooze])
def test_a_pause_is_seconds_a_duration_or_the_time_at_which_it_ends(kind: type[RetryAfter | Snooze]) -> None:
    now = datetime.now(UTC)
    assert kind(2).seconds == 2
    assert kind(timedelta(minutes=1)).seconds == 60
    assert 58 <= kind(now + timedelta(minutes=1)).seconds <= 60
    assert kind(now - timedelta(days=1)).seconds == 0
    with pytest.raises(ValueError, match="no offset from UTC"):
        kind(datetime(2030, 1, 1))  # noqa: DTZ001 - without an offset


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"cache": 60, "store_result": False}, "cache: is given with store_result=False"),
        ({"cache": 60, "unique": Unique(key="k")}, "cache: is given with unique"),
        (
            {"retry": RetryPolicy(waits_seconds=(1,), backoff=Backoff.LINEAR)},
            "retry.backoff: is given with waits_seconds",
        ),
    ],
)
def test_policies_that_exclude_each_other_are_refused_where_they_are_written(
    rules: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SubmissionInvalid, match=problem) as refused:
        task(queue="images", name="excluding", **rules)
    assert "leave" in refused.value.hint
