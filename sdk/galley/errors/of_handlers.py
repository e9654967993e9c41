"""What a handler raises to say how it ended, and what it gets for a step it may not take."""

import math
from datetime import UTC, datetime, timedelta

from galley.errors.tree import GalleyError


class NonRetryable(Exception):
    """Raised by a handler, itself or a subclass: another attempt cannot end differently.

    The task becomes a dead letter at once, with this exception's name, message and traceback.
    """


def _seconds(pause: float | timedelta | datetime) -> float:
    if isinstance(pause, datetime):
        if pause.tzinfo is None:
            raise ValueError("the time has no offset from UTC; pass an aware one, as datetime.now(UTC) is")
        pause -= datetime.now(UTC)
    seconds = pause.total_seconds() if isinstance(pause, timedelta) else float(pause)
    if math.isnan(seconds):
        raise ValueError("the pause is NaN; pass seconds, a timedelta or the time at which it ends")
    return max(0.0, seconds)


class RetryAfter(Exception):
    """Raised by a handler: this attempt failed, and the next one begins after so many seconds.

    It takes the place of the backoff of the retry policy, whose number of attempts still holds. For what says
    when to come back, such as a server that answers with `Retry-After`.
    """

    def __init__(self, seconds: float | timedelta | datetime, message: str = "") -> None:
        """Set the pause.

        Args:
            seconds: 0 to 86,400, or the time at which the pause ends; what is out of range is taken to
                its end.
            message: what happened, for the task's history.

        Raises:
            ValueError: if the time has no offset from UTC, or the seconds are NaN.
        """
        self.seconds = _seconds(seconds)
        super().__init__(message or f"try again in {self.seconds:g} s")


class Snooze(Exception):
    """Raised by a handler: not yet; run this attempt again after so many seconds.

    It is not an error and costs no attempt. A task that has a deadline fails if it would begin after it.
    """

    def __init__(self, seconds: float | timedelta | datetime, message: str = "") -> None:
        """Set the pause.

        Args:
            seconds: 0 to 86,400, or the time at which the pause ends; what is out of range is taken to
                its end.
            message: what it waits for, for people who look at the task.

        Raises:
            ValueError: if the time has no offset from UTC, or the seconds are NaN.
        """
        self.seconds = _seconds(seconds)
        super().__init__(message or f"snoozed for {self.seconds:g} s")


class AttemptOver(GalleyError):
    """Progress or a checkpoint was reported for an attempt that does not run here."""

    reason = "AttemptOver"
    hint = "call it in the handler's own process, before the handler returns"

    def __init__(self, task_id: str, attempt: int) -> None:
        self.task_id, self.attempt = task_id, attempt
        super().__init__(f"attempt {attempt} of task {task_id} does not run in this process")


class WaitsForOwnQueue(GalleyError, NonRetryable):
    """A handler waits for a task of its own queue, and holds a slot that task may need."""

    reason = "WaitsForOwnQueue"
    hint = (
        "return galley.then(...), which waits without a slot, or give the subtasks a queue of their own. If "
        "the queue always has more slots than waiting tasks, use result(hold_slot=True)"
    )

    def __init__(self, queue: str, task_id: str) -> None:
        self.queue, self.task_id = queue, task_id
        super().__init__(
            f"a handler of queue {queue!r} waits for task {task_id} of the same queue: when all slots wait "
            "like this, none of these tasks can start"
        )


class WaitsInCircle(GalleyError, NonRetryable):
    """A handler waits for a task of a queue whose handlers it descends from, and which may wait for it."""

    reason = "WaitsInCircle"
    hint = (
        "return galley.then(...), which waits without a slot. If no handler of that queue waits for this "
        "task, use result(hold_slot=True)"
    )

    def __init__(self, queue: str, task_id: str, circle: tuple[str, ...]) -> None:
        self.queue, self.task_id, self.circle = queue, task_id, circle
        super().__init__(
            f"a handler of {circle[-1]} waits for task {task_id} of queue {queue!r}, from which its own task "
            f"descends ({' > '.join((*circle, circle[0]))}): when all slots wait like this, none of these "
            "tasks can end"
        )
