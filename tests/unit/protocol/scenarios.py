"""The disturbances the model is put through, each small enough to be explored to its end."""

from typing import Final

from tests.unit.protocol.state import Budget, Scenario

CRASHES: Final = Scenario("crashes", Budget(crashes=2))
MANY_CRASHES: Final = Scenario("many crashes", Budget(crashes=3), crash_limit=2)
GIVES_WAY: Final = Scenario("a task that has to run alone gives way", Budget(crashes=2, yields=2))
REPUBLISH: Final = Scenario("crash and re-publish", Budget(crashes=1, republishes=1))
FLAGGED: Final = Scenario(
    "a declared task, published again", Budget(crashes=1, republishes=1), submitted="flagged"
)
REFIRE: Final = Scenario("a schedule fires twice", Budget(crashes=1, refires=1), crash_limit=2)
DELAYED: Final = Scenario("a delayed task, fired twice", Budget(crashes=1, refires=1), submitted="delayed")
LAPSE: Final = Scenario("a lease ends under a living worker", Budget(lapses=1, crashes=1))
LAPSE_EXIT: Final = Scenario(
    "a lease ends under a living worker, which ends later", Budget(lapses=1, exits=1, unseen=1)
)
LAPSE_REPUBLISH: Final = Scenario("a lease ends, and re-publish", Budget(lapses=1, republishes=1))
TWO_LAPSES: Final = Scenario("two leases end, and a drain", Budget(lapses=2, drains=1), crash_limit=2)
DRAIN: Final = Scenario("two drains and a crash", Budget(drains=2, crashes=1))
CANCEL: Final = Scenario("cancel and a crash", Budget(cancels=1, crashes=1))
CANCEL_REPUBLISH: Final = Scenario("cancel and re-publish", Budget(cancels=1, republishes=1))
CANCEL_LAPSE: Final = Scenario("cancel, and a lease ends", Budget(cancels=1, lapses=1))
UNSEEN: Final = Scenario("the answer to a write is lost", Budget(unseen=1, crashes=1))
EXPIRY: Final = Scenario("the record expires", Budget(expiries=1, lapses=1, republishes=1))
THREE_ATTEMPTS: Final = Scenario("three attempts, and a lease ends", Budget(lapses=1), attempts=3)
FOUR_ATTEMPTS: Final = Scenario("four attempts, and a lease ends", Budget(lapses=1), attempts=4)
UNKNOWN: Final = Scenario("workers that do not know the handler, and a crash", Budget(unknown=2, crashes=1))
UNKNOWN_REPUBLISH: Final = Scenario(
    "a worker that does not know the handler, and re-publish", Budget(unknown=1, republishes=1)
)
UNKNOWN_LAPSE: Final = Scenario(
    "a worker that does not know the handler, and a lease ends", Budget(unknown=1, lapses=1)
)
REDRIVE: Final = Scenario("a redrive and a crash", Budget(redrives=1, crashes=1), attempts=1)
REDRIVES: Final = Scenario("two redrives, and a lease ends", Budget(redrives=2, lapses=1), attempts=1)
ALL: Final = (
    CRASHES, MANY_CRASHES, GIVES_WAY, REPUBLISH, FLAGGED, REFIRE, DELAYED, LAPSE, LAPSE_EXIT, LAPSE_REPUBLISH,
    TWO_LAPSES, DRAIN, CANCEL, CANCEL_REPUBLISH, CANCEL_LAPSE, UNSEEN, EXPIRY, THREE_ATTEMPTS, FOUR_ATTEMPTS,
    UNKNOWN, UNKNOWN_REPUBLISH, UNKNOWN_LAPSE,
)  # fmt: skip

LARGE: Final = frozenset(
    {
        TWO_LAPSES,
        MANY_CRASHES,
        UNKNOWN,
        DELAYED,
        FOUR_ATTEMPTS,
        FLAGGED,
        THREE_ATTEMPTS,
        EXPIRY,
        LAPSE_REPUBLISH,
        REDRIVES,
    }
)
"""Those that take half a second and more: what is in each is in a smaller one, too, but fewer times."""

KILLS_ALONE: Final = Scenario("the broker is killed twice, and nothing else", Budget(kills=2))
KILLED_BROKER: Final = Scenario("the broker is killed", Budget(kills=1, crashes=1))
"""It forgets a lease, so a run goes on beside the next one, as no queue can avoid; the rest must hold."""
KILLED_AND_MARKED: Final = Scenario(
    "the broker is killed, and its lives are marked", Budget(kills=2, marks=2), submitted="late", attempts=1
)
REMADE: Final = Scenario(
    "the consumer is made again, and the mark, too", Budget(remakes=1, marks=2), submitted="late", attempts=1
)
FORGETFUL: Final = frozenset({KILLS_ALONE, KILLED_BROKER, KILLED_AND_MARKED, REMADE})
"""The broker forgets a lease, so a run goes on beside the next one."""
COUNTLESS_REFIRE: Final = Scenario(
    "a schedule fires twice, crashes are not counted", Budget(refires=1), crash_limit=0
)
LATE_FIRST: Final = Scenario("the first publish arrives late", Budget(republishes=1), submitted="late")
LATE_NAK: Final = Scenario("a nak arrives late", Budget(drains=1, lapses=1), crash_limit=2, stale_nak=True)
