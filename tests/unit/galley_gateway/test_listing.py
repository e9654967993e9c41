"""The list of the tasks of a queue."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from msgspec import Raw
from msgspec.structs import replace

from galley.task_status import Phase, TaskStatus
from galley_gateway.api.listing import newest_of
from galley_gateway.api.model import LISTED_BYTES
from tests.support.builders import an_address


async def test_a_list_has_no_more_of_a_long_input_than_that_it_is_left_out() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    short, long = Raw(b"[" + b" " * (LISTED_BYTES - 2) + b"]"), Raw(b"[" + b" " * LISTED_BYTES + b"]")

    async def tasks() -> AsyncIterator[TaskStatus]:
        for number, given in enumerate((long, short, long)):
            status = TaskStatus(an_address(id=f"t{number}"), Phase.QUEUED, input=given)
            yield replace(status, submitted_at=at + timedelta(seconds=number))

    found, total = await newest_of(tasks(), {}, 10)
    assert total == 3
    assert [(each.address.id, bytes(each.input)) for each in found] == [
        ("t2", b""), ("t1", bytes(short)), ("t0", b""),
    ]  # fmt: skip
