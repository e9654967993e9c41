"""A client was asked for something, and it is not there, or was not done in full."""

from galley.errors.tree import GalleyError


class ClientUnusable(GalleyError):
    """A client or a handle was used where it cannot work."""

    reason = "ClientUnusable"


class ClientClosed(ClientUnusable):
    """A client, or a handle it returned, was used outside the `async with` block of the client."""

    reason = "ClientClosed"
    hint = "use it inside its `with` block, or create a new one: galley.Client() or galley.AsyncClient()"

    def __init__(self, server: str) -> None:
        self.server = server
        super().__init__(f"the client for NATS at {server} is closed")


class ClientElsewhere(ClientUnusable):
    """A client, or a handle it returned, was used in another event loop, thread or process."""

    reason = "ClientElsewhere"
    hint = (
        "open it where it is used: `async with galley.AsyncClient() as client:`; or use galley.Client(), "
        "which works in every thread and after a fork"
    )

    def __init__(self, server: str, place: str) -> None:
        self.server, self.place = server, place
        super().__init__(f"the client for NATS at {server} was opened in {place}")


class TaskNotFound(GalleyError):
    """Neither a waiting task nor a record has that id."""

    reason = "TaskNotFound"
    hint = (
        "check the id and the queue; records expire after spec.retention.resultsSeconds, and a task that "
        "failed is in `galley dead list QUEUE` even then"
    )

    def __init__(self, queue: str, task_id: str) -> None:
        self.queue, self.task_id = queue, task_id
        super().__init__(f"there is no task {task_id!r} in queue {queue!r}")


class DeadLetterNotFound(GalleyError):
    """A queue keeps no dead letter of that id."""

    reason = "DeadLetterNotFound"
    hint = (
        "it was redriven or dropped, has expired, or its task did not fail: `galley show QUEUE/ID` shows the "
        "task, `galley dead list QUEUE` the dead letters there are"
    )

    def __init__(self, queue: str, task_id: str) -> None:
        self.queue, self.task_id = queue, task_id
        super().__init__(f"queue {queue!r} keeps no dead letter of a task {task_id!r}")


class ScheduleNotFound(GalleyError):
    """The queue has no schedule of that name."""

    reason = "ScheduleNotFound"
    hint = "check the queue and the namespace; `galley get schedules` lists schedules"

    def __init__(self, queue: str, name: str) -> None:
        """Args: queue: name of the queue; name: name of the schedule."""
        super().__init__(f"queue {queue!r} has no schedule {name!r}")
        self.queue, self.name = queue, name


class TopicNotFound(GalleyError):
    """The namespace has no topic of that name."""

    reason = "TopicNotFound"
    hint = "check the name and the namespace (`galley get topics`), or declare a Topic"

    def __init__(self, namespace: str, topic: str) -> None:
        """Args: namespace: of the topic; topic: its name."""
        super().__init__(f"namespace {namespace!r} has no topic {topic!r}")
        self.namespace, self.topic = namespace, topic


class HopLimit(GalleyError):
    """A handler publishes an event, and its own task came of too many events, one after the other."""

    reason = "HopLimit"
    hint = "a handler must not publish events that start its own task again without limit"

    def __init__(self, topic: str, hops: int) -> None:
        """Args: topic: name of the topic; hops: how many events led to the task."""
        super().__init__(
            f"nothing was published to topic {topic!r}: this task comes from a chain of {hops} events"
        )
        self.topic, self.hops = topic, hops


class ScheduleChanged(GalleyError):
    """A schedule was changed by others each time it was to be changed; nothing was done."""

    reason = "ScheduleChanged"
    hint = "try again; check whether another program keeps changing it"

    def __init__(self, queue: str, name: str) -> None:
        """Args: queue: name of the queue; name: name of the schedule."""
        super().__init__(f"schedule {name!r} of queue {queue!r} was changed several times meanwhile")
        self.queue, self.name = queue, name


class NotRedrivable(GalleyError):
    """A dead letter cannot run again as it is; it stays where it is."""

    reason = "NotRedrivable"

    def __init__(self, queue: str, task_id: str, problem: str, advice: str) -> None:
        self.queue, self.task_id, self.problem, self.advice = queue, task_id, problem, advice
        super().__init__(f"the dead letter {queue}/{task_id} cannot be redriven: {problem}", advice)


class RedriveIncomplete(GalleyError):
    """Not all of many dead letters were redriven; `__cause__` says why. The rest stay as they are."""

    reason = "RedriveIncomplete"
    hint = "fix the cause and redrive again: tasks that were redriven do not run twice"

    def __init__(self, queue: str, redriven: list[str], left: int, problem: str) -> None:
        self.queue, self.redriven, self.left, self.problem = queue, redriven, left, problem
        super().__init__(
            f"{len(redriven)} dead letters of queue {queue!r} were redriven, {left} were not: {problem}"
        )


class CancelIncomplete(GalleyError):
    """Of many tasks that were to be cancelled, not all were."""

    reason = "CancelIncomplete"
    hint = "run it again to cancel the others"

    def __init__(self, queue: str, cancelled: list[str], left: int, problem: str) -> None:
        self.queue, self.cancelled, self.left, self.problem = queue, cancelled, left, problem
        super().__init__(
            f"{len(cancelled)} tasks of queue {queue!r} were cancelled, {left} were not; the first: {problem}"
        )


class DrainTimeout(GalleyError):
    """Tasks of a queue that is drained still run; the queue is paused."""

    reason = "DrainTimeout"
    hint = "wait for them with `galley drain`, cancel them, or start tasks again with `galley resume`"

    def __init__(self, queue: str, seconds: float, held: int) -> None:
        self.queue, self.seconds, self.held = queue, seconds, held
        super().__init__(f"queue {queue!r} is paused, and {held} of its tasks still ran after {seconds:g} s")
