"""What `on_start` and `on_stop` accept."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import galley
from galley.hooks import HOOKS


def needs(x: int) -> None: ...


def yields() -> Iterator[None]:
    yield


async def yields_later() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("place", [galley.on_start, galley.on_stop])
@pytest.mark.parametrize(
    ("function", "told"),
    [(needs, "requires x"), (yields, "'yields' is a generator"), (yields_later, "is a generator")],
)
def test_a_function_that_would_not_run_is_no_hook(
    place: Callable[[Any], Any], function: Callable[..., Any], told: str
) -> None:
    before = (list(HOOKS.start), list(HOOKS.stop))
    with pytest.raises(TypeError, match=told):
        place(function)
    assert (HOOKS.start, HOOKS.stop) == before
