"""Schedules in memory have the rules of the real ones; in real time, since these facts read the clock."""

from tests.conformance.test_memory_nats import jetstream
from tests.facts import test_schedules
from tests.facts.conftest import later, queue, work

__all__ = ["jetstream", "later", "queue", "work"]

NOT_NEEDED = {
    "test_a_producer_can_wipe_the_delayed_tasks_of_its_own_queue_with_a_roll_up",
    "test_a_stream_with_schedules_may_not_be_bounded_by_refusing",
}
for name, fact in vars(test_schedules).items():
    if name.startswith("test_") and name not in NOT_NEEDED:
        globals()[name] = fact
