"""All that must hold, counted: `python -m tests.suite TARGET... -- PYTEST-ARGUMENT...`.

Each make target is one thing that passes or fails, each test another. The last line of the output is
`N passed, N failed`, also when something crashed; the exit code is 1 unless all passed. Tests that are
skipped are in neither number.
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Count(NamedTuple):
    """How many things held, and how many did not."""

    passed: int
    failed: int

    def plus(self, other: "Count") -> "Count":
        """Return the sum."""
        return Count(self.passed + other.passed, self.failed + other.failed)


def of_report(report: Path, code: int) -> Count:
    """Return what a JUnit report says; a run that failed without naming a failed test is one failure."""
    try:
        # Our own pytest wrote it a moment ago.
        suites = ET.parse(report).getroot().iter("testsuite")
        figures = [{key: int(suite.get(key, "0")) for key in _KEYS} for suite in suites]
    except (OSError, ET.ParseError, ValueError):
        return Count(0, 1)
    total = {key: sum(each[key] for each in figures) for key in _KEYS}
    failed = total["failures"] + total["errors"]
    passed = max(0, total["tests"] - failed - total["skipped"])
    return Count(passed, max(failed, 1) if code else failed)


_KEYS = ("tests", "failures", "errors", "skipped")


def run_target(target: str) -> Count:
    """Make one target and say how that went."""
    ended = subprocess.run(["make", "--silent", "--no-print-directory", target], cwd=ROOT, check=False)
    _say(f"{target}: {'passed' if ended.returncode == 0 else 'FAILED'}")
    return Count(1, 0) if ended.returncode == 0 else Count(0, 1)


def run_tests(arguments: Sequence[str]) -> Count:
    """Run pytest and say how that went."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
        ended = subprocess.run(command, cwd=ROOT, check=False)
        return of_report(report, ended.returncode)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    """Run all, print the sum, and return the exit code."""
    place = list(words).index("--") if "--" in words else len(words)
    total = Count(0, 0)
    try:
        for target in words[:place]:
            total = total.plus(run_target(target))
        total = total.plus(run_tests(words[place + 1 :]))
    except BaseException:
        total = total.plus(Count(0, 1))
        raise
    finally:
        _say(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
