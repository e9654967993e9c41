"""Audit lines on their way to the broker."""

import logging

import pytest

from galley_operator import audit_trail
from galley_operator.audit import About, record
from galley_operator.audit_trail import AuditTrail
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_lines_beyond_those_that_wait_stay_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with MemoryBroker(MemoryServer(), "operator") as broker:
        trail = AuditTrail(broker)
        logger = logging.getLogger("galley_operator.audit")
        logger.addHandler(trail)
        try:
            for number in range(audit_trail._WAITING + 2):
                record("cancel", "shop", "images", About(task=f"t{number}", uid="u", user="eve"))
        finally:
            logger.removeHandler(trail)
    assert caplog.messages.count("audit line in the log alone") == 2
