"""`galley completion`: what a shell loads to complete commands and options."""

from argparse import ArgumentParser, Namespace
from enum import StrEnum
from typing import Final

from argcomplete.shell_integration import shellcode

from galley.cli.command import Command, one_of
from galley.cli.exit_code import ExitCode
from galley.cli.terminal import Terminal

PROGRAMS: Final = ("galley", "kubectl-galley")


class Shell(StrEnum):
    """A shell that completions are written for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "shell", metavar="bash|zsh|fish", type=one_of("a shell with completions", tuple(Shell)),
        help="the shell; `source <(galley completion bash)` in ~/.bashrc or ~/.zshrc loads what is printed, "
        "`galley completion fish | source` in config.fish",
    )  # fmt: skip


async def _run(options: Namespace, terminal: Terminal) -> int:
    code = shellcode(list(PROGRAMS), shell=options.shell.value)
    terminal.result(code.rstrip())
    return ExitCode.DONE


command: Final = Command(
    "completion", "Print the completion script for a shell", _arguments, _run,
    ("galley completion bash", "galley completion fish"),
)  # fmt: skip
