"""Handlers: what `@task` makes of a function, and what a call of it carries."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

import galley.handler
from galley import Call, Handler, InputInvalid, call, task
from galley.handler import HandlerExists, HandlerNameInvalid, Registry


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


@pytest.mark.parametrize(
    "wrong", [lambda add: add.call(), lambda add: add.call(1, 2, 3), lambda add: add.call(a=1, wrong=2)]
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(wrong: Callable[[Any], Any]) -> None:
    @task
    def add(a: int, b: int = 1) -> int:
        return a + b

    with pytest.raises(InputInvalid, match="input of handler 'add'") as refused:
        wrong(add)
    assert "(a: int, b: int = 1) -> int" in refused.value.hint


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
    assert "at most 63" in refused.value.hint


def test_two_functions_of_one_queue_cannot_have_the_same_name() -> None:
    def first() -> None:
        """Do nothing."""

    def second() -> None:
        """Do nothing else."""

    task(queue="sums", name="add")(first)
    task(queue="other", name="add")(second)
    with pytest.raises(HandlerExists, match="handler 'add' of queue 'sums' is both") as refused:
        task(queue="sums", name="add")(second)
    assert "first" in str(refused.value)
    assert "second" in str(refused.value)


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
    assert add.call().on("jobs") == Call("jobs", "add", add.call().input)


def test_a_handler_that_names_the_default_queue_belongs_to_that_one_alone(registry: Registry) -> None:
    @task(queue="default")
    def add() -> None:
        """Do nothing."""

    assert registry.of_queue("jobs") == {}
    assert registry.of_queue("default") == {"add": add}


def test_a_module_that_is_imported_again_may_declare_its_own_again(registry: Registry) -> None:
    def add() -> None:
        """Do nothing."""

    before = Handler(add, "sums", "add")
    after = Handler(add, "sums", "add")
    registry.add(before)
    registry.add(after)
    assert registry.of_queue("sums")["add"] is after
    assert registry.queues() == ("sums",)


@pytest.mark.parametrize("arguments", [{}, {"b": 1}, {"a": 1, "c": 2}, {"a": 1, "b": 2, "more": 3}])
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
