"""`galley workflow`: tasks that belong together."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from galley.broker.cancel import Cancelled
from galley.cli.command import Command, text
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.one_by_one import one_by_one
from galley.cli.output import Column, Format, Listing, format_argument, rfc_3339, write_document
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.shown import safe
from galley.workflow.errors import WorkflowNotFound
from galley.workflows import AsyncWorkflow, StepStatus, WorkflowStatus

_ACTIONS: Final = ("list", "show", "cancel", "redrive")
_SHOWN: Final = 200
"""Steps that are drawn; wide groups would fill the terminal."""

_SIGNS: Final = {
    "Waiting": ".", "Running": ">", "Succeeded": "+", "Failed": "x", "Cancelled": "-", "Skipped": "~",
}  # fmt: skip


def _document(status: WorkflowStatus) -> dict[str, Any]:
    """Return a workflow as plain data, with stable names for programs."""
    values = msgspec.to_builtins(
        {
            "queue": status.queue, "id": status.id, "phase": status.phase, "progress": status.progress,
            "steps": status.steps, "succeeded": status.succeeded, "failed": status.failed,
            "skipped": status.skipped, "cancelled": status.cancelled, "failedStep": status.failed_step,
            "message": status.message, "createdAt": status.created_at, "endedAt": status.ended_at,
            "deadline": status.deadline, "continues": status.continues, "continuedBy": status.continued_by,
            "labels": status.labels,
        }
    )  # fmt: skip
    return {name: value for name, value in values.items() if value not in (None, "")}


WORKFLOWS: Final = Listing[WorkflowStatus](
    (
        Column("queue", lambda status: status.queue),
        Column("id", lambda status: status.id),
        Column("phase", lambda status: status.phase),
        Column("progress", lambda status: status.progress),
        Column("failed", lambda status: status.failed_step or None),
        Column("created", lambda status: status.created_at),
        Column("ended", lambda status: status.ended_at),
        Column("deadline", lambda status: status.deadline, wide=True),
        Column("continued by", lambda status: status.continued_by or None, wide=True),
    ),
    name=lambda status: f"{status.queue}/{status.id}",
    document=_document,
    empty="no workflows",
)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", metavar="|".join(_ACTIONS), choices=_ACTIONS)
    parser.add_argument(
        "targets", metavar="QUEUE/ID", type=text, nargs="+", help="workflows; with list, queues"
    )
    format_argument(parser, *Format)
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    if options.action != "list":
        for target in options.targets:
            _one(target)
    async with connected(options, terminal) as client:
        if options.action == "list":
            found = [status for queue in options.targets for status in await client.workflows.list(queue)]
            WORKFLOWS.write(found, options.output, terminal)
            return ExitCode.DONE
        return await one_by_one(
            options.targets, lambda target: _act(client, options, target, terminal), terminal
        )


def _one(target: str) -> tuple[str, str]:
    queue, slash, flow = target.partition("/")
    if not slash or not flow:
        raise Misuse(f"{target!r} names no workflow", f"name one: {queue}/ID; `galley workflow list {queue}`")
    return queue, flow


async def _act(client: AsyncClient, options: Namespace, target: str, terminal: Terminal) -> None:
    workflow = client.workflows.get(*_one(target))
    match options.action:
        case "show":
            await show(workflow, options.output, terminal)
        case "cancel":
            came = await workflow.cancel()
            late = came is Cancelled.TOO_LATE
            terminal.result(f"workflow/{workflow.id}: {'it had ended already' if late else 'cancelled'}")
        case _:
            again = await workflow.redrive()
            terminal.result(f"{again.queue}/{again.id}")


async def show(workflow: AsyncWorkflow[Any], output: Format | None, terminal: Terminal) -> None:
    """Write a workflow with its steps.

    Raises:
        WorkflowNotFound: there is no such workflow.
        BrokerUnreachable: the broker does not answer.
    """
    status = await workflow.status()
    try:
        steps = await workflow.steps()
    except WorkflowNotFound:
        steps = []  # of one that succeeded, the plan is not kept
    if output in (Format.JSON, Format.YAML):
        document = _document(status) | {"graph": msgspec.to_builtins(steps)}
        write_document(document, output, terminal)
        return
    for line in (*_lines(status), *drawn(steps)):
        terminal.result(line)


def _lines(status: WorkflowStatus) -> Iterator[str]:
    counts = f"{status.succeeded} succeeded, {status.failed} failed, {status.skipped} skipped"
    fields = {
        "Workflow": status.id, "Queue": status.queue, "Phase": status.phase,
        "Progress": f"{status.progress} ({counts}, {status.cancelled} cancelled)",
        "Failed": status.failed_step, "Message": status.message, "Created": rfc_3339(status.created_at),
        "Deadline": rfc_3339(status.deadline),
        "Ended": rfc_3339(status.ended_at) if status.ended_at is not None else "",
        "Continues": status.continues, "Continued by": status.continued_by,
    }  # fmt: skip
    for name, value in fields.items():
        if value:
            yield f"{name + ':':<14}{safe(value)}"


def drawn(steps: Sequence[StepStatus]) -> Iterator[str]:
    """Yield a workflow as text, one line for each step, indented by how many steps come before it."""
    depth: dict[str, int] = {}
    for step in steps[:_SHOWN]:
        deep = depth[step.name] = 1 + max((depth.get(name, 0) for name in step.after), default=-1)
        after = f"  after {', '.join(step.after)}" if step.after else ""
        yield safe(f"  {_SIGNS[step.state]} {'  ' * min(deep, 20)}{step.name}  {step.state}{after}")
    if len(steps) > _SHOWN:
        yield f"  ... {len(steps) - _SHOWN} more steps; -o json has all"


command: Final = Command(
    "workflow",
    "List, draw, cancel and redrive workflows",
    _arguments,
    _run,
    (
        "galley workflow show texts/order-42",
        "galley workflow redrive texts/order-42",
    ),
)
