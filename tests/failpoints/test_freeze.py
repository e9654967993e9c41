"""Workers frozen at each named place until another has taken over: the task has one end."""

import pytest

from tests.failpoints.places import WORKER
from tests.failpoints.stage import Stage, run_place


@pytest.mark.parametrize(("place", "scenario"), WORKER.items(), ids=list(WORKER))
async def test_a_worker_frozen_at_a_place_past_its_lease_harms_nothing_another_did(
    stage_of_two: Stage, place: str, scenario: str
) -> None:
    await run_place(stage_of_two, place, scenario, "freeze")
