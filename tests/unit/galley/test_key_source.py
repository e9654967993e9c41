"""`@task(key=...)`: which key a call has, and what is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from galley import task
from galley.errors import HandlerUnusable, InputInvalid, SubmissionInvalid
from galley.handler import Handler
from galley.when import When


class Region(Enum):
    NORTH = "north"


@dataclass
class Order:
    customer: str | None
    lines: tuple[int, ...] = ()


def handler(function: Callable[..., Any], key: Any, name: str = "ship") -> Handler[..., Any]:
    made: Handler[..., Any] = task(queue="orders", name=name, key=key)(function)
    return made


def ship(customer: Any, order: Any = None, *, region: Any = "south") -> None:
    """What the keys here are made of."""


@pytest.mark.parametrize(
    ("key", "arguments", "expected"),
    [
        ("customer", {"customer": "c-7"}, "c-7"),
        ("customer", {"customer": 7}, "7"),
        ("customer", {"customer": UUID(int=1)}, "00000000-0000-0000-0000-000000000001"),
        ("customer", {"customer": None}, None),
        ("region", {"customer": 1}, "south"),
        ("region", {"customer": 1, "region": Region.NORTH}, "north"),
        ("order.customer", {"customer": 1, "order": Order("c-8")}, "c-8"),
        ("order.customer", {"customer": 1, "order": {"customer": "c-9"}}, "c-9"),
        ("order.customer", {"customer": 1, "order": Order(None)}, None),
        ("order.customer", {"customer": 1}, None),
        (lambda customer: f"customer-{customer}", {"customer": 7}, "customer-7"),
        (lambda **given: given["region"] + str(given["customer"]), {"customer": 7}, "south7"),
        (lambda customer, suffix="x": f"{customer}{suffix}", {"customer": 7}, "7x"),
        (lambda customer: None, {"customer": 7}, None),  # noqa: ARG005 - it decides on none
    ],
)
def test_a_call_has_the_key_its_arguments_say(
    key: Any, arguments: dict[str, Any], expected: str | None
) -> None:
    assert handler(ship, key).call(**arguments).key == expected


@pytest.mark.parametrize(
    ("key", "arguments", "told"),
    [
        ("customer", {"customer": ""}, "not empty"),
        ("customer", {"customer": "x" * 10_000}, "10000 bytes, the limit is 256"),
        ("customer", {"customer": True}, "True, not a text"),
        ("customer", {"customer": 1.5}, "1.5, not a text"),
        ("order", {"customer": 1, "order": Order("c")}, "not a text or a whole number"),
        (
            "order.customer",
            {"customer": 1, "order": {"client": 1}},
            "'order' of 'ship' has no field 'customer'",
        ),
        ("order.customer", {"customer": 1, "order": 5}, "'order' of 'ship' has no field 'customer'"),
        (lambda customer: [customer], {"customer": 7}, r"\[7\], not a text"),
    ],
)
def test_what_cannot_be_a_key_is_refused_before_it_is_submitted(
    key: Any, arguments: dict[str, Any], told: str
) -> None:
    ships = handler(ship, key)
    with pytest.raises(SubmissionInvalid, match="key") as refused:
        ships.call(**arguments)
    assert pytest.raises(SubmissionInvalid, match=told).matches(refused.value)


def test_an_error_of_the_function_names_the_handler() -> None:
    with pytest.raises(InputInvalid, match=r"ship.*ZeroDivisionError"):
        handler(ship, lambda customer: f"{1 // customer}").call(0)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("client", "its key is made of client"),
        ("", "is no argument"),
        ("order..customer", "is no argument"),
        (5, "is no argument"),
        (lambda client: client, "its key is made of client"),
        (lambda: "all", "takes no arguments by name"),
        (dict, "takes no arguments by name"),
    ],
)
def test_a_key_that_the_function_does_not_take_is_found_where_it_is_declared(key: Any, told: str) -> None:
    with pytest.raises(HandlerUnusable, match=told):
        handler(ship, key)


def test_options_come_before_the_key_of_the_handler() -> None:
    call = handler(ship, "customer").call("c-7")
    assert call.key_under(When()) == "c-7"
    assert call.key_under(When(key="c-8")) == "c-8"
    assert call.options(key="c-9").rules is not None


def test_a_key_that_another_step_makes_is_asked_for() -> None:
    call = handler(ship, "customer").step()
    with pytest.raises(SubmissionInvalid, match="customer, which another step returns") as refused:
        call.key_under(When())
    assert "options(key=...)" in refused.value.hint
    assert call.key_under(When(key="c-7")) == "c-7"


def test_a_function_with_any_arguments_may_name_any() -> None:
    def anything(**given: Any) -> None: ...

    assert handler(anything, "customer", "anything").call(customer="c-7").key == "c-7"


def test_a_batch_takes_the_key_from_each_input() -> None:
    @task(queue="orders", name="store", batch=10, key="orders.customer")
    def store(orders: list[dict[str, str]]) -> None: ...

    assert [store.call({"customer": name}).key for name in ("a", "b")] == ["a", "b"]
