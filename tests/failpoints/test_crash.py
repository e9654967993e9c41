"""Workers killed at each named place: another life of them brings the task to its one end."""

import pytest

from tests.failpoints.places import WORKER
from tests.failpoints.stage import Stage, run_place


@pytest.mark.parametrize(("place", "scenario"), WORKER.items(), ids=list(WORKER))
async def test_a_worker_killed_at_a_place_leaves_the_task_to_its_next_life(
    stage: Stage, place: str, scenario: str
) -> None:
    await run_place(stage, place, scenario, "crash")
