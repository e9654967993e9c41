"""Objects, unique keys, notes and redrives, by processes that fail at each named place: nothing is lost."""

import secrets
from contextlib import suppress

import pytest

from galley import AsyncClient, AsyncHandle, DeadLetterNotFound, TaskFailed, Unique, When, call
from tests.failpoints.places import DATA_CLIENT, DATA_WORKER, data_cases
from tests.failpoints.stage import UNIQUE, Stage, run_place, visiting
from tests.failpoints.test_client import fail
from tests.failpoints.texts import large_text
from tests.support.eventually import eventually

FIELDS = ("place", "scenario", "fault")


@pytest.mark.parametrize(FIELDS, data_cases(DATA_WORKER))
async def test_a_worker_that_fails_brings_the_task_and_its_data_to_their_end(
    stage_for: Stage, place: str, scenario: str, fault: str
) -> None:
    await run_and_look(stage_for, place, scenario, fault)


async def run_and_look(stage: Stage, place: str, scenario: str, fault: str) -> None:
    handle = await run_place(stage, place, scenario, fault)
    async with visiting(stage) as client:
        mine = client.handle("drills", handle.id)
        result = await mine.result(within=20)
        if scenario == "returned_large":
            assert isinstance(result, str)
            assert len(result) > 300_000
        if scenario == "onward":
            assert result == [0, 1, 2]
            phases = {each.phase for each in await client.workflows.list("drills")}
            assert phases == {"Succeeded"}
        if scenario == "unique":
            await the_key_is_free(client, UNIQUE)
        if scenario == "noting":
            progress = await mine.progress()
            assert progress is not None
            assert progress.text == "half of it"


async def the_key_is_free(client: AsyncClient, key: str) -> None:
    """Have another task take a key, run and end."""
    another = await client.submit(call("drills", "aecho", value=2), When(unique=Unique(key=key)))
    assert await another.result(within=20) == 2


@pytest.mark.parametrize(FIELDS, data_cases(DATA_CLIENT, "large"))
async def test_an_upload_that_fails_may_be_made_again(
    stage_for: Stage, place: str, scenario: str, fault: str
) -> None:
    async with visiting(stage_for) as client:
        task_id = secrets.token_hex(6)
        stage_for.arm(place, fault)
        await fail(stage_for, scenario, task_id, fault)
        text = large_text(task_id)
        handle = await client.submit(call("drills", "turn", text=text), task_id=task_id)
        assert await handle.result(within=20) == text[::-1]
        await stage_for.end(client, handle)


@pytest.mark.parametrize(FIELDS, data_cases(DATA_CLIENT, "unique"))
async def test_a_producer_that_fails_blocks_no_unique_key(
    stage_for: Stage, place: str, scenario: str, fault: str
) -> None:
    async with visiting(stage_for) as client:
        key = secrets.token_hex(6)
        stage_for.arm(place, fault)
        await fail(stage_for, scenario, key, fault)
        unique = When(unique=Unique(key=key, on_conflict="existing"))
        handle = await client.submit(call("drills", "aecho", value=key), unique)
        assert await handle.result(within=20) == key
        await stage_for.end(client, handle)
        await the_key_is_free(client, key)


@pytest.mark.parametrize(FIELDS, data_cases(DATA_CLIENT, "redrive"))
async def test_a_redrive_that_fails_may_be_made_again_and_runs_the_task_once(
    stage_for: Stage, place: str, scenario: str, fault: str
) -> None:
    async with visiting(stage_for) as client:
        handle = await a_dead_task(stage_for, client)
        stage_for.arm(place, fault)
        await fail(stage_for, scenario, handle.id, fault)
        with suppress(DeadLetterNotFound):  # where it went all the way
            await client.dead_letters.redrive("drills", handle.id)

        async def succeeded() -> bool:
            with suppress(TaskFailed):
                return await handle.result(within=20) == "txet"
            return False

        await eventually(succeeded, within=20)
        final = await stage_for.end(client, handle, redrives=1)
        assert final.attempt == 2
        assert await client.dead_letters.find("drills") == []


async def a_dead_task(stage: Stage, client: AsyncClient) -> AsyncHandle[object]:
    path = str(stage.folder / secrets.token_hex(6))
    handle = await client.submit(call("drills", "die_once", path=path, text="text"))
    with pytest.raises(TaskFailed):
        await handle.result(within=20)
    await client.dead_letters.get("drills", handle.id)
    return handle
