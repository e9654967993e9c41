"""Results in the requested format: a table for people, tabs for pipes, JSON, YAML or names."""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

import yaml
from rich.table import Table
from rich.text import Text

from galley.cli.command import one_of
from galley.cli.terminal import Terminal
from galley.shown import safe

Item = TypeVar("Item")
Cell = str | int | datetime | None

_UNBOUNDED: Final = 100_000

PHASE_STYLES: Final = {
    "Succeeded": "green",
    "Failed": "red",
    "Cancelled": "yellow",
    "Running": "cyan",
    "Retrying": "magenta",
}


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True)
class Column(Generic[Item]):
    """One column of a list."""

    title: str
    cell: Callable[[Item], Cell]
    wide: bool = False
    """Whether only `-o wide` shows it."""
    sparse: bool = False
    """Whether a table leaves it out if no item has a value."""


@dataclass(frozen=True)
class Listing(Generic[Item]):
    """How a list of one kind of thing is written."""

    columns: Sequence[Column[Item]]
    name: Callable[[Item], str]
    """The name that other commands accept."""
    document: Callable[[Item], dict[str, Any]]
    """All of its fields, for JSON and YAML."""
    empty: str
    """Message on a terminal if the list is empty."""

    def write(self, items: Sequence[Item], form: Format | None, terminal: Terminal) -> None:
        """Write the list; no format means a table on a terminal and tabs in a pipe."""
        match form:
            case Format.JSON | Format.YAML:
                write_document([self.document(item) for item in items], form, terminal)
            case Format.NAME:
                for item in items:
                    terminal.result(self.name(item))
            case _:
                if not items and terminal.interactive:
                    terminal.say(self.empty)
                elif terminal.interactive or form is Format.TABLE:
                    # Not cut to the width of the terminal: a shortened name is of no use to another command.
                    table = self.table(items, terminal, wide=form is Format.WIDE)
                    terminal.console(_UNBOUNDED).print(table)
                else:
                    for item in items:
                        terminal.result(self.tabs(item, wide=form is Format.WIDE))

    def table(self, items: Sequence[Item], terminal: Terminal, *, wide: bool = False) -> Table:
        """Return the list as a table for people."""
        columns = [each for each in self.columns if wide or not each.wide]
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        columns = [each for each in columns if not each.sparse or any(each.cell(item) for item in items)]
        for column in columns:
            table.add_column(column.title.upper(), no_wrap=True, overflow="ellipsis")
        now = terminal.now()
        for item in items:
            table.add_row(*(_for_people(column.cell(item), now) for column in columns))
        return table

    def tabs(self, item: Item, *, wide: bool = False) -> str:
        """Return the line of one item for programs."""
        columns = [each for each in self.columns if wide or not each.wide]
        return "\t".join(_for_programs(column.cell(item)) for column in columns)


def format_argument(parser: ArgumentParser, *formats: Format) -> None:
    """Declare `-o`."""
    parser.add_argument(
        "-o", "--output", type=one_of("a format of this command", formats), metavar="FORMAT",
        help=f"{', '.join(formats)}; by default a table on a terminal, tabs and no header in a pipe",
    )  # fmt: skip


def write_document(value: object, form: Format, terminal: Terminal) -> None:
    """Write plain data as JSON or YAML."""
    if form is Format.JSON:
        terminal.json(value, indent=2)
        return
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    if not terminal.can_show(text) or safe(text) != text:
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=False)
    terminal.result(text.rstrip("\n"))


def cell(text: str, style: str = "") -> Text:
    """Return a text for a cell of a table: on one line, only displayed by a terminal."""
    return Text(safe(" ".join(text.split())), style=style)


def styled(text: str) -> Text:
    """Return a text for a cell, in colour if it is the name of a phase."""
    return cell(text, PHASE_STYLES.get(text, ""))


def _for_people(value: Cell, now: datetime) -> Text:
    match value:
        case None | "":
            return Text("-")
        case datetime():
            return Text(in_words(value, now))
        case _:
            return styled(str(value))


def _for_programs(value: Cell) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return rfc_3339(value)
        case _:
            return " ".join(str(value).split())


def in_words(moment: datetime, now: datetime) -> str:
    """Return a time relative to now, such as "2m ago" or "in 30s"."""
    seconds = (now - moment).total_seconds()
    return f"in {duration(-seconds)}" if seconds <= -1 else f"{duration(max(0.0, seconds))} ago"


def duration(seconds: float) -> str:
    """Return a duration in its largest fitting unit, as kubectl does."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def rfc_3339(moment: datetime) -> str:
    """Return a time for programs: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
