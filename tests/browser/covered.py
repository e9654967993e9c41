"""Which test does what in the browser: the table in README.md beside this."""

import re
from pathlib import Path
from typing import Final, NamedTuple

_TABLE: Final = Path(__file__).with_name("README.md")
_ROW: Final = re.compile(r"\| `(GET|POST) (/\S+)` \|[^|]+\| `(\w+)` \|")


class Covered(NamedTuple):
    """A page or an action, and the test that covers it."""

    method: str
    path: str
    test: str

    def is_in(self, asked: set[tuple[str, str]]) -> bool:
        """Say whether it was asked for, whatever names stand in the path."""
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", self.path))
        return any(method == self.method and pattern.fullmatch(path) for method, path in asked)


def covered() -> list[Covered]:
    """Return the rows of the table."""
    return [Covered(*found.groups()) for found in _ROW.finditer(_TABLE.read_text())]
