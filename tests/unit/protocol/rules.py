"""The rules of the attempt protocol, each of which can be taken out of the model alone."""

from enum import StrEnum
from typing import Final


class Rule(StrEnum):
    """One rule; `WHY` has the sentence for it."""

    SLOW_WHEN_REDELIVERED = "slow path on redelivery"
    SLOW_WHEN_FLAGGED = "slow path on flag r"
    SLOW_FROM_LATER = "slow path from the later stream"
    CLAIM_NAMES_MESSAGE = "the claim names the message"
    REPUBLISH_FLAGGED = "re-publishes carry the flag"
    WILDCARD_EXPECTED = "flagged publishes expect no message of the task in any lane"
    RETRY_RECORD_FIRST = "the retry record before the schedule"
    SCHEDULE_FENCED = "the schedule carries the fence"
    STORE_BEFORE_ACK = "store done before the ack"
    DONE_BY_CAS = "done only by compare-and-set"
    HAND_BACK_IN_RECORD = "hand-back rewrites the record before the nak"
    DROP_WHEN_RETRY_LOSES = "no ack when the retry record loses to one that is not done"
    REPUBLISH_SCHEDULE = "publish the schedule again when the record says retry"
    CANCEL_DECIDES_FIRST = "cancel decides in the record before it purges"
    REMEMBER_CANCELLED = "workers remember what was cancelled"
    SELF_FENCE = "a worker that cannot renew drops its attempt before the lease ends"
    READ_UP_TO_REFUSED = "read the record until it is as new as the refusal"
    RECORD_OUTLIVES_COPIES = "the record of an ended task outlives every copy of its message"
    DEAD_LETTER_FIRST = "the dead letter before the record"
    DEAD_LETTER_REPAIRED = "a worker that finds a record that says dead writes the dead letter before it acks"
    ANY_LATER_RETRY = "publish the schedule again forevery later attempt, not only the next"
    SLOW_BELOW_MARK = "slow path up to the mark, and without one for what was there before the connection"
    MARK_NAMES_LIFE = "a mark counts only in the life of the broker that it names"
    LIFE_BEFORE_SEQUENCE = "who writes a mark asks for the broker's life before the last sequence"
    UNMARK_FIRST = "who makes a consumer takes the mark away first"
    OWN_CLAIM_IS_NO_CRASH = "a run record this very delivery wrote is no crash"
    ASK_HOLDER = "ask the process that wrote the run record whether it runs the attempt"
    CRASH_IF_GONE = "count a crash only if that process is gone"
    AWAIT_RECONNECT = "after a reconnection, give that process the time to reconnect, too"
    DEFER_RECORD_FIRST = "the record of a deferral before its schedule"
    MARK_DROPPED = "a worker that drops its attempt marks its record handed back"
    ALONE_BEFORE_BURIAL = "a task that crashed too often runs once more alone before it is buried"
    CLAIM_WHEN_ALONE = "a run that has to be alone is claimed once the worker is free of others"
    GIVE_WAY_SELDOM = "a task that has to run alone gives way to others only so often"
    REDRIVE_FENCED = "a redrive carries the fence of the record of the failure"


