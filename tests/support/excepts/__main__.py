"""Lists the `except` branches and `suppress` calls of the product that no test entered: `make excepts`."""

import ast
import sys
from pathlib import Path

from tests.support.excepts.sitecustomize import NOTED, PRODUCT, ROOT, is_suppress


def branches() -> list[str]:
    """Return where all of them are, as `file:line`."""
    return [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for folder in PRODUCT
        for file in sorted(Path(folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ExceptHandler) or is_suppress(node)
    ]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Print those that no test entered, and how many there are of both."""
    entered = set(NOTED.read_text().splitlines())
    every = branches()
    never = [each for each in every if each not in entered]
    for each in never:
        file, _, line = each.partition(":")
        _say(f"{each}: {(ROOT / file).read_text().splitlines()[int(line) - 1].strip()}")
    _say(f"{len(every)} except branches and suppress calls, {len(never)} of which no test entered")


if __name__ == "__main__":
    main()
