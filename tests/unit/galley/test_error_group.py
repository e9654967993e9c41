import asyncio

import pytest

from galley.error_group import ungrouped
from galley.errors import GalleyError, QueueFull, QueueNotFound

FULL, MISSING = QueueFull("images", "backlog"), QueueNotFound("default", "texts")


@pytest.mark.parametrize(
    "group",
    [
        ExceptionGroup("one", [FULL]),
        ExceptionGroup("two", [FULL, MISSING]),
        ExceptionGroup("nested", [ExceptionGroup("inner", [FULL]), MISSING]),
    ],
    ids=lambda group: group.message,
)
def test_of_our_errors_in_a_group_the_first_comes_out_alone(group: ExceptionGroup[GalleyError]) -> None:
    with pytest.raises(QueueFull) as error, ungrouped():
        raise group
    assert error.value is FULL


def test_a_group_with_a_fault_of_ours_in_it_comes_out_whole() -> None:
    with pytest.raises(ExceptionGroup) as error, ungrouped():
        raise ExceptionGroup("both", [FULL, ZeroDivisionError()])
    assert len(error.value.exceptions) == 2


async def test_a_task_group_is_cancelled_as_ever() -> None:
    async def wait() -> None:
        with ungrouped():
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())

    waiting = asyncio.create_task(wait())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
