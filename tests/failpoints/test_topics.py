"""A worker that fails while it makes a dead letter of an event: there is one, and the event is not lost."""

import pytest

from galley import DeadLetterNotFound
from galley.topic import Subscription
from tests.failpoints.places import LETTER, data_cases
from tests.failpoints.stage import Stage, published, visiting
from tests.support.eventually import eventually


@pytest.mark.parametrize(("place", "scenario", "fault"), data_cases({LETTER: "event"}))
async def test_an_event_that_a_subscription_cannot_take_is_one_dead_letter(
    stage_for: Stage, place: str, scenario: str, fault: str
) -> None:
    assert scenario == "event"
    async with visiting(stage_for) as client:
        stage_for.arm(place, fault)
        unfit = Subscription("unfit", "drills", "aecho", filter="attributes.size > 3")
        handle = await published(stage_for, client, unfit)
        await stage_for.suffer(client, fault)

        async def buried() -> bool:
            try:
                letter = await client.dead_letters.get("drills", handle.id)
            except DeadLetterNotFound:
                return False
            return letter.reason == "FilterFailed"

        await eventually(buried, within=30)
        letters = await client.dead_letters.find("drills")
        # One of the event before may come again after it was dropped: its answer was lost.
        assert [each.id for each in letters if each.id == handle.id] == [handle.id]
        await client.dead_letters.drop("drills", handle.id)
