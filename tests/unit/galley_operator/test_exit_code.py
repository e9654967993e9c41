"""What an operator's process ends with."""

import logging
from collections.abc import Iterator

import pytest

from galley_operator.errors import LeadershipLost
from galley_operator.main import CANNOT_START, LOST, log, main
from galley_operator.operator import Operator


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Hear the lines, though the process takes all handlers away; they are put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log.addHandler(caplog.handler)
    yield
    log.removeHandler(caplog.handler)
    root.handlers, root.level = handlers, level


def test_settings_that_are_wrong_are_told_by_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GALLEY_OPERATOR_SWEEP_SECONDS", "soon")
    assert main() == CANNOT_START
    (line,) = caplog.records
    assert line.message == "operator cannot work"
    assert "GALLEY_OPERATOR_SWEEP_SECONDS" in line.__dict__["error"]


def test_a_lost_lease_has_an_exit_code_of_its_own_whatever_group_it_comes_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def lose(_: Operator) -> None:
        raise BaseExceptionGroup("", [BaseExceptionGroup("", [LeadershipLost("galley/operator", "nothing")])])

    monkeypatch.setattr(Operator, "run", lose)
    assert main() == LOST
    assert caplog.messages[-1] == "leadership lost"
