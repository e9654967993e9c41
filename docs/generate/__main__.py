"""`python -m docs.generate` writes the generated documents; with `--verify` it compares them instead."""

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from docs.generate import cli, errors, settings

DOCS: Final = Path(__file__).parent.parent

DOCUMENTS: Final[dict[str, Callable[[], str]]] = {
    "errors.md": errors.document,
    "settings.md": settings.document,
    "cli.md": cli.document,
}

_NOTE: Final = "<!-- Made from the code by `make gen`; changes here are lost. -->\n\n"


def drift(path: Path, fresh: str) -> list[str]:
    """Return how a document differs from what the code says, as lines of a diff."""
    present = path.read_text("utf-8") if path.exists() else ""
    return list(
        difflib.unified_diff(
            present.splitlines(), fresh.splitlines(), f"docs/{path.name}", "the code", lineterm="", n=1
        )
    )


def main(words: Sequence[str]) -> int:
    """Write or compare all documents; returns the exit code."""
    drifted = 0
    for name, make in DOCUMENTS.items():
        fresh = _NOTE + make()
        path = DOCS / name
        if "--verify" not in words:
            path.write_text(fresh, "utf-8")
        elif difference := drift(path, fresh):
            drifted += 1
            sys.stderr.write("\n".join(difference) + f"\ndocs/{name} differs from the code: run make gen\n")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
