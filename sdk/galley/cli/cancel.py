"""`galley cancel`: stops tasks, whatever state they are in."""

from argparse import ArgumentParser, Namespace
from typing import Final

from galley.broker.errors import BrokerError
from galley.cli.command import Command, text
from galley.cli.exit_code import ExitCode, exit_code_of
from galley.cli.server import connected, server_arguments
from galley.cli.task_reference import find_task
from galley.cli.terminal import Terminal
from galley.errors import GalleyError


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("tasks", metavar="ID|QUEUE/ID", type=text, nargs="+")
    server_arguments(parser)


async def _run(options: Namespace, terminal: Terminal) -> int:
    code = ExitCode.DONE
    async with connected(options, terminal) as client:
        for reference in options.tasks:
            try:
                found = (await find_task(client, reference)).address
                outcome = await client.handle(found.queue, found.id).cancel()
                terminal.result(f"task/{found.id}: {outcome}")
            except BrokerError:
                raise
            except GalleyError as error:
                terminal.complain(error)
                code = exit_code_of(error)
    return code


command: Final = Command(
    "cancel",
    "Cancel tasks: a waiting task is not started, a running attempt is stopped",
    _arguments,
    _run,
    ("galley cancel thumbnail-hills", "galley cancel images/thumbnail-stars texts/summary"),
)
