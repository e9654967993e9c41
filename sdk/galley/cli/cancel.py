"""`galley cancel`: stops tasks, whatever state they are in; one by one, or many of a queue."""

from argparse import ArgumentParser, Namespace
from typing import Final

from galley.cli.command import Command, text
from galley.cli.confirm import confirm_argument, confirmed
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.one_by_one import one_by_one
from galley.cli.selection import selected, selection_arguments, selects
from galley.cli.server import connected, server_arguments
from galley.cli.task_reference import find_task
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.queues import UNFINISHED
from galley.task_status import TaskStatus


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("tasks", metavar="ID|QUEUE/ID", type=text, nargs="*")
    parser.add_argument(
        "--queue", type=text, metavar="QUEUE", help="instead of ids: all matching tasks of this queue"
    )
    selection_arguments(parser)
    confirm_argument(parser)
    server_arguments(parser)


async def _run(options: Namespace, terminal: Terminal) -> int:
    if bool(options.tasks) is bool(options.queue):
        raise Misuse(
            "either ids or --queue has to be given", "galley cancel ID..., or --queue QUEUE -l team=a"
        )
    if options.tasks and selects(options):
        raise Misuse("options that select need --queue", "galley cancel --queue QUEUE --handler NAME")
    async with connected(options, terminal) as client:
        if options.queue:
            found = await client.queues.find(options.queue, selected(options))
            meant = [status for status in found if status.phase in UNFINISHED]
            return await cancel_counted(client, options.queue, meant, terminal, options)
        return await one_by_one(
            options.tasks, lambda reference: _cancel(client, options, reference, terminal), terminal
        )


async def cancel_counted(
    client: AsyncClient, queue: str, meant: list[TaskStatus], terminal: Terminal, options: Namespace
) -> int:
    """Cancel tasks of a queue, once a person who knows how many they are agrees."""
    if not meant:
        terminal.say(f"queue/{queue}: no unfinished task fits")
        return ExitCode.DONE
    phases = ", ".join(
        f"{number} {phase}"
        for phase in UNFINISHED
        if (number := sum(status.phase is phase for status in meant))
    )
    many = "1 task" if len(meant) == 1 else f"{len(meant)} tasks"
    if not confirmed(f"cancel {many} of queue {queue} ({phases})", terminal, options):
        return ExitCode.DONE if options.dry_run else ExitCode.FAILED
    done = await client.queues.cancel_these(queue, meant)
    terminal.result(f"queue/{queue}: {len(done)} cancelled")
    if left := len(meant) - len(done):
        terminal.say(f"{left} had ended meanwhile")
    return ExitCode.DONE


async def _cancel(client: AsyncClient, options: Namespace, reference: str, terminal: Terminal) -> None:
    status = await find_task(client, reference)
    found = status.address
    if options.dry_run:
        deed = "would be cancelled" if status.phase in UNFINISHED else "has ended"
        terminal.result(f"task/{found.id}: {status.phase}, {deed}")
    else:
        outcome = await client.handle(found.queue, found.id).cancel()
        terminal.result(f"task/{found.id}: {outcome}")


command: Final = Command(
    "cancel",
    "Cancel tasks, waiting or running",
    _arguments,
    _run,
    ("galley cancel thumbnail-hills images/thumbnail-stars", "galley cancel --queue images -l customer=ada"),
)
