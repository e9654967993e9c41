"""Audit lines on their way to the broker."""

import asyncio
import logging

import pytest

from galley import audit
from galley.audit import Action
from galley.broker import audit as stream
from galley.broker import topology
from galley_operator import audit_trail
from galley_operator.audit import About, record
from galley_operator.audit_trail import AuditTrail
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time

LINE = audit.encode(audit.Entry(audit.Action.CANCEL))


@in_virtual_time
async def test_lines_beyond_those_that_wait_stay_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with MemoryBroker(MemoryServer(), "operator") as broker:
        trail = AuditTrail(broker)
        logger = logging.getLogger("galley_operator.audit")
        logger.addHandler(trail)
        try:
            for number in range(audit_trail._WAITING + 2):
                record(Action.CANCEL, "shop", "images", About(task=f"t{number}", uid="u", user="eve"))
        finally:
            logger.removeHandler(trail)
    assert caplog.messages.count("audit line in the log alone") == 2


@in_virtual_time
async def test_a_flood_of_lines_of_one_tenant_is_not_heard_to_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, taken = MemoryServer(), list[tuple[str, audit.AuditLine]]()
    async with (
        MemoryBroker(server, "operator") as broker,
        MemoryBroker(server, "tenant") as tenant,
        stream.listening(broker, lambda *line: taken.append(line)),
    ):
        for _ in range(3 * stream._HEARD):
            tenant.publish(topology.audit_subject("shop", "images", audit.Writer.CLIENT), LINE)
        await asyncio.sleep(0.5)
        assert 0 < len(taken) <= stream._HEARD
        await asyncio.sleep(5)
        taken.clear()
        tenant.publish(topology.audit_subject("other", "images", audit.Writer.CLIENT), LINE)
        await asyncio.sleep(0.5)
        assert taken
    assert "more messages than are heard" in caplog.messages
