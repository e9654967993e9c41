"""`galley apply`: the tasks, schedules and workflows of manifest files."""

import asyncio
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from galley import dev_file
from galley.broker import queue_view
from galley.broker.errors import BrokerError
from galley.broker.queue_view import QueueView
from galley.broker.records import Records
from galley.cli.command import Command
from galley.cli.errors import QueueChanged, QueueNotServed
from galley.cli.exit_code import ExitCode, exit_code_of
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.declared import submit_declared
from galley.error_group import ungrouped
from galley.errors import GalleyError, QueueNotFound
from galley.record import Outcome
from galley.resources import Task, TaskQueue, TaskSchedule, Topic, Workflow, read_manifests
from galley.resources.manifest import Resource, read_files
from galley.schedule_manifest import apply_schedule
from galley.workflow_manifest import apply_workflow

_AT_ONCE: Final = 64
_UNCHANGED: Final[dict[Outcome | None, str]] = {
    None: "unchanged",
    Outcome.SUCCEEDED: "unchanged",
    Outcome.FAILED: "unchanged: it had failed",
    Outcome.CANCELLED: "unchanged: it had been cancelled",
}
_TOPICS: Final = "give its file to `galley dev`, or on a cluster to `kubectl apply`"
_IN_VAIN: Final = (_UNCHANGED[Outcome.FAILED], _UNCHANGED[Outcome.CANCELLED])


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--file", dest="files", type=Path, nargs="+", action="extend", required=True, metavar="FILE",
        help="manifests of tasks, workflows and schedules; the name of a task is its id",
    )  # fmt: skip
    server_arguments(parser)


async def _run(options: Namespace, terminal: Terminal) -> int:
    # All files are read before the first task is submitted: an error in the last one stops all.
    read = read_files(options.files)
    async with connected(options, terminal) as client:
        placed = {path: [_placed(each, client) for each in resources] for path, resources in read.items()}
        await _check_served(client, placed, _project_of(client, terminal), terminal)
        tasks = [each for resources in placed.values() for each in resources if isinstance(each, Task)]
        for each in (each for resources in placed.values() for each in resources):
            if isinstance(each, Topic):
                terminal.result(f"topic/{each.metadata.name} not applied: {_TOPICS}")
            elif isinstance(each, TaskSchedule):
                changed = await apply_schedule(client, each)
                state = "configured" if changed else "unchanged"
                terminal.result(f"taskschedule/{each.metadata.name} {state}")
            elif isinstance(each, Workflow):
                workflow = await apply_workflow(client, each)
                state = "unchanged" if workflow.existed else "created"
                terminal.result(f"workflow/{each.metadata.name} {state}")
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
        terminal.say("a task that has ended is not run again under its name; give it another name")
    return code


def _project_of(client: AsyncClient, terminal: Terminal) -> Path | None:
    """Return the folder of the `galley dev` the client talks to, if it is one nearby."""
    nearest = dev_file.nearest(terminal.folder)
    if nearest is None or nearest[1].server != client.broker.server:
        return None
    return nearest[0].parent.parent


def _placed(resource: Resource, client: AsyncClient) -> Resource:
    """Return a resource in the namespace the command is about, unless it names its own."""
    metadata = resource.metadata
    if "namespace" in metadata.model_fields_set:
        return resource
    own = metadata.model_copy(update={"namespace": client.namespace})
    return resource.model_copy(update={"metadata": own})


async def _check_served(
    client: AsyncClient, read: dict[Path, list[Resource]], project: Path | None, terminal: Terminal
) -> None:
    """Refuse all if a queue or topic is missing, or a queue differs: this command cannot make them so.

    Raises:
        QueueNotServed, QueueNotFound, QueueChanged, TopicNotFound: about the first one like that.
    """
    there: dict[str, dict[str, QueueView]] = {}
    for path, resources in read.items():
        for each in resources:
            namespace = each.metadata.namespace
            if namespace not in there:
                views = await queue_view.queues(client.broker, namespace)
                there[namespace] = {view.queue: view for view in views}
            if isinstance(each, TaskQueue):
                view = there[namespace].get(each.metadata.name)
                if view is None:
                    raise QueueNotServed(str(path), each.metadata.name)
                terminal.result(_compare(str(path), each, view, project))
            elif missing := [queue for queue in _used(each) if queue not in there[namespace]]:
                raise QueueNotFound(namespace, missing[0])
            elif isinstance(each, Topic):
                await AsyncClient.over(client.broker, namespace).topics.get(each.metadata.name)


def _used(resource: Resource) -> list[str]:
    """Return the queues that have to be there before a resource is applied."""
    match resource:
        case Task() | TaskSchedule():
            return [resource.spec.queue_name]
        case Workflow():
            return [step.queue_name for step in resource.spec.steps]
        case _:
            return []


def _compare(source: str, queue: TaskQueue, view: QueueView, project: Path | None) -> str:
    """Return what to say of a queue that is served as its file says, as far as that can be seen.

    Args:
        source: the file.
        queue: as the file declares it.
        view: its streams.
        project: folder of the `galley dev` that serves it; None if it runs on a cluster.

    Raises:
        QueueNotServed, QueueChanged: if it is not.
    """
    name = queue.metadata.name
    if project is None:
        seen = {"spec.lanes": view.lanes == queue.spec.lanes}
        seen["spec.limits.backlog"] = view.backlog_limit == queue.spec.limits.backlog
        if fields := tuple(field for field, same in seen.items() if not same):
            raise QueueChanged(source, name, fields, f"change it on the cluster: kubectl apply -f {source}")
        return f"taskqueue/{name} not applied: on a cluster that is for kubectl apply"
    served = dev_file.queue_file(project, queue.metadata.namespace, name)
    if not served.exists():
        raise QueueNotServed(source, name)
    (present,) = read_manifests(served)
    fields = tuple(_differing(_plain(present), _plain(queue), "spec"))
    if fields:
        raise QueueChanged(
            source, name, fields, "stop `galley dev` with Ctrl-C, and start it again with the file"
        )
    return f"taskqueue/{name} unchanged"


def _plain(resource: Resource) -> dict[str, Any]:
    return resource.spec.model_dump(mode="json", by_alias=True)


def _differing(present: Any, wanted: Any, place: str) -> Iterator[str]:
    """Yield the fields in which two specs differ."""
    if isinstance(present, dict) and isinstance(wanted, dict):
        for name in sorted(present.keys() | wanted.keys()):
            yield from _differing(present.get(name), wanted.get(name), f"{place}.{name}")
    elif present != wanted:
        yield place


async def _submit(client: AsyncClient, task: Task, room: asyncio.Semaphore) -> str | GalleyError:
    """Return what came of it in words, or why the task was not taken."""
    async with room:
        try:
            submitted = await submit_declared(client.broker, task)
            if submitted.created:
                return "created"
            # A task that failed is not run again by applying it, which must be said.
            stored = await Records(client.broker).look_up(submitted.address)
            outcome = stored.record.outcome if stored else None
            return _UNCHANGED[outcome]
        except BrokerError:
            raise
        except GalleyError as error:
            return error


command: Final = Command(
    "apply",
    "Create the tasks, workflows and schedules of manifest files",
    _arguments,
    _run,
    (
        "galley apply -f examples/folder/tasks.yaml",
        "galley apply -f examples/folder/tasks.yaml examples/folder/queues.yaml",
    ),
)
