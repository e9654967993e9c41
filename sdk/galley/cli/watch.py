"""Following a list until Ctrl-C."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from rich.live import Live

from galley.cli.output import Format, Listing
from galley.cli.terminal import Terminal

Item = TypeVar("Item")

LOOK_SECONDS: Final = 1.0
"""Time between two looks."""


async def watch(
    listing: Listing[Item],
    look: Callable[[], Awaitable[list[Item]]],
    form: Format | None,
    terminal: Terminal,
    pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(LOOK_SECONDS),
) -> None:
    """Show a list again and again: as a table that changes, or, for programs, a line for each change.

    Args:
        listing: how the list is written.
        look: returns the items as they are now.
        form: as asked for.
        terminal: where it is shown.
        pause: returns when it is time to look again.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    if terminal.interactive and not terminal.dumb and form in (None, Format.TABLE, Format.WIDE):
        with Live(console=terminal.console(), auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                table = listing.table(await look(), terminal, wide=form is Format.WIDE)
                live.update(table, refresh=True)
                await pause()
    seen: dict[str, str] = {}
    while True:
        for item in await look():
            name, line = listing.name(item), _line(listing, item, form)
            if seen.get(name) != line:
                seen[name] = line
                terminal.result(line)
        await pause()


def _line(listing: Listing[Any], item: Any, form: Format | None) -> str:
    match form:
        case Format.JSON | Format.YAML:
            return json.dumps(listing.document(item), separators=(",", ":"))
        case Format.NAME:
            return listing.name(item)
        case _:
            return listing.tabs(item, wide=form is Format.WIDE)
