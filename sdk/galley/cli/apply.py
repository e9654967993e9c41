"""`galley apply`: the tasks of manifest files."""

import asyncio
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from galley.broker import inspect
from galley.cli.command import Command
from galley.cli.errors import QueueNotServed
from galley.cli.exit_code import ExitCode, exit_code_of
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import Client
from galley.declared import submit_declared
from galley.errors import BrokerUnreachable, GalleyError
from galley.resources import Task, TaskQueue, read_manifests

_AT_ONCE: Final = 64


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
        await _check_queues(client, read, terminal)
        tasks = [each for resources in read.values() for each in resources if isinstance(each, Task)]
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(_submit(client, task, room)) for task in tasks]
    code = ExitCode.DONE
    for task, outcome in zip(tasks, (each.result() for each in running), strict=True):
        if isinstance(outcome, GalleyError):
            terminal.complain(outcome)
            code = exit_code_of(outcome)
        else:
            terminal.result(f"task/{task.metadata.name} {'created' if outcome else 'unchanged'}")
    return code


async def _check_queues(client: Client, read: dict[Path, list[TaskQueue | Task]], terminal: Terminal) -> None:
    """Refuse queues that do not exist yet: making them is the part of whoever runs their workers."""
    declared = {
        (each.metadata.namespace, each.metadata.name): path
        for path, resources in read.items()
        for each in resources
        if isinstance(each, TaskQueue)
    }
    for namespace in {namespace for namespace, _ in declared}:
        there = {view.queue for view in await inspect.queues(client.broker, namespace)}
        for (of, queue), path in declared.items():
            if of == namespace and queue not in there:
                raise QueueNotServed(str(path), queue)
    for _, queue in declared:
        terminal.say(f"taskqueue/{queue} exists already and stays as it is")


async def _submit(client: Client, task: Task, room: asyncio.Semaphore) -> bool | GalleyError:
    """Return whether the task is new, or why it was not taken."""
    async with room:
        try:
            return (await submit_declared(client.broker, task)).created
        except BrokerUnreachable:
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
