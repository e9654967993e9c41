"""Workers that stand still for a moment at each named place: nothing comes of it."""

import pytest

from tests.failpoints.places import WORKER
from tests.failpoints.stage import Stage, run_place


@pytest.mark.parametrize(("place", "scenario"), WORKER.items(), ids=list(WORKER))
async def test_a_worker_that_stands_still_at_a_place_goes_on(stage: Stage, place: str, scenario: str) -> None:
    await run_place(stage, place, scenario, "delay")
