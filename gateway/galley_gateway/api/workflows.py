"""Operations on workflows: tasks that belong together."""

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct
from pydantic import ValidationError
from starlette.responses import Response

from galley import workflow_manifest as declared
from galley.bounds import HANDLER_PATTERN, NAME_PATTERN, strict
from galley.broker.flow_values import Place
from galley.errors import LaneNotEnabled, QueueNotFound
from galley.lanes import Lane
from galley.resources.problem import explain, field_path
from galley.resources.workflow import WorkflowSpec
from galley.workflow.errors import (
    WorkflowConflict,
    WorkflowInvalid,
    WorkflowNotFailed,
    WorkflowNotFound,
    WorkflowsFull,
)
from galley.workflows import AsyncWorkflow, StepStatus, WorkflowStatus
from galley_gateway.access import Right
from galley_gateway.api import model
from galley_gateway.api.paging import PAGED, cut
from galley_gateway.api.queues import QUEUE
from galley_gateway.api.tasks import note_submit
from galley_gateway.errors import RequestInvalid
from galley_gateway.operation import ROOT, Ask, Operation, reply

WORKFLOWS: Final = f"{QUEUE}/workflows"
WORKFLOW: Final = f"{WORKFLOWS}/{{id}}"


class StepView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A step of a workflow."""

    name: str
    state: Annotated[
        str, Meta(description="`Waiting`, `Running`, `Succeeded`, `Failed`, `Cancelled` or `Skipped`.")
    ]
    queue: str
    task_id: Annotated[str, Meta(description="Its task, once all before it have succeeded.")]
    after: Annotated[
        list[str], Meta(description="What it depends on; of a wide group the first and the last.")
    ] = []


class WorkflowDocument(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A workflow, and how far it is."""

    id: str
    queue: str
    phase: Annotated[str, Meta(description="`Running`, `Succeeded`, `Failed` or `Cancelled`.")]
    steps: int
    succeeded: int
    failed: int
    skipped: int
    cancelled: int
    created_at: datetime
    deadline: datetime
    ended_at: datetime | None = None
    failed_step: str = ""
    message: str = ""
    continues: str = ""
    continued_by: str = ""
    labels: dict[str, str] = {}
    graph: list[StepView] | None = None


