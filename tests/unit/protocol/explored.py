"""Which version of the models has been explored in full.

What a search finds follows from the models, the scenarios and the search, which are all in this folder. While
nothing here has changed since `make test/deep` explored the large scenarios, `make test` leaves them out.
`python -m tests.unit.protocol.explored` writes that down.
"""

import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, TypeVar

_FOLDER: Final = Path(__file__).parent
_RECORD: Final = _FOLDER / "explored.txt"

T = TypeVar("T")


def present() -> str:
    """Return the digest of all that decides what is found."""
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.glob("*.py")):
        digest.update(f"{path.name}\n{path.read_text('utf-8')}\n".encode())
    return digest.hexdigest()


def recorded() -> str:
    """Return the digest of what was explored in full."""
    return _RECORD.read_text().strip()


IN_FULL: Final = os.environ.get("GALLEY_DEEP") == "1" or recorded() != present()


def but(large: Collection[T], all_of_them: Iterable[T]) -> list[T]:
    """Return scenarios without the large ones, or all if they have to be explored."""
    return [each for each in all_of_them if IN_FULL or each not in large]


if __name__ == "__main__":
    _RECORD.write_text(present() + "\n")
