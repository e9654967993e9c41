"""Asking before something is done to many."""

from argparse import ArgumentParser, Namespace

from galley.cli.errors import Misuse
from galley.cli.terminal import Terminal

_YES = frozenset(("y", "yes"))


def confirm_argument(parser: ArgumentParser) -> None:
    """Declare `--yes` and `--dry-run`, of which one can be given."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    how.add_argument("--dry-run", action="store_true", help="print the number of tasks, and change nothing")


def confirmed(question: str, terminal: Terminal, options: Namespace) -> bool:
    """Return whether a person agrees, or said so before. With `--dry-run` it says what would be done.

    Args:
        question: what would be done to how many, without a question mark.
        terminal: where to ask.
        options: with those of `confirm_argument`.

    Raises:
        Misuse: if there is no terminal to ask.
    """
    if options.dry_run:
        terminal.result(f"would {question}")
        return False
    if options.yes:
        terminal.say(question)
        return True
    if terminal.stdin is None or not terminal.stdin.isatty():
        raise Misuse(f"{question}: not done, since there is no terminal to ask", "add --yes to do it")
    terminal.say(f"{question}? [y/N]")
    if terminal.stdin.readline().strip().casefold() in _YES:
        return True
    terminal.say("nothing was done")
    return False
