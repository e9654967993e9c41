"""Waits for what is true a little later: the only place in the tests that paces itself."""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, overload

Value = TypeVar("Value")

_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 0.3
_PAUSE_A_LOOK: Final = 9
"""The pause as a multiple of what a look takes: the processor is for what is waited for, not for looking."""
_PATIENT_SECONDS: Final = 20
_LEAST_SECONDS: Final = 60
"""The shortest deadline of a test that is patient: it only ends one that fails, and machines may be busy."""
_PAUSE_OF_WAIT: Final = 0.05
"""The pause as a part of the time waited so far: what takes long may be seen a little later."""


@overload
async def eventually(
    condition: Callable[[], Coroutine[Any, Any, Value]], *, within: float, why: str = ""
) -> Value: ...


@overload
async def eventually(condition: Callable[[], Value], *, within: float, why: str = "") -> Value: ...


async def eventually(condition: Callable[[], Any], *, within: float, why: str = "") -> Any:
    """Return the first truthy value of `condition`, a plain or an async function.

    A failed assertion inside it counts as "not yet".

    Args:
        condition: asked again and again, at least once.
        within: seconds, the time the condition itself takes included; from 20 on, at least 60.
        why: what was waited for, when the condition does not say it.

    Raises:
        AssertionError: if there was none in time; it tells what was seen last.
    """
    last: object = "nothing: the condition never returned"
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    if within >= _PATIENT_SECONDS:
        within = max(within, _LEAST_SECONDS)
    ends_at = began_at + within
    late = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            # The library's requests swallow a cancellation that comes together with their answer.
            while not late:
                began = loop.time()
                try:
                    answer = condition()
                    value = await answer if inspect.isawaitable(answer) else answer
                except AssertionError as error:
                    last = error
                else:
                    if value:
                        return value
                    last = value
                now = loop.time()
                late = now >= ends_at
                pause = max(_PAUSE_SECONDS, _PAUSE_A_LOOK * (now - began), _PAUSE_OF_WAIT * (now - began_at))
                await asyncio.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
    what = why or getattr(condition, "__name__", repr(condition))
    raise AssertionError(f"{what}: not within {within:g} s; last seen: {last!r}")
