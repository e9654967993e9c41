"""A pytest plugin that lists the files whose tests take the most processor time (`make test-times`).

It counts the process of the test, and those it has started once they have ended. A server that tests share
counts for none of them.
"""

import os
from collections import defaultdict
from collections.abc import Generator
from typing import Final

import pytest

from tests.support.warm_start import seconds_used

_SHOWN: Final = 40
_began: dict[str, float] = {}
_seconds: defaultdict[str, float] = defaultdict(float)


def _used() -> float:
    return sum(os.times()[:4]) + seconds_used()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart(nodeid: str) -> None:
    """Begin to count for a test."""
    _began[nodeid] = _used()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what a test took beside its last report, which reaches the process that prints."""
    report = yield
    if call.when == "teardown" and item.nodeid in _began:
        report.user_properties.append(("processor_seconds", _used() - _began.pop(item.nodeid)))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add it up for each file."""
    for name, value in report.user_properties:
        if report.when == "teardown" and name == "processor_seconds":
            assert isinstance(value, float)
            _seconds[report.nodeid.partition("::")[0]] += value


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List them."""
    terminalreporter.section(f"seconds of processor time: {sum(_seconds.values()):.0f} in the tests")
    for file, seconds in sorted(_seconds.items(), key=lambda found: -found[1])[:_SHOWN]:
        terminalreporter.write_line(f"{seconds:8.1f}  {file}")
