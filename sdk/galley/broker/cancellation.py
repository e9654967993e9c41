"""Cancellations that `asyncio.wait_for` of Python 3.11 swallows.

It returns its answer if that comes at the same moment, and the cancelled task would continue. So code that
waits for the NATS library counts the cancellations of its task before, and raises `CancelledError` if
there are more.
"""

import asyncio

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription


def cancellations() -> int:
    """Return how often the running task was cancelled, without those that were taken back."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def raise_if_cancelled(since: int) -> None:
    """Raise `CancelledError` if the running task was cancelled in the meantime.

    Args:
        since: the cancellations when the answer was asked for. It need not be 0: a `TaskGroup` of Python 3.11
            whose member failed leaves one behind, and the task that had the group continues.
    """
    if cancellations() > since:
        raise asyncio.CancelledError


async def next_message(subscription: Subscription, seconds: float) -> Msg:
    """Return the next message of a subscription without a callback; raises what the library raises."""
    cancelled = cancellations()
    message = await subscription.next_msg(seconds)
    raise_if_cancelled(since=cancelled)
    return message
