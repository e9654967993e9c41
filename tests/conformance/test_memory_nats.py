"""The nats-server in memory has the rules of the real one: the facts that tests rely on hold of both."""

from collections.abc import AsyncIterator

import pytest

from tests.facts import test_leases, test_publishing, test_pulls, test_reading, test_records, test_removal
from tests.facts.conftest import brief_queue, later, queue, work
from tests.facts.jetstream import JetStream
from tests.support.memory_nats import MemoryClient, MemoryServer

__all__ = ["brief_queue", "later", "queue", "work"]


async def _nothing() -> None:
    """React to nothing."""


@pytest.fixture
async def jetstream() -> AsyncIterator[JetStream]:
    client = MemoryClient(MemoryServer())
    await client.connect(disconnected_cb=_nothing, reconnected_cb=_nothing)
    async with JetStream(client) as connected:
        yield connected


NOT_NEEDED = {
    "test_a_heartbeat_longer_than_half_the_life_of_a_pull_is_refused",
    "test_a_leased_task_purged_by_a_pattern_over_lanes_counts_as_in_flight_until_its_lease_lapses",
    "test_a_paused_lane_hands_out_nothing_until_it_is_resumed",
    "test_a_parked_pull_ends_with_its_connection_when_its_server_stops",
    "test_a_pull_parked_in_a_paused_lane_goes_on_when_another_asks_after_the_resume",
    "test_a_pull_whose_asker_is_gone_takes_no_task",
    "test_a_running_task_can_be_acked_in_a_paused_lane",
    "test_a_stream_full_by_bytes_refuses_the_next_with_the_same_code",
    "test_more_parked_pulls_than_the_consumer_holds_are_refused",
    "test_more_than_1024_subjects_are_too_many_for_one_request_by_pattern",
    "test_the_last_record_of_many_subjects_comes_in_one_request_by_pattern",
    "test_the_oldest_records_go_when_there_is_no_room",
    "test_two_consumers_of_a_work_queue_may_not_overlap",
}
"""Definitions, bytes, pauses and real connections: nothing that is run in memory depends on these."""

FACTS = (test_leases, test_publishing, test_pulls, test_reading, test_records, test_removal)
for facts in FACTS:
    for name, fact in vars(facts).items():
        if name.startswith("test_") and name not in NOT_NEEDED:
            globals()[name] = fact
