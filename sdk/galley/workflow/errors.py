"""What can go wrong with workflows.

GalleyError
├── Refused
│   ├── WorkflowInvalid      there can be no such workflow
│   ├── WorkflowConflict     the id is in use for another one
│   ├── WorkflowsFull        the queue has no room for further ones
│   └── WorkflowNotFailed    it has nothing to run again
├── WorkflowNotFound         there is none of that id
├── TaskFailed
│   └── WorkflowFailed       a step of it failed
└── TaskCancelled
    └── WorkflowCancelled    it was cancelled
"""

from galley.errors import GalleyError, Refused, TaskCancelled, TaskEnded, TaskFailed


class WorkflowInvalid(Refused):
    """There can be no such workflow; nothing was stored."""

    reason = "WorkflowInvalid"

    def __init__(self, where: str, problem: str, hint: str) -> None:
        """Args: where: the step, or what of the workflow; problem: what is wrong; hint: what to do."""
        self.where, self.problem = where, problem
        super().__init__(f"{where}: {problem}", hint)


class WorkflowNotFound(GalleyError):
    """A queue has no workflow of that id, it has expired, or it succeeded and its steps are not kept."""

    reason = "WorkflowNotFound"
    hint = (
        "look at `galley workflow list`; one that has ended is kept as long as results of its queue, and the "
        "steps of one that succeeded are not kept"
    )

    def __init__(self, queue: str, workflow: str) -> None:
        super().__init__(f"queue {queue!r} has no workflow {workflow!r}")
        self.queue, self.workflow = queue, workflow


class WorkflowConflict(Refused):
    """The id is in use for another workflow; nothing was stored."""

    reason = "WorkflowConflict"
    hint = "use another id, or wait until the other one has expired"

    def __init__(self, queue: str, workflow: str) -> None:
        super().__init__(f"queue {queue!r} has another workflow {workflow!r}")
        self.queue, self.workflow = queue, workflow


class WorkflowsFull(Refused):
    """The queue has no room for further workflows; nothing was stored."""

    reason = "WorkflowsFull"
    hint = "wait until others have ended, or raise spec.limits.workflowBytes of the queue"

    def __init__(self, queue: str, used: int, limit: int) -> None:
        super().__init__(f"queue {queue!r}: workflows use {used} of {limit} bytes")
        self.queue, self.used, self.limit = queue, used, limit


class WorkflowNotFailed(Refused):
    """Only a workflow that failed or was cancelled can be run again from where it ended."""

    reason = "WorkflowNotFailed"
    hint = "wait until it has ended, or submit a new one"

    def __init__(self, queue: str, workflow: str, state: str) -> None:
        super().__init__(f"workflow {workflow!r} of queue {queue!r} {state}")
        self.queue, self.workflow, self.state = queue, workflow, state


class WorkflowFailed(TaskFailed):
    """A step of the workflow failed and will not be retried; what had succeeded need not run again."""

    reason = "WorkflowFailed"

    def __init__(self, queue: str, workflow: str, why: str, message: str) -> None:
        self.queue, self.workflow = queue, workflow
        self.task_id, self.why, self.message = workflow, why, message
        TaskEnded.__init__(
            self, f"workflow {workflow} failed: {message}",
            f"galley workflow show {queue}/{workflow} shows its steps; galley workflow redrive runs the rest",
        )  # fmt: skip


class WorkflowCancelled(TaskCancelled):
    """The workflow was cancelled."""

    reason = "WorkflowCancelled"

    def __init__(self, queue: str, workflow: str) -> None:
        self.queue, self.workflow = queue, workflow
        self.task_id, self.why = workflow, ""
        TaskEnded.__init__(
            self, f"workflow {workflow} was cancelled",
            f"galley workflow redrive {queue}/{workflow} runs the steps that had not succeeded",
        )  # fmt: skip
