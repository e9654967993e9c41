"""The last line of `make test` tells the truth, whatever happens."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

ONE_OF_EACH = """
import pytest

def test_passes(): pass

def test_fails(): assert False

@pytest.fixture
def broken(): raise RuntimeError

def test_errs(broken): pass

@pytest.mark.skip(reason="not now")
def test_waits(): pass
"""


def _suite(*arguments: str) -> tuple[str, int]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.suite", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    return ended.stdout.splitlines()[-1], ended.returncode


@pytest.mark.parametrize(
    ("content", "last_line", "code"),
    [
        ("def test_passes(): pass", "1 passed, 0 failed", 0),
        (ONE_OF_EACH, "1 passed, 2 failed", 1),
        ("def test_passes(: pass", "0 passed, 1 failed", 1),
        ("", "0 passed, 1 failed", 1),
        ("import os; os._exit(3)", "0 passed, 1 failed", 1),
    ],
    ids=["all pass", "one of each", "does not compile", "no tests", "dies"],
)
def test_tests_are_counted_by_how_they_ended(tmp_path: Path, content: str, last_line: str, code: int) -> None:
    (tmp_path / "test_it.py").write_text(content)
    assert _suite("--", "-p", "no:cacheprovider", str(tmp_path / "test_it.py")) == (last_line, code)


def test_a_target_that_fails_is_one_failure(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_passes(): pass")
    assert _suite("no-such-target", "help", "--", str(tmp_path / "test_it.py")) == ("2 passed, 1 failed", 1)
