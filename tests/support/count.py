"""A pytest plugin whose last line of output is `N passed, N failed`; `.ci/run` adds these lines up.

Skipped tests are in neither number. A run that fails without a failed test counts as one failure.
"""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Generator[None]:
    """Print the line after everything else."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of pytest-xdist
        return
    passed, failed, errors = (len(reporter.stats.get(key, ())) for key in ("passed", "failed", "error"))
    reporter.write_line(f"{passed} passed, {failed + errors or int(exitstatus != pytest.ExitCode.OK)} failed")
