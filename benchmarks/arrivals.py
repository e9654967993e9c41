"""Open-loop arrivals: tasks come when they come, whether or not the last one was taken."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from statistics import quantiles


async def arrive(submit: Callable[[], Awaitable[object]], count: int, rate: float, seed: int) -> float:
    """Call `submit` `count` times at random moments, `rate` a second; returns how late calls were (p99).

    The gaps are exponential, as those of independent producers are. A call does not wait for the one
    before it; lateness is ours (the event loop wakes to the millisecond), and no part of a latency.
    """
    dice = random.Random(seed)
    loop = asyncio.get_running_loop()
    due = loop.time()
    late = []
    async with asyncio.TaskGroup() as under_way:
        for _ in range(count):
            due += dice.expovariate(rate)
            while (wait := due - loop.time()) > 0:  # noqa: ASYNC110 - the clock is what is waited for
                await asyncio.sleep(wait)
            late.append(loop.time() - due)
            under_way.create_task(_awaited(submit()))
            # The submit begins before the next is looked at; it notes the time itself.
            await asyncio.sleep(0)
    return quantiles(late, n=100, method="inclusive")[98] if len(late) > 1 else late[0]


async def _awaited(one: Awaitable[object]) -> None:
    await one
