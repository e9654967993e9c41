"""`python -m docs.generate` writes the generated documents; with `--verify` it compares them instead."""

import difflib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from docs.generate import (
    chart,
    cli,
    crds,
    dashboards,
    errors,
    http,
    metrics,
    public_names,
    resources,
    settings,
)

ROOT: Final = Path(__file__).parent.parent.parent

DOCUMENTS: Final[dict[str, Callable[[], str]]] = {
    "docs/reference/errors.md": errors.document,
    "docs/reference/settings.md": settings.document,
    "docs/reference/resources.md": resources.document,
    "docs/reference/metrics.md": metrics.document,
    "docs/reference/cli.md": cli.document,
    "docs/reference/http.md": http.document,
    "sdk/galley/public_names.py": partial(public_names.document, "galley"),
    "sdk/galley/resources/public_names.py": partial(public_names.document, "galley.resources"),
    "charts/galley/README.md": chart.document,
    **crds.FILES,
    **{
        f"charts/galley/files/grafana/{each.uid.removeprefix('galley-')}.json": partial(
            dashboards.document, each
        )
        for each in dashboards.DASHBOARDS
    },
}

_SAYS: Final = "Made from the code by `make gen`; changes here are lost."
_NOTES: Final = {".md": f"<!-- {_SAYS} -->\n\n", ".yaml": f"# {_SAYS}\n", ".py": f"# {_SAYS}\n", ".json": ""}


def drift(path: Path, fresh: str) -> list[str]:
    """Return how a document differs from what the code says, as lines of a diff."""
    present = path.read_text("utf-8") if path.exists() else ""
    return list(
        difflib.unified_diff(
            present.splitlines(),
            fresh.splitlines(),
            str(path.relative_to(ROOT)),
            "the code",
            lineterm="",
            n=1,
        )
    )


def main(words: Sequence[str]) -> int:
    """Write or compare all documents; returns the exit code."""
    drifted = 0
    for name, make in DOCUMENTS.items():
        path = ROOT / name
        fresh = _NOTES[path.suffix] + make()
        if "--verify" not in words:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fresh, "utf-8")
        elif difference := drift(path, fresh):
            drifted += 1
            sys.stderr.write("\n".join(difference) + f"\n{name} differs from the code: run make gen\n")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