WHY: Final[dict[Rule, str]] = {
    Rule.SLOW_WHEN_REDELIVERED: "The delivery before may have stored its outcome and died before the ack.",
    Rule.SLOW_WHEN_FLAGGED: "The first copy may have run and gone; the broker has forgotten it.",
    Rule.SLOW_FROM_LATER: "A schedule can fire twice, and its first submit can be repeated once it fired.",
    Rule.CLAIM_NAMES_MESSAGE: "Without a name two copies of an attempt both read the claim as their own.",
    Rule.REPUBLISH_FLAGGED: "Only the producer knows that a message may be a repetition.",
    Rule.WILDCARD_EXPECTED: "A first copy on the fast path has no record to stop one in another lane.",
    Rule.RETRY_RECORD_FIRST: "A due message must find the record that announced it, none behind it.",
    Rule.SCHEDULE_FENCED: "Saves a due message a refused write and a read; no more.",
    Rule.STORE_BEFORE_ACK: "A worker that dies between the two must leave the message, not the hole.",
    Rule.DONE_BY_CAS: "A late worker must not replace an outcome that was read.",
    Rule.HAND_BACK_IN_RECORD: "A run record without a mark is what a crash looks like.",
    Rule.DROP_WHEN_RETRY_LOSES: "It may be its own write, the answer lost; the schedule is still to come.",
    Rule.REPUBLISH_SCHEDULE: "Record and schedule are two writes, and a worker can die between them.",
    Rule.CANCEL_DECIDES_FIRST: "A canceller that dies after the purge leaves neither message nor outcome.",
    Rule.REMEMBER_CANCELLED: "A message can be in a worker's hands, not started, when the purge happens.",
    Rule.SELF_FENCE: "The lease is the only thing that keeps the next worker away from a running handler.",
    Rule.READ_UP_TO_REFUSED: "An older version may name another message, and the only copy left is acked.",
    Rule.RECORD_OUTLIVES_COPIES: "To a later copy an expired record is a task that did not run.",
    Rule.DEAD_LETTER_FIRST: "A crash between the two must not leave a dead task without its letter.",
    Rule.DEAD_LETTER_REPAIRED: "With the record first, only the message still knows that a letter is owed.",
    Rule.ANY_LATER_RETRY: "A late schedule can replace that of a later attempt, and is then all there is.",
    Rule.SLOW_BELOW_MARK: "A broker that was killed forgets deliveries, and counts from one again.",
    Rule.MARK_NAMES_LIFE: "What was stored above it may have been delivered and forgotten since.",
    Rule.LIFE_BEFORE_SEQUENCE: "The broker may be killed between the two, with tasks stored and begun.",
    Rule.UNMARK_FIRST: "A consumer that is made again counts from one, in the same life.",
    Rule.OWN_CLAIM_IS_NO_CRASH: "When the answer to a claim is lost, its repetition finds its own record.",
    Rule.ASK_HOLDER: "A broker that was killed delivers again what a live worker still runs.",
    Rule.CRASH_IF_GONE: "A worker that lost its lease dropped the attempt, which nothing made crash.",
    Rule.AWAIT_RECONNECT: "A broker that was killed has lost every worker, and gets them back one by one.",
    Rule.DEFER_RECORD_FIRST: "A due message must find the record that announced it, or a claim of its own.",
    Rule.MARK_DROPPED: "A worker that dropped its attempt may be gone when the next one asks for it.",
    Rule.ALONE_BEFORE_BURIAL: "Another task of the same worker may have made it crash.",
    Rule.CLAIM_WHEN_ALONE: "Those it waits for may take the worker down before it begins.",
    Rule.GIVE_WAY_SELDOM: "A worker that is never without others would never run it.",
    Rule.REDRIVE_FENCED: "Only a claim in place of that very record tells a redrive from a late copy.",
}

AMENDMENTS: Final = frozenset({
    Rule.DEAD_LETTER_REPAIRED, Rule.ANY_LATER_RETRY, Rule.SLOW_BELOW_MARK, Rule.OWN_CLAIM_IS_NO_CRASH,
    Rule.ASK_HOLDER, Rule.CRASH_IF_GONE, Rule.AWAIT_RECONNECT, Rule.DEFER_RECORD_FIRST,
    Rule.MARK_DROPPED, Rule.REDRIVE_FENCED, Rule.ALONE_BEFORE_BURIAL, Rule.CLAIM_WHEN_ALONE,
    Rule.GIVE_WAY_SELDOM,
    Rule.MARK_NAMES_LIFE, Rule.LIFE_BEFORE_SEQUENCE, Rule.UNMARK_FIRST,
})  # fmt: skip
"""What exploring the protocol as it was first written added."""

AS_FIRST_WRITTEN: Final = frozenset(Rule) - AMENDMENTS
PROTOCOL: Final = frozenset(Rule) - {Rule.DEAD_LETTER_FIRST}
"""The rules in force; the repaired dead letter takes the place of the dead letter first."""


class Flaw(StrEnum):
    """A bad state, or a part of the graph that is bad as a whole."""

    RUNS_AFTER_DONE = "a task that has ended runs again"
    TWO_AT_ONCE = "two runs of the task at once"
    TWO_OUTCOMES = "two outcomes"
    FORKED = "the retry chain forked"
    BURNED = "a crash was counted where none happened"
    BURIED_NEIGHBOUR = "a task was buried for crashes, and never ran alone in one"
    RUNS_AFTER_CANCEL = "a cancelled task starts after cancel answered"
    GHOST_LETTER = "a dead letter of a task that is not dead"
    LETTER_LOST = "dead without a dead letter, and no worker left to write it"
    LOST = "the task is lost: nothing left that will end it"
    UNFORESEEN = "a message meets a record of an earlier attempt, for which the protocol has no rule"
    LIVELOCK = "without any fault the same states can come round forever, though every worker gets its turn"
