"""Pages: how many entries an answer has, and where the next ones are."""

from typing import Any, Final

from galley_gateway.body import number
from galley_gateway.operation import Parameter

PAGE: Final = 100
LARGEST_PAGE: Final = 1000
PAGED: Final = (
    Parameter(
        "limit",
        f"Entries of a page; {PAGE} by default.",
        {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE},
    ),
    Parameter("continue", "`next` of the page before."),
)


def cut(meant: list[Any], query: dict[str, str]) -> tuple[list[Any], str]:
    """Return a page of what was found, and where the next one begins; empty if it is the last.

    Raises:
        RequestInvalid: if the page is not one.
    """
    limit = max(1, int(number(query, "limit", PAGE, LARGEST_PAGE)))
    first = int(number(query, "continue", 0, 1e9))
    following = str(first + limit) if first + limit < len(meant) else ""
    return meant[first : first + limit], following
