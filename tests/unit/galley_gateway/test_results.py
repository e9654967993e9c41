"""What is shown of the result of a task."""

from typing import Any

from msgspec import UNSET

from galley.handle import AsyncHandle
from galley.record import Outcome, Record, State
from galley.reference import Reference
from galley.task_status import of_record
from galley_gateway.api.model import SHOWN_BYTES
from galley_gateway.api.view import with_result
from tests.support.builders import an_address


async def test_a_result_that_would_take_all_memory_is_not_read() -> None:
    address, nowhere = an_address(), Any
    large = Reference("0" * 64, SHOWN_BYTES + 1)
    status = of_record(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED, large=large))
    handle: AsyncHandle[Any] = AsyncHandle(nowhere, address, None)  # type: ignore[arg-type]
    view = await with_result(handle, status)
    assert view.result is UNSET
    assert f"{SHOWN_BYTES + 1} bytes" in view.note
    assert f"`galley result {address.queue}/{address.id}`" in view.note
