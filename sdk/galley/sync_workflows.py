"""Workflows, for programs without an event loop."""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from galley.broker.cancel import Cancelled
from galley.calls import check_queue_name
from galley.portal import Portal
from galley.typed import Typed
from galley.when import When
from galley.workflow.continuation import DAY_SECONDS
from galley.workflow.shape import Item
from galley.workflow.state import OnFailure
from galley.workflows import (
    AsyncWorkflow,
    StepStatus,
    WorkflowStatus,
    check_workflow_id,
)

R = TypeVar("R")
T = TypeVar("T")


class Workflows:
    """The workflows of a namespace: `AsyncWorkflows`, which says what each call raises."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def submit(
        self, item: Item, *, id: str | None = None, when: When | None = None,  # noqa: A002 - its name
        on_failure: OnFailure | str = OnFailure.STOP, timeout_seconds: float = DAY_SECONDS,
        labels: dict[str, str] | None = None,
    ) -> "Workflow[Any]":  # fmt: skip
        """Submit a workflow, and return when the broker has all of it on disk: `AsyncWorkflows.submit`."""
        made: AsyncWorkflow[Any] = self._portal.call(
            lambda client: client.workflows.submit(
                item, id=id, when=when, on_failure=on_failure, timeout_seconds=timeout_seconds, labels=labels
            )
        )
        return workflow_of(self._portal, made)

    def get(self, queue: str, id: str) -> "Workflow[Any]":  # noqa: A002 - its name
        """Return a handle on a workflow submitted earlier, by this or another program."""
        check_queue_name(queue)
        return Workflow(self._portal, queue, check_workflow_id(id))

    def list(self, queue: str) -> list[WorkflowStatus]:
        """Return the workflows of a queue, oldest first; ended ones until they expire."""
        return self._portal.call(lambda client: client.workflows.list(queue))


class Workflow(Generic[R]):
    """A submitted workflow, one handle for the whole: `AsyncWorkflow`, which says what each call raises."""

    def __init__(
        self, portal: Portal, queue: str, id: str, result: Typed | None = None,  # noqa: A002 - its name
        *, existed: bool = False,
    ) -> None:  # fmt: skip
        self._portal = portal
        self.queue, self.id = queue, id
        self.existed = existed
        """Whether it was there before this submission, which then added nothing."""
        self._result = result

    def __repr__(self) -> str:
        return f"<workflow {self.queue}/{self.id}>"

    def result(self, within: float | None = None, *, hold_slot: bool = False) -> R:
        """Wait until the workflow has ended and return its result."""
        return self._call(lambda it: it.result(within, hold_slot=hold_slot))

    def wait(self, within: float | None = None, *, hold_slot: bool = False) -> WorkflowStatus:
        """Wait until the workflow has ended, however it did, and return its status."""
        return self._call(lambda it: it.wait(within, hold_slot=hold_slot))

    def status(self) -> WorkflowStatus:
        """Return how far the workflow is."""
        return self._call(lambda it: it.status())

    def steps(self) -> list[StepStatus]:
        """Return all steps, in the order in which they were written."""
        return self._call(lambda it: it.steps())

    def cancel(self) -> Cancelled:
        """Cancel the workflow: no further step begins, and what runs is stopped."""
        return self._call(lambda it: it.cancel())

    def redrive(self) -> "Workflow[R]":
        """Run what did not succeed of a workflow that failed or was cancelled, as a new workflow."""
        return workflow_of(self._portal, self._call(lambda it: it.redrive()))

    def _call(self, ask: Callable[[AsyncWorkflow[R]], Coroutine[Any, Any, T]]) -> T:
        return self._portal.call(lambda client: ask(client.workflows.get(self.queue, self.id, self._result)))


def workflow_of(portal: Portal, made: AsyncWorkflow[R]) -> Workflow[R]:
    """Return a workflow for programs without an event loop."""
    return Workflow(portal, made.queue, made.id, made.result_type, existed=made.existed)
