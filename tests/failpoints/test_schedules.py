"""Workers that fail in the midst of a tick: each tick of a schedule runs once, and none is missing."""

import asyncio
import secrets

import pytest

from galley import AsyncClient, call
from tests.failpoints.places import TICKER, data_cases
from tests.failpoints.stage import Stage, visiting
from tests.support.eventually import eventually
from tests.support.observed import all_revisions

TICKS = 4


@pytest.mark.parametrize(("place", "scenario", "fault"), data_cases(dict.fromkeys(TICKER, "tick")))
async def test_a_worker_that_fails_at_a_tick_loses_none_and_runs_none_twice(
    stage_for: Stage, place: str, scenario: str, fault: str
) -> None:
    async with visiting(stage_for) as client:
        name = f"{scenario}-{secrets.token_hex(4)}"
        stage_for.arm(place, fault)
        await client.schedules.create(
            name, call("drills", "aecho"), "@every 1s", overlap="allow", catch_up="all", catch_up_limit=100
        )
        await stage_for.suffer(client, fault)
        await eventually(lambda: fired(client, name), within=40)
        await client.schedules.suspend("drills", name)
        ticks = await all_ended(client, name)
        await client.schedules.delete("drills", name)
        seconds = [int(each.rpartition("-")[2]) for each in ticks]
        assert seconds == list(range(seconds[0], seconds[-1] + 1))
        finals = [
            each.task
            async for each in all_revisions(client)
            if each.record.done and each.task.startswith(name)
        ]
        assert sorted(finals) == ticks
        # The next test counts on streams without a message.
        await eventually(lambda: stage_for._empty(client), within=20)


async def fired(client: AsyncClient, name: str) -> bool:
    return (await client.schedules.get("drills", name)).fired >= TICKS


async def all_ended(client: AsyncClient, name: str) -> list[str]:
    """Return the ids of the tasks of a schedule that is suspended, once they have ended."""
    # One may be on its way from a worker that was handed its tick before.
    await asyncio.sleep(2)
    # A set, since every revision of a record is kept here.
    found = {each.address.id for each in await client.tasks("drills")}
    ticks = sorted(each for each in found if each.startswith(f"{name}-"))
    for each in ticks:
        await client.handle("drills", each).wait(20)
    return ticks
