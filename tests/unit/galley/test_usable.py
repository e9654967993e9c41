"""What `@task` makes of callables of unusual kinds."""

import functools
import inspect

import pytest

from galley.errors import HandlerUnusable, RetryAfter, Snooze
from galley.typed import Signature
from galley.usable import is_async, signature_of, usable


def _add(x: int, y: int) -> int:
    return x + y


async def _a_add(x: int, y: "int") -> "int":
    return x + y


@pytest.mark.parametrize("function", [_add, _a_add])
def test_a_partial_that_has_the_name_of_its_function_takes_what_is_left(function) -> None:  # type: ignore[no-untyped-def]
    rest = functools.update_wrapper(functools.partial(function, y=2), function)
    assert usable(rest) is rest
    assert signature_of(rest).parameters["y"].default == 2
    assert signature_of(rest).parameters["x"].default is inspect.Parameter.empty
    assert is_async(rest) == (function is _a_add)
    assert Signature(rest).encode({"x": 1}) == {"x": 1}


def test_a_function_that_chooses_by_the_place_of_its_argument_is_refused() -> None:
    with pytest.raises(HandlerUnusable) as raised:
        usable(functools.singledispatch(_add))
    assert "by the place of its first argument" in str(raised.value)


@pytest.mark.parametrize("kind", [RetryAfter, Snooze])
def test_a_pause_is_a_number_from_0_on(kind: type[RetryAfter | Snooze]) -> None:
    with pytest.raises(ValueError, match="NaN"):
        kind(float("nan"))
    assert kind(-5).seconds == 0
