"""What becomes of a loop that raises."""

import logging

import pytest

from galley.broker.errors import BrokerUnreachable
from galley_operator.faults import Faults
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_loop_that_raises_runs_again_and_is_counted_by_kind(caplog: pytest.LogCaptureFixture) -> None:
    unexpected: list[str] = []
    interrupted: list[str] = []
    faults = Faults(unexpected.append, interrupted.append)
    raised = iter([BrokerUnreachable("nats://x", "away"), RuntimeError("a mistake"), None])

    async def work() -> None:
        if (error := next(raised)) is not None:
            raise error

    with caplog.at_level(logging.WARNING):
        await faults.keep_running("here", work)
    assert (interrupted, unexpected, faults.seen) == (["here"], ["here"], 1)
    assert [record.exc_info is not None for record in caplog.records] == [False, True]
