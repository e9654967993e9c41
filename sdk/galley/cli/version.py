"""`galley version`: what is installed here."""

import platform
from argparse import ArgumentParser, Namespace
from importlib.metadata import version
from typing import Final

from galley.cli.command import Command
from galley.cli.exit_code import ExitCode
from galley.cli.output import Format, format_argument, write_document
from galley.cli.terminal import Terminal


def _arguments(parser: ArgumentParser) -> None:
    format_argument(parser, Format.JSON, Format.YAML)


async def _run(options: Namespace, terminal: Terminal) -> int:
    versions = {
        "galley": version("galley-tasks"),
        "nats-py": version("nats-py"),
        "python": platform.python_version(),
    }
    if options.output is not None:
        write_document(versions, options.output, terminal)
    else:
        for name, number in versions.items():
            terminal.result(f"{name} {number}")
    return ExitCode.DONE


command: Final = Command(
    "version", "Print the versions of the installed packages", _arguments, _run,
    ("galley version", "galley version -o json"),
)  # fmt: skip
