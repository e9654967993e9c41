"""`galley files`: files for tasks that are submitted later, with a manifest or by a program."""

from argparse import ArgumentParser, Namespace
from typing import Final

from galley.cli.command import Command, text
from galley.cli.duration import age_argument
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import task_address
from galley.file import File
from galley.shown import safe_json

_ACTIONS: Final = ("put",)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", metavar="put", choices=_ACTIONS)
    parser.add_argument("queue", metavar="QUEUE", type=text, help="queue of the tasks that use the files")
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="files to store; for each, its reference for the input of a task is printed",
    )
    parser.add_argument(
        "--keep", type=age_argument, default="1h", metavar="DURATION",
        help="how long to keep files that no task uses, such as 30m, 12h or 7d; 1h by default, 30d at most",
    )  # fmt: skip
    server_arguments(parser)


async def _run(options: Namespace, terminal: Terminal) -> int:
    files = [File(terminal.folder / path) for path in options.files]
    async with connected(options, terminal) as client:
        address = task_address(client.namespace, options.queue, "put")
        if client.broker.payloads.keys_of(address) is not None:
            # What stands for the file would contain the key that decrypts it.
            raise Misuse(
                f"queue {options.queue!r} is encrypted, and a manifest is not",
                "galley submit QUEUE HANDLER --file NAME=PATH, or client.put_file in a program",
            )
        for file in files:
            stored = await client.put_file(options.queue, file, keep=options.keep)
            terminal.result(safe_json(bytes(stored.as_json()).decode()))
    return ExitCode.DONE


command: Final = Command(
    "files",
    "Store files that manifests can refer to",
    _arguments,
    _run,
    ("galley files put images input/hills.jpg", "galley files put images input/hills.jpg --keep 7d"),
)
