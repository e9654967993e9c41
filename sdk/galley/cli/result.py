"""`galley result`: the result of one task, waited for if it has not ended."""

import asyncio
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from galley.cli.command import Command, text
from galley.cli.duration import FOREVER, seconds_argument
from galley.cli.exit_code import ExitCode
from galley.cli.server import connected, server_arguments
from galley.cli.task_reference import find_task
from galley.cli.terminal import Terminal
from galley.cli.waiting import wait_for
from galley.client import AsyncClient
from galley.file import File
from galley.json_value import encode_value
from galley.objects.errors import FileUnreadable


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("task", metavar="ID|QUEUE/ID", type=text)
    parser.add_argument(
        "--within", type=seconds_argument, default=FOREVER, metavar="SECONDS",
        help="wait at most this long for the task to end; without a limit by default",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="write the result to this file: its content if it is a file, else JSON",
    )  # fmt: skip
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        status = await find_task(client, options.task)
        handle = client.handle(status.address.queue, status.address.id)
        within = None if options.within == FOREVER else options.within
        value = await wait_for(handle, within, terminal)
        if options.output is None:
            terminal.json(value)
        else:
            terminal.say(f"written to {await _written(client, value, terminal.folder / options.output)}")
    return ExitCode.DONE


async def _written(client: AsyncClient, value: object, path: Path) -> Path:
    if isinstance(value, File):
        return await client.download(value, path)
    try:
        await asyncio.to_thread(path.write_bytes, encode_value(value) + b"\n")
    except OSError as error:
        raise FileUnreadable(str(path), error.strerror or type(error).__name__) from None
    return path


command: Final = Command(
    "result",
    "Wait for the end of a task and print its result",
    _arguments,
    _run,
    (
        "galley result thumbnail-hills --within 30",
        "galley result images/thumbnail-stars --within 30 --output stars.json",
    ),
)
