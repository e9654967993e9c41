"""Why there is no result."""

from galley.errors.tree import GalleyError


class TaskEnded(GalleyError):
    """The task ended without a result."""

    reason = "TaskEnded"


class TaskFailed(TaskEnded):
    """The task failed and will not be retried; it is kept as a dead letter."""

    reason = "TaskFailed"

    def __init__(self, task_id: str, why: str, message: str) -> None:
        self.task_id, self.why, self.message = task_id, why, message
        super().__init__(
            f"task {task_id} failed ({why}): {message}", f"galley show {task_id} shows each attempt"
        )


class TaskCancelled(TaskEnded):
    """The task was cancelled, or another one took its place."""

    reason = "TaskCancelled"

    def __init__(self, task_id: str, why: str = "") -> None:
        self.task_id, self.why = task_id, why
        super().__init__(f"task {task_id} was cancelled{': ' if why else ''}{why}")


class ResultMismatch(GalleyError):
    """A task succeeded, and what its handler returned is not of the type in its annotation."""

    reason = "ResultMismatch"
    hint = (
        "check that producer and worker have the same version of the handler, and that it returns what its "
        "annotation says; `galley show ID` prints the result"
    )

    def __init__(self, task_id: str, problem: str) -> None:
        self.task_id, self.problem = task_id, problem
        super().__init__(f"the result of task {task_id} does not match its handler's annotation: {problem}")


class ResultTimeout(GalleyError):
    """The task had not ended when the caller stopped waiting; the task continues."""

    reason = "ResultTimeout"

    def __init__(self, task_id: str, seconds: float, worker_problem: str = "") -> None:
        self.task_id, self.seconds, self.worker_problem = task_id, seconds, worker_problem
        why = f"; {worker_problem}" if worker_problem else ""
        super().__init__(
            f"task {task_id} had not ended after {seconds:g} s{why}",
            f"wait longer, or check its progress: galley show {task_id}",
        )
