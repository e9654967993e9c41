"""`galley result`: the result of one task, waited for if it has not ended."""

from argparse import ArgumentParser, Namespace
from typing import Final

from galley.cli.command import Command, text
from galley.cli.duration import FOREVER, seconds_argument
from galley.cli.exit_code import ExitCode
from galley.cli.server import connected, server_arguments
from galley.cli.task_reference import find_task
from galley.cli.terminal import Terminal
from galley.cli.waiting import wait_for


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("task", metavar="ID|QUEUE/ID", type=text)
    parser.add_argument(
        "--within", type=seconds_argument, default=FOREVER, metavar="SECONDS",
        help="wait at most this long for its end; as long as it takes by default",
    )  # fmt: skip
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        status = await find_task(client, options.task)
        handle = client.handle(status.address.queue, status.address.id)
        within = None if options.within == FOREVER else options.within
        terminal.json(await wait_for(handle, within, terminal))
    return ExitCode.DONE


command: Final = Command(
    "result",
    "Wait for the end of a task and print its result",
    _arguments,
    _run,
    ("galley result thumbnail-hills", "galley result images/thumbnail-stars --within 30"),
)
