"""Asking before something is done to many."""

from argparse import ArgumentParser

from galley.cli.errors import Misuse
from galley.cli.terminal import Terminal

_YES = frozenset(("y", "yes"))


def confirm_argument(parser: ArgumentParser) -> None:
    """Declare `--yes`."""
    parser.add_argument("--yes", action="store_true", help="do it without being asked, once they are counted")


def confirmed(question: str, terminal: Terminal, *, yes: bool) -> bool:
    """Return whether a person agrees, or said so before.

    Args:
        question: what would be done to how many, without a question mark.
        terminal: where to ask.
        yes: `--yes` was given.

    Raises:
        Misuse: if there is no terminal to ask.
    """
    if yes:
        terminal.say(question)
        return True
    if terminal.stdin is None or not terminal.stdin.isatty():
        raise Misuse(f"{question}: not done, since there is no terminal to ask", "add --yes to do it")
    terminal.say(f"{question}? [y/N]")
    if terminal.stdin.readline().strip().casefold() in _YES:
        return True
    terminal.say("nothing was done")
    return False
