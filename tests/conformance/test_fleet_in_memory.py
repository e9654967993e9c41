import pytest

from tests.conformance import fleet
from tests.conformance.fleet_in_memory import make_trial


@pytest.mark.parametrize("rule", fleet.RULES, ids=fleet.name_of)
async def test_fleet_in_memory(rule: fleet.Rule) -> None:
    await fleet.exercise(rule, make_trial)
