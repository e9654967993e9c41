"""Entry point: finds the command, runs it, and reports errors as two lines and an exit code."""

import asyncio
import logging
import os
import sys
from argparse import SUPPRESS, ArgumentParser, HelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Any, Final, NoReturn

import argcomplete
from argcomplete.completers import ChoicesCompleter

from galley.cli.command import PLUG_INS, Command, one_of
from galley.cli.errors import CommandBroken, Misuse, OutputClosed
from galley.cli.exit_code import EXIT_CODES_IN_WORDS, ExitCode, exit_code_of
from galley.cli.terminal import Color, Terminal, own_terminal
from galley.errors import GalleyError

_QUEUE_CONTROL: Final = ("pause", "resume", "drain", "purge")


def _own(name: str) -> EntryPoint:
    module, value = ("queue_control", name) if name in _QUEUE_CONTROL else (name, "command")
    return EntryPoint(name, f"galley.cli.{module}:{value}", PLUG_INS)


OWN_COMMANDS: Final = tuple(
    _own(name)
    for name in (
        "submit", "apply", "get", "show", "logs", "result", "cancel", "why", "top", "dead", *_QUEUE_CONTROL,
        "doctor", "schedule", "workflow", "publish", "topic", "files", "audit", "keys", "completion",
        "version",
    )
)  # fmt: skip
"""In the order of the help. One runs without the import of the others, which takes longer than most do."""

COMPLETING: Final = "_ARGCOMPLETE"
"""Set by the completions of a shell, which then ask this program what may come next."""


_RETRY: Final = "a task that failed runs again with `galley dead redrive QUEUE/ID`"


class _Help(Exception):
    """The help or the version was asked for."""


class _Parser(ArgumentParser):
    """A parser that prints nothing itself: errors and outputs that are closed are handled in one place.

    It and those of its commands have the options of all commands.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_argument(
            "--color", choices=[each.value for each in Color], default=SUPPRESS, metavar="WHEN",
            help="auto (the default), always or never; auto heeds NO_COLOR and TERM=dumb",
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise Misuse(message, _RETRY if "invalid choice: 'retry'" in message else f"{self.prog} --help")

    def _print_message(self, message: str, _file: object = None) -> None:
        raise _Help(message)


def main(arguments: Sequence[str] | None = None, terminal: Terminal | None = None) -> int:
    """Run one command; returns its exit code. What `galley` starts."""
    place = terminal or own_terminal()
    # The library logs for programs; here an error is reported once, in two lines.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return _run(sys.argv[1:] if arguments is None else arguments, place)
    except OutputClosed:
        return ExitCode.DONE
    except GalleyError as error:
        place.complain(error)
        return exit_code_of(error)
    except KeyboardInterrupt:
        place.say("interrupted")
        return ExitCode.INTERRUPTED


def _run(words: Sequence[str], place: Terminal) -> int:
    if COMPLETING in os.environ:
        argcomplete.autocomplete(parser(_commands(_typed(), place)))
    whole = parser(_commands(words, place))
    try:
        options, left = whole.parse_known_args(words or ["--help"])
    except _Help as message:
        place.result(str(message).rstrip())
        return ExitCode.DONE
    command: Command = options.command
    if left:
        raise Misuse(f"unrecognized arguments: {' '.join(left)}", f"galley {command.name} --help")
    terminal = replace(place, color=Color(getattr(options, "color", Color.AUTO)))

    async def run() -> int:
        return await command.run(options, terminal)

    return asyncio.run(run())


def parser(commands: Sequence[Command]) -> ArgumentParser:
    """Return the parser of all commands."""
    whole = _Parser(
        prog="galley",
        description="Submit tasks to Galley's queues, inspect them, and run queues on this machine.",
        epilog=f"exit codes: {EXIT_CODES_IN_WORDS}",
    )
    whole.add_argument("--version", action="version", version=f"galley {metadata.version('galley-tasks')}")
    words = whole.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for command in commands:
        examples = "\n".join(f"  {line}" for line in command.examples)
        own = words.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary}.",
            epilog=f"examples:\n{examples}",
            formatter_class=_formatter,
        )
        command.arguments(own)
        for action in own._actions:  # noqa: SLF001 - those of groups are nowhere else
            if isinstance(action.type, one_of):
                action.completer = ChoicesCompleter(tuple(action.type.words))  # type: ignore[arg-type, attr-defined]
        own.set_defaults(command=command)
    return whole


def _formatter(prog: str) -> HelpFormatter:
    return RawDescriptionHelpFormatter(prog, max_help_position=26, width=100)


def _commands(arguments: Sequence[str], place: Terminal) -> list[Command]:
    """Return the command that these arguments name; without a name all, for help and completion."""
    first = next((word for word in arguments if not word.startswith("-") and word not in [*Color]), None)
    if first is None and "--version" in arguments:
        return []
    known = [*OWN_COMMANDS, *sorted(metadata.entry_points(group=PLUG_INS))]
    for entry in known:
        if entry.name == first:
            return [load(entry)]
    commands = []
    for entry in known:
        try:
            commands.append(load(entry))
        except CommandBroken as error:
            place.say(f"warning: {error}")
    return commands


def _typed() -> list[str]:
    """Return the words before the one that a shell completes."""
    line = os.environ.get("COMP_LINE", "")
    return line.split()[1:] if line[-1:].isspace() else line.split()[1:-1]


def load(entry: EntryPoint) -> Command:
    """Import a command.

    Raises:
        CommandBroken: its module cannot be imported, or has something else in its place.
    """
    try:
        loaded = entry.load()
    except Exception as error:
        raise CommandBroken(entry.name, _extra(entry), f"{type(error).__name__}: {error}") from error
    if not isinstance(loaded, Command):
        raise CommandBroken(entry.name, _extra(entry), f"{entry.value} is not a galley.cli.command.Command")
    return loaded


def _extra(entry: EntryPoint) -> str:
    """Return the extra that installs what a command of ours needs."""
    return entry.module.partition(".")[0].removeprefix("galley_")


if __name__ == "__main__":
    sys.exit(main())
