"""`galley submit`: one task, from the shell."""

import json
from argparse import ArgumentParser, Namespace
from datetime import timedelta
from typing import Any, Final

from msgspec import Raw

from galley.calls import Call
from galley.cli.command import Command, one_of, text
from galley.cli.duration import FOREVER, seconds_argument
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.labels import label_argument
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.cli.waiting import wait_for
from galley.envelope import NO_INPUT, encode_input
from galley.errors import InputInvalid
from galley.file import File, files_of_input
from galley.handle import AsyncHandle
from galley.lanes import HIGHEST_FIRST, Lane
from galley.reference import INLINE_LIMIT, LARGEST
from galley.unique import OnConflict, Unique
from galley.when import LONGEST_TIMEOUT_SECONDS, When


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", type=text)
    parser.add_argument("handler", metavar="HANDLER", type=text)
    parser.add_argument(
        "input", metavar="JSON", type=text, nargs="?",
        help="the handler's input; for a Python function an object with its arguments by name; `-` reads it "
        "from standard input",
    )  # fmt: skip
    parser.add_argument(
        "--lane", type=one_of("a lane", HIGHEST_FIRST), default=Lane.NORMAL, metavar="LANE",
        help=f"{', '.join(HIGHEST_FIRST)}; normal by default",
    )  # fmt: skip
    parser.add_argument(
        "--file", dest="files", type=text, action="append", default=[], metavar="NAME=PATH",
        help="a file as the argument NAME of the handler; may be repeated",
    )  # fmt: skip
    label_argument(parser)
    parser.add_argument("--id", type=text, help="choose the id: the same id with the same input is one task")
    parser.add_argument(
        "--unique-key", type=text, metavar="KEY",
        help="while this task has not ended, no other task of the queue can have this key",
    )  # fmt: skip
    parser.add_argument(
        "--on-conflict", type=one_of("what to do", tuple(OnConflict)), metavar="WHAT",
        help="if another task has the unique key: reject (the default), existing, or replace",
    )  # fmt: skip
    parser.add_argument(
        "--key", type=text, metavar="KEY",
        help="fair-share key: keys take turns, and the queue can limit how many tasks of a key run at once",
    )  # fmt: skip
    parser.add_argument(
        "--delay",
        type=seconds_argument,
        metavar="SECONDS",
        help="do not start within this many seconds from now",
    )
    parser.add_argument(
        "--deadline", type=seconds_argument, metavar="SECONDS", help="give up this many seconds from now"
    )
    parser.add_argument("--timeout", type=_timeout, metavar="SECONDS", help="time limit of one attempt")
    parser.add_argument(
        "--wait", type=seconds_argument, nargs="?", const=FOREVER, metavar="SECONDS",
        help="wait for the result and print it instead of the id; for at most SECONDS, if given",
    )  # fmt: skip
    server_arguments(parser)


def _timeout(text: str) -> float:
    value = seconds_argument(text)
    if not 0 < value <= LONGEST_TIMEOUT_SECONDS:
        raise Misuse(f"invalid timeout: {text} s", "use more than 0 and at most a day")
    return value


def _input(options: Namespace, terminal: Terminal) -> tuple[Raw, tuple[File, ...]]:
    """Return the input as JSON, and the files in it.

    Raises:
        InputInvalid: if it is not JSON, or is too large.
    """
    if options.input is None:
        return _with_files(options, terminal, {}) if options.files else (NO_INPUT, ())
    try:
        text = terminal.read_input() if options.input == "-" else options.input
        value = json.loads(text)
    except RecursionError:
        raise InputInvalid(options.handler, "nested too deeply", "use fewer levels") from None
    except ValueError as error:
        raise InputInvalid(
            options.handler, f"not JSON: {error}", """quote it for the shell, such as '{"path": "a.png"}'"""
        ) from None
    return _with_files(options, terminal, value)


def _with_files(options: Namespace, terminal: Terminal, value: Any) -> tuple[Raw, tuple[File, ...]]:
    files = []  # as long as they are referred to, what stands for them in JSON can be found
    for argument in options.files:
        name, _, path = argument.partition("=")
        if not name or not path:
            raise Misuse(f"{argument[:80]!r} is not NAME=PATH", "write --file file=page.png")
        if not isinstance(value, dict) or name in value:
            raise Misuse(f"argument {name[:80]!r} is given twice, or the input is no object", "give it once")
        files.append(File(terminal.folder / path))
        value[name] = files[-1]
    data = encode_input(options.handler, value, LARGEST)
    return data, files_of_input(options.handler, data)


async def _run(options: Namespace, terminal: Terminal) -> int:
    if options.delay and options.deadline is not None and options.deadline <= options.delay:
        raise Misuse("the deadline is not after the delay", "use a longer --deadline, or a shorter --delay")
    if options.on_conflict and options.unique_key is None:
        raise Misuse("--on-conflict is given without --unique-key", "add --unique-key KEY")
    now = terminal.now()
    when = When(
        lane=options.lane,
        not_before=now + timedelta(seconds=options.delay) if options.delay else None,
        deadline=now + timedelta(seconds=options.deadline) if options.deadline is not None else None,
        timeout_seconds=options.timeout,
        labels=dict(options.labels) or None,
        unique=None if options.unique_key is None else Unique(
            key=options.unique_key, on_conflict=options.on_conflict or OnConflict.REJECT
        ),
        key=options.key,
    )  # fmt: skip
    data, files = _input(options, terminal)
    large = len(data) > INLINE_LIMIT
    call = Call[object](options.queue, options.handler, data, files=files, large=large)
    async with connected(options, terminal) as client:
        handle = await client.submit(call, when, task_id=options.id)
        if handle.existed:
            terminal.say(f"task {handle.address.queue}/{handle.id} exists already; it is not submitted again")
        if options.wait is None:
            terminal.result(handle.id)
        else:
            await _wait(handle, options.wait, terminal)
    return ExitCode.DONE


async def _wait(handle: AsyncHandle[object], seconds: float, terminal: Terminal) -> None:
    state = "is there" if handle.existed else "submitted"
    terminal.say(f"task {handle.address.queue}/{handle.id} {state}, waiting for its result")
    terminal.json(await wait_for(handle, None if seconds == FOREVER else seconds, terminal))


command: Final = Command(
    "submit",
    "Submit one task and print its id, or wait for its result",
    _arguments,
    _run,
    (
        """galley submit images thumbnail '{"path": "input/hills.jpg"}' --lane high""",
        """echo '{"path": "input/raven.txt"}' | galley submit texts word_statistics - --wait 30""",
    ),
)