class NewStep(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A step of a workflow."""

    name: Annotated[str, Meta(pattern=strict(NAME_PATTERN), max_length=63)]
    handler: Annotated[str, Meta(pattern=strict(HANDLER_PATTERN), max_length=63)]
    queue_name: Annotated[str, Meta(description="Its queue; that of the path if left out.")] = ""
    input: Annotated[
        Any,
        Meta(description="An argument `${steps.NAME.result}` is the result of that step, or a part of it."),
    ] = {}
    depends_on: Annotated[list[str], Meta(description="Further steps that have to succeed first.")] = []
    priority: Lane = Lane.NORMAL
    timeout_seconds: int | None = None
    retry: Annotated[dict[str, Any] | None, Meta(description="As `spec.retry` of a Task.")] = None


class NewWorkflow(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A workflow to submit: the steps of a Workflow manifest."""

    steps: Annotated[list[NewStep], Meta(min_length=1, max_length=1000)]
    id: Annotated[str | None, Meta(description="An id of your own, so that a repetition is safe.")] = None
    labels: dict[str, str] | None = None
    on_failure: Literal["stop", "continue", "collect"] = "stop"
    timeout_seconds: int = 86_400

    def spec(self, queue: str) -> dict[str, Any]:
        """Return it as the `spec` of a manifest.

        Args:
            queue: that of steps that name none.
        """
        steps = [
            {
                name: value
                for name, value in msgspec.to_builtins(each).items()
                if value is not None and name != "queueName"
            }
            | {"queueName": each.queue_name or queue}
            for each in self.steps
        ]
        return {"steps": steps, "onFailure": self.on_failure, "timeoutSeconds": self.timeout_seconds}


class WorkflowList(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A page of the workflows of a queue, newest first."""

    workflows: list[WorkflowDocument]
    total: int
    next: str = ""


async def submit_workflow(ask: Ask) -> Response:
    """Submit a workflow of steps, by the rules of a Workflow manifest."""
    new: NewWorkflow = ask.body
    try:
        spec = WorkflowSpec.model_validate(new.spec(ask.queue), by_alias=True, by_name=False)
    except ValidationError as invalid:
        raise RequestInvalid(*_problem(invalid)) from None
    queues = {step.queue_name for step in spec.steps}
    if ask.queue not in queues:
        raise RequestInvalid(
            "steps", f"none is for queue {ask.queue!r}", "submit it to the queue of its first step"
        )
    await _check_queues(ask, "create", queues)
    workflow = await declared.submit_workflow(ask.client, new.id, spec, new.labels)
    if not workflow.existed:
        await note_submit(ask, workflow.id, detail="workflow")
    stored = model.Submitted(workflow.id, ask.namespace, workflow.queue, workflow.existed)
    return reply(stored, 200 if stored.existed else 201, {"Location": _path(ask, workflow)})


def _problem(invalid: ValidationError) -> tuple[str, str, str]:
    place, problem, hint = explain(WorkflowSpec, invalid.errors(include_url=False)[0])
    return field_path(place) or "steps", problem, hint


async def list_workflows(ask: Ask) -> Response:
    """Return a page of the workflows of a queue, newest first."""
    found = (await ask.client.workflows.list(ask.queue))[::-1]
    some, following = cut(found, ask.query)
    return reply(WorkflowList([workflow_view(status) for status in some], len(found), following))


async def get_workflow(ask: Ask) -> Response:
    """Return one workflow with its steps."""
    workflow = ask.client.workflows.get(ask.queue, ask.name)
    status = await workflow.status()
    return reply(workflow_view(status, await steps_of(workflow)))


async def cancel_workflow(ask: Ask) -> Response:
    """Cancel a workflow, whatever of it runs."""
    workflow = ask.client.workflows.get(ask.queue, ask.name)
    await _check_queues(ask, "delete", _queues_of(await steps_of(workflow)))
    return reply(model.CancelView((await workflow.cancel()).value))


async def redrive_workflow(ask: Ask) -> Response:
    """Run what did not succeed of a workflow, as a new one."""
    workflow = ask.client.workflows.get(ask.queue, ask.name)
    place = Place(ask.namespace, workflow.queue, workflow.id)
    again = await ask.client.workflows.redrive(place, check=partial(_check_queues, ask, "patch"))
    stored = model.Submitted(again.id, ask.namespace, again.queue, again.existed)
    return reply(stored, 201, {"Location": _path(ask, again)})


def _path(ask: Ask, workflow: AsyncWorkflow[object]) -> str:
    return f"{ROOT}/namespaces/{ask.namespace}/queues/{workflow.queue}/workflows/{workflow.id}"


def _queues_of(steps: Iterable[StepStatus]) -> set[str]:
    return {step.queue for step in steps if step.queue}


async def steps_of(workflow: AsyncWorkflow[object]) -> list[StepStatus]:
    """Return the steps of a workflow; none of one that succeeded, whose plan is not kept."""
    try:
        return await workflow.steps()
    except WorkflowNotFound:
        return []


async def _check_queues(ask: Ask, verb: str, queues: set[str]) -> None:
    """Check that the user has a right on each queue a workflow has steps in: they may be others' queues.

    Raises:
        NotPermitted: if they do not.
        AccessUnknown: if that cannot be found out.
    """
    for queue in sorted(queues - {ask.queue}):
        await ask.gateway.access.check(ask.user, Right(verb, "tasks"), ask.namespace, queue)


def workflow_view(status: WorkflowStatus, steps: list[StepStatus] | None = None) -> WorkflowDocument:
    """Return a workflow."""
    graph = None if steps is None else [
        StepView(each.name, each.state, each.queue, each.task_id, list(each.after)) for each in steps
    ]  # fmt: skip
    return WorkflowDocument(
        status.id, status.queue, status.phase, status.steps, status.succeeded, status.failed, status.skipped,
        status.cancelled, status.created_at, status.deadline, status.ended_at, status.failed_step,
        status.message, status.continues, status.continued_by, status.labels or {}, graph,
    )  # fmt: skip


_VIEW: Final = {
    "id": "0c5nqSYtGkDaxAVzBqNEJw", "queue": "orders", "phase": "Running", "steps": 2, "succeeded": 1,
    "failed": 0, "skipped": 0, "cancelled": 0, "createdAt": "2026-01-01T12:00:00Z",
    "deadline": "2026-01-02T12:00:00Z",
}  # fmt: skip
_GRAPH: Final = {
    "graph": [
        {"name": "charge", "state": "Succeeded", "queue": "orders", "taskId": "wf-0c5nqSYtGkDaxAVzBqNEJw-1"},
        {"name": "ship", "state": "Waiting", "queue": "orders", "taskId": "wf-0c5nqSYtGkDaxAVzBqNEJw-2",
         "after": ["charge"]},
    ],
}  # fmt: skip

OPERATIONS: Final = (
    Operation(
        "submitWorkflow", "POST", WORKFLOWS, Right("create", "tasks"), submit_workflow, "Submit a workflow",
        "Steps, and what each depends on, as in a Workflow manifest. Needs the right on each queue it has "
        "steps in. The same workflow under the same `id` is submitted once.",
        takes=NewWorkflow, answers=model.Submitted,
        status=((201, "It was submitted."), (200, "It was there before.")),
        example={"id": "order-7", "steps": [
            {"name": "charge", "handler": "charge", "input": {"order": 7}},
            {"name": "ship", "handler": "ship", "input": {"payment": "${steps.charge.result}"}},
        ]},
        example_answer={"id": "order-7", "namespace": "default", "queue": "orders"},
        fails=(QueueNotFound, LaneNotEnabled, WorkflowInvalid, WorkflowConflict, WorkflowsFull),
    ),
    Operation(
        "listWorkflows", "GET", WORKFLOWS, Right("list", "tasks"), list_workflows,
        "List the workflows of a queue", "Those whose first step is in it, newest first.",
        answers=WorkflowList, parameters=PAGED,
        example_answer={"workflows": [_VIEW], "total": 1}, fails=(QueueNotFound,),
    ),
    Operation(
        "getWorkflow", "GET", WORKFLOW, Right("get", "tasks"), get_workflow, "Look at a workflow",
        "With its steps and what each comes after; of one that succeeded, the steps are not kept.",
        answers=WorkflowDocument, example_answer=_VIEW | _GRAPH,
        fails=(WorkflowNotFound, QueueNotFound),
    ),
    Operation(
        "cancelWorkflow", "POST", f"{WORKFLOW}/cancel", Right("delete", "tasks"), cancel_workflow,
        "Cancel a workflow",
        "No further step begins, and what runs is stopped. Needs the right on each queue it has steps in.",
        answers=model.CancelView, example_answer={"outcome": "cancelled before it ran"},
        fails=(WorkflowNotFound, QueueNotFound),
    ),
    Operation(
        "redriveWorkflow", "POST", f"{WORKFLOW}/redrive", Right("patch", "tasks"), redrive_workflow,
        "Run the rest of a workflow that failed",
        "As a new workflow; what succeeded does not run again. Needs the right on each queue it has steps "
        "in.",
        answers=model.Submitted, status=((201, "The new workflow."),),
        fails=(WorkflowNotFound, WorkflowNotFailed, WorkflowsFull),
    ),
)  # fmt: skip
