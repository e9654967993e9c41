"""`galley apply`: the tasks of manifest files."""

import asyncio
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from galley.broker import inspect
from galley.broker.records import Records
from galley.cli.command import Command
from galley.cli.errors import QueueNotServed
from galley.cli.exit_code import ExitCode, exit_code_of
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import Client
from galley.declared import submit_declared
from galley.error_group import ungrouped
from galley.errors import BrokerError, GalleyError, QueueNotFound
from galley.record import Outcome
from galley.resources import Task, TaskQueue, read_manifests

_AT_ONCE: Final = 64
_UNCHANGED: Final[dict[Outcome | None, str]] = {
    None: "unchanged",
    Outcome.SUCCEEDED: "unchanged",
    Outcome.FAILED: "unchanged: it had failed",
    Outcome.CANCELLED: "unchanged: it had been cancelled",
}
_IN_VAIN: Final = (_UNCHANGED[Outcome.FAILED], _UNCHANGED[Outcome.CANCELLED])


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--file", dest="files", type=Path, nargs="+", action="extend", required=True, metavar="FILE",
        help="manifests; the tasks in them are submitted, each under its name",
    )  # fmt: skip
    server_arguments(parser)


async def _run(options: Namespace, terminal: Terminal) -> int:
    # All files are read before the first task goes: a typo in the last one should not leave half behind.
    read = {path: read_manifests(path) for path in options.files}
    async with connected(options, terminal) as client:
        placed = {path: [_placed(each, client) for each in resources] for path, resources in read.items()}
        await _check_queues(client, placed, terminal)
        tasks = [each for resources in placed.values() for each in resources if isinstance(each, Task)]
        room = asyncio.Semaphore(_AT_ONCE)
        with ungrouped():
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(_submit(client, task, room)) for task in tasks]
    code = ExitCode.DONE
    outcomes = [each.result() for each in running]
    for task, outcome in zip(tasks, outcomes, strict=True):
        if isinstance(outcome, GalleyError):
            terminal.complain(outcome)
            code = exit_code_of(outcome)
        else:
            terminal.result(f"task/{task.metadata.name} {outcome}")
    if any(outcome in _IN_VAIN for outcome in outcomes):
        terminal.say("what has ended is not run again under its name; give the task another one")
    return code


def _placed(resource: TaskQueue | Task, client: Client) -> TaskQueue | Task:
    """Return a resource in the namespace the command is about, unless it names its own."""
    metadata = resource.metadata
    if "namespace" in metadata.model_fields_set:
        return resource
    own = metadata.model_copy(update={"namespace": client.namespace})
    return resource.model_copy(update={"metadata": own})


async def _check_queues(client: Client, read: dict[Path, list[TaskQueue | Task]], terminal: Terminal) -> None:
    """Refuse all if a queue is missing: making one is the part of whoever runs its workers."""
    there: dict[str, set[str]] = {}
    for path, resources in read.items():
        for each in resources:
            namespace = each.metadata.namespace
            if namespace not in there:
                views = await inspect.queues(client.broker, namespace)
                there[namespace] = {view.queue for view in views}
            if isinstance(each, TaskQueue):
                if each.metadata.name not in there[namespace]:
                    raise QueueNotServed(str(path), each.metadata.name)
                terminal.say(f"taskqueue/{each.metadata.name} exists already and stays as it is")
            elif each.spec.queue_name not in there[namespace]:
                raise QueueNotFound(namespace, each.spec.queue_name)


async def _submit(client: Client, task: Task, room: asyncio.Semaphore) -> str | GalleyError:
    """Return what came of it in words, or why the task was not taken."""
    async with room:
        try:
            submitted = await submit_declared(client.broker, task)
            if submitted.created:
                return "created"
            # Who corrects a task that failed and applies it again must hear that it did not run.
            stored = await Records(client.broker).look_up(submitted.address)
            outcome = stored.record.outcome if stored else None
            return _UNCHANGED[outcome]
        except BrokerError:
            raise
        except GalleyError as error:
            return error


command: Final = Command(
    "apply",
    "Submit the tasks of manifest files; a task that is there already stays as it is",
    _arguments,
    _run,
    (
        "galley apply -f examples/folder/tasks.yaml",
        "galley apply -f examples/folder/tasks.yaml examples/folder/queues.yaml",
    ),
)
