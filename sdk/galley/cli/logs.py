"""`galley logs`: what the handler of a task wrote."""

from argparse import ArgumentParser, Namespace
from typing import Any, Final

import msgspec

from galley.cli.command import Command, text
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.output import Format, format_argument, rfc_3339
from galley.cli.server import connected, server_arguments
from galley.cli.task_reference import find_task
from galley.cli.terminal import Terminal
from galley.note import LogLine


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("task", metavar="ID|QUEUE/ID", type=text)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="print new output until the task has ended"
    )
    parser.add_argument("--attempt", type=_number, metavar="NUMBER", help="only this attempt; all by default")
    parser.add_argument("--timestamps", action="store_true", help="print the time of each line")
    format_argument(parser, Format.JSON)
    server_arguments(parser, reads=True)


def _number(argument: str) -> int:
    if not argument.isdecimal() or not 1 <= int(argument[:10]) < 2**31:
        raise Misuse(f"{argument[:40]!r} is not the number of an attempt", "attempts count from 1")
    return int(argument)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        status = await find_task(client, options.task)
        handle = client.handle(status.address.queue, status.address.id)
        printed = _Printed(options, terminal)
        if options.follow:
            async for line in handle.follow_logs(options.attempt):
                printed.line(line)
        else:
            for line in await handle.logs(options.attempt):
                printed.line(line)
    if not printed.any and terminal.interactive:
        terminal.say(f"task {status.address.queue}/{status.address.id} wrote nothing that is kept")
    return ExitCode.DONE


class _Printed:
    """Prints lines, and where another attempt begins."""

    def __init__(self, options: Namespace, terminal: Terminal) -> None:
        self._options, self._terminal = options, terminal
        self._attempt = (0, "")
        self.any = False

    def line(self, line: LogLine) -> None:
        """Print a line."""
        self.any = True
        if self._options.output is Format.JSON:
            self._terminal.json(_document(line))
            return
        attempt = line.attempt, line.worker
        if attempt != self._attempt:
            self._attempt = attempt
            self._terminal.say(f"attempt {line.attempt} on worker {line.worker}:")
        time = f"{rfc_3339(line.at)} " if self._options.timestamps else ""
        notice = "galley: " if line.stream == "galley" else ""
        fields = "".join(f" {name}={_json(value)}" for name, value in line.fields.items())
        self._terminal.result(f"{time}{notice}{line.text}{fields}")


def _document(line: LogLine) -> dict[str, Any]:
    document = {
        "at": rfc_3339(line.at), "attempt": line.attempt, "worker": line.worker, "stream": line.stream,
        "level": line.level, "logger": line.logger, "text": line.text,
        "fields": line.fields,
    }  # fmt: skip
    return {name: value for name, value in document.items() if value not in ("", {})}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


command: Final = Command(
    "logs",
    "Print the output of a task's handler, of all attempts",
    _arguments,
    _run,
    ("galley logs thumbnail-hills", "galley logs images/thumbnail-stars --attempt 2"),
)
