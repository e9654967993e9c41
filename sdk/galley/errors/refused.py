"""A queue or a topic did not accept something, and stored nothing."""

from galley.errors.tree import Refused


class QueueNotFound(Refused):
    """There is no queue of that name in the namespace."""

    reason = "QueueNotFound"
    hint = "check the name and the namespace, or declare a TaskQueue (`galley dev`, `kubectl apply`)"

    def __init__(self, namespace: str, queue: str) -> None:
        self.namespace, self.queue = namespace, queue
        super().__init__(f"there is no queue {queue!r} in namespace {namespace!r}")


class LaneNotEnabled(Refused):
    """The queue exists but does not serve that lane."""

    reason = "LaneNotEnabled"

    def __init__(self, queue: str, lane: str, enabled: tuple[str, ...]) -> None:
        self.queue, self.lane, self.enabled = queue, lane, enabled
        super().__init__(
            f"queue {queue!r} has no lane {str(lane)!r}",
            f"use one of {', '.join(enabled)}, or add {lane} to spec.lanes of the TaskQueue",
        )


class QueueFull(Refused):
    """The queue holds as much as its limits allow; nothing was stored.

    `quota` is the field of `spec.limits` that is used up; `current` and `limit` are None if not known.
    """

    reason = "QueueFull"

    def __init__(self, queue: str, quota: str, current: int | None = None, limit: int | None = None) -> None:
        self.queue, self.quota, self.current, self.limit = queue, quota, current, limit
        what = "tasks" if quota == "backlog" else "bytes"
        figures = "" if limit is None else f": {current} of {limit} {what}"
        super().__init__(
            f"queue {queue!r} is full{figures} (spec.limits.{quota})",
            f"wait and submit again, or raise spec.limits.{quota} of the TaskQueue",
        )


class TaskConflict(Refused):
    """The id belongs to another task: one with another handler or another input."""

    reason = "TaskConflict"
    hint = "use another id for a different task; the same id, handler and input are the same task"

    def __init__(self, queue: str, task_id: str, differs: str) -> None:
        self.queue, self.task_id, self.differs = queue, task_id, differs
        super().__init__(f"queue {queue!r} has a task {task_id!r} already, with another {differs}")


class TopicFull(Refused):
    """The topics of the namespace have no room; the event was not stored."""

    reason = "TopicFull"
    hint = "publish again later, when events have expired, or raise spec.retention.bytes"

    def __init__(self, topic: str, problem: str = "") -> None:
        """Args: topic: name of the topic; problem: what the server says."""
        super().__init__(f"topic {topic!r} has no room{f': {problem}' if problem else ''}")
        self.topic, self.problem = topic, problem


class ScheduleTaken(Refused):
    """The queue has a schedule of that name that is declared elsewhere, and nothing was changed."""

    reason = "ScheduleTaken"

    def __init__(self, queue: str, name: str, origin: str) -> None:
        """Args: queue: name of the queue; name: of the schedule; origin: `client`, `code` or `object`."""
        where = {
            "code": "by @task(cron=...)", "object": "as a TaskSchedule", "client": "by a client"
        }  # fmt: skip
        super().__init__(
            f"schedule {name!r} of queue {queue!r} is declared {where.get(origin, origin)}",
            "change it there, or use another name",
        )
        self.queue, self.name, self.origin = queue, name, origin


class IdReserved(Refused):
    """The id is that of a tick of a schedule, whose task alone may have it; nothing was stored."""

    reason = "IdReserved"

    def __init__(self, queue: str, task_id: str, schedule: str) -> None:
        """Args: queue: name of the queue; task_id: the id; schedule: name of the schedule."""
        super().__init__(
            f"id {task_id!r} belongs to a tick of schedule {schedule!r} of queue {queue!r}",
            "choose another id; `galley schedule run-now` runs the task of a schedule beside its ticks",
        )
        self.queue, self.task_id, self.schedule = queue, task_id, schedule


class UniqueConflict(Refused):
    """Another task has the unique key; nothing was stored.

    `task_id` names that task, and `state` says whether it `waits` or `has begun`.
    """

    reason = "UniqueConflict"

    def __init__(self, queue: str, key: str, task_id: str, state: str) -> None:
        self.queue, self.key, self.task_id, self.state = queue, key, task_id, state
        super().__init__(
            f"queue {queue!r} has a task with the unique key {key[:80]!r}: {task_id}, which {state}",
            "wait for it (`client.handle(queue, task_id)`), or submit with on_conflict='existing', or "
            "'replace' if it has not begun",
        )
