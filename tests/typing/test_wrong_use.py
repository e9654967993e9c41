"""Wrong use of the public names fails the type checker, and right use does not."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parent.parent.parent
PAGE = Path(__file__).parent / "wrong_use.py"


@pytest.fixture(autouse=True)
def _recursion() -> Iterator[None]:
    """Leave the limit of recursion as it was, which mypy raises: others test what happens beyond it."""
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


def test_mypy_finds_each_mistake_and_nothing_else() -> None:
    printed, problems, _ = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", "--no-pretty", str(PAGE)]
    )
    assert not problems
    expected = {
        (number, found[1])
        for number, line in enumerate(PAGE.read_text("utf-8").splitlines(), 1)
        if (found := re.search(r"# wrong: ([a-z-]+)", line))
    }
    seen = {(int(line), code) for line, code in re.findall(r":(\d+): error: .*\[([a-z-]+)\]", printed)}
    assert len(expected) > 10
    assert seen == expected, printed
