"""An event loop whose time passes at once: for waits of minutes, where no socket is involved."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec

P = ParamSpec("P")

_LONGEST_SECONDS: Final = 24 * 3600


class _Leap(selectors.SelectSelector):
    """Finds nothing to read, and lets the time it was to wait pass instead."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits, and nothing is left that could happen")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        """Return the virtual time."""
        return self._leap.now

    def freeze(self, seconds: float) -> None:
        """Let time pass without the loop noticing, as SIGSTOP does to a process."""
        self._leap.now += seconds


def virtual_loop() -> VirtualLoop:
    """Return the loop of the test that is running."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in virtual time: its waits take none, and one of a day fails it."""

    async def bounded(*arguments: P.args, **named: P.kwargs) -> None:
        async with asyncio.timeout(_LONGEST_SECONDS):
            await test(*arguments, **named)

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(bounded(*arguments, **named))

    return run
