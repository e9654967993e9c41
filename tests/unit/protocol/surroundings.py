"""Broker, producer and canceller: what happens around the workers."""

from typing import Final

from tests.unit.protocol.rules import Rule
from tests.unit.protocol.state import (
    DROPPED,
    FREE,
    GONE,
    LATER,
    NOTHING,
    UNATTENDED,
    WORK,
    Cancel,
    Key,
    Mark,
    Message,
    Record,
    Redrive,
    State,
    Worker,
)
from tests.unit.protocol.world import Steps, World, held, left, moved

LANES: Final = (0, 1)


def broker(world: World, state: State) -> Steps:
    """Yield deliveries, ends of leases, schedules, and what a broker gets wrong."""
    idle = next((index for index in (0, 1) if state.workers[index].at == "idle"), None)
    for message in state.messages:
        name = f"{message.key[0]}#{message.key[1]}"
        if message.holder == UNATTENDED:
            yield f"the lease of {name} ends", held(state, message.key, FREE), False
        elif message.holder == FREE and idle is not None:
            yield f"worker {idle} receives {name}", _delivered(world, state, message, idle), False
        if message.holder != FREE and state.left.kills:
            yield f"the broker is killed and forgets who has {name}", _killed(world, state, message), True
    yield from _schedule(state)
    if state.left.exits and state.record.state == "run" and state.record.by == DROPPED:
        gone = state.record._replace(by=GONE)
        exited = state._replace(record=gone, left=state.left.less("exits"))
        yield "the worker that dropped the attempt ends", exited, True
    if state.left.expiries and state.record.state == "done" and _may_expire(world, state):
        yield "the record expires", state._replace(record=NOTHING, left=state.left.less("expiries")), True


def _schedule(state: State) -> Steps:
    attempt, fence = state.schedule
    if not attempt:
        return
    due = Message(_unused(state, LATER), 0, attempt, fence, flagged=False, delivered=0, holder=FREE)
    fired = state._replace(messages=tuple(sorted((*state.messages, due))))
    yield f"schedule {attempt} fires", fired._replace(schedule=(0, 0)), False
    if state.left.refires:
        yield f"schedule {attempt} fires and stays", fired._replace(left=state.left.less("refires")), True


def _delivered(world: World, state: State, message: Message, index: int) -> State:
    slow = (
        (message.delivered >= 1 and Rule.SLOW_WHEN_REDELIVERED in world.rules)
        or (message.flagged and Rule.SLOW_WHEN_FLAGGED in world.rules)
        or (_below_mark(state, message) and Rule.SLOW_BELOW_MARK in world.rules)
        or (message.key[0] == LATER and Rule.SLOW_FROM_LATER in world.rules)
    )
    worker = Worker("claim" if slow else "received", message.key, message.attempt, message.fence)
    again = message._replace(delivered=min(2, message.delivered + 1), holder=index)
    messages = tuple([again if m.key == message.key else m for m in state.messages])
    return moved(state._replace(messages=messages), index, worker)


def _below_mark(state: State, message: Message) -> bool:
    return message.key in state.mark.below if state.mark.counts else message.old


def marker(world: World, state: State) -> Steps:
    """Yield the next step of the one that makes the queue: its consumers, then the mark of this life."""
    mark, left = state.mark, state.left
    here = tuple([message.key for message in state.messages if message.key[0] == WORK])
    life_first = Rule.LIFE_BEFORE_SEQUENCE in world.rules
    if not mark.at and left.remakes:
        counts = mark.counts and Rule.UNMARK_FIRST not in world.rules
        gone = mark._replace(at="make", counts=counts)
        begun = state._replace(mark=gone, left=left.less("remakes"))
        yield "the mark is taken away, if it has to be", begun, True
    if mark.at == "make":
        for message in state.messages:
            if message.holder != FREE:
                made = _forgotten(state._replace(mark=mark._replace(at="")), message)
                name = f"the consumer of {message.key[0]}#{message.key[1]}"
                yield f"{name} is made again", _oriented_again(made), True
        yield "the consumer is not made", state._replace(mark=mark._replace(at="")), False
    elif not mark.at and left.marks and not mark.counts:
        asking = mark._replace(at="life" if life_first else "sequence", knows_life=False, noted=())
        yield "the marker begins", state._replace(mark=asking, left=left.less("marks")), True
    elif mark.at == "life":
        noted = mark._replace(at="sequence" if life_first else "write", knows_life=True)
        yield "the marker notes the broker's life", state._replace(mark=noted), False
    elif mark.at == "sequence":
        looked = mark._replace(at="write" if life_first else "life", noted=here)
        yield "the marker asks for the last sequence", state._replace(mark=looked), False
    elif mark.at == "write":
        yield "the marker writes", state._replace(mark=Mark(mark.knows_life, mark.noted)), False


def _killed(world: World, state: State, message: Message) -> State:
    counts = state.mark.counts and Rule.MARK_NAMES_LIFE not in world.rules
    state = state._replace(
        left=state.left.less("kills"), mark=state.mark._replace(counts=counts, knows_life=False)
    )
    first, second = [w if w.at == "idle" else w._replace(away=True) for w in state.workers]
    return _oriented_again(_forgotten(state._replace(workers=(first, second)), message))


def _oriented_again(state: State) -> State:
    """Return the state for workers that look at the stream again: after a reconnection, or a refused pull."""
    return state._replace(messages=tuple([each._replace(old=True) for each in state.messages]))


def _forgotten(state: State, message: Message) -> State:
    # A delivery of the lost connection that has not begun to run is dropped; a running one goes on unaware.
    holder = message.holder
    if holder != UNATTENDED and state.workers[holder].at in {"received", "claim"}:
        state = left(state, holder)
    forgotten = message._replace(delivered=0, holder=FREE)
    return state._replace(messages=tuple([forgotten if m.key == message.key else m for m in state.messages]))


def _may_expire(world: World, state: State) -> bool:
    copies = state.messages or state.schedule[0] or state.in_flight or state.left.republishes
    unheld = all(worker.at == "idle" for worker in state.workers)
    return Rule.RECORD_OUTLIVES_COPIES not in world.rules or (not copies and unheld)


def producer(world: World, state: State) -> Steps:
    """Yield the arrival of a slow first publish, and repetitions: no answer seen, or an operator in doubt."""
    lanes = {message.lane for message in state.messages if message.key[0] == WORK}
    if state.in_flight:
        landed = state._replace(in_flight=False)
        yield (
            "the first publish arrives",
            landed if 0 in lanes else _published(landed, 0, flagged=False),
            False,
        )
    if not state.left.republishes:
        return
    for lane in LANES:
        refused = bool(lanes) if Rule.WILDCARD_EXPECTED in world.rules else lane in lanes
        if not refused:
            again = _published(state, lane, flagged=Rule.REPUBLISH_FLAGGED in world.rules)
            yield f"published again, lane {lane}", again._replace(left=state.left.less("republishes")), True


def _published(state: State, lane: int, *, flagged: bool) -> State:
    message = Message(_unused(state, WORK), lane, 1, 0, flagged, delivered=0, holder=FREE)
    return state._replace(messages=tuple(sorted((*state.messages, message))))


def _unused(state: State, stream: str) -> Key:
    """Return the lowest key of a stream that nothing refers to any more: keys are only ever compared."""
    used = {message.key for message in state.messages}
    used |= {state.record.claim, state.previous.claim}
    used |= {key for worker in state.workers for key in (worker.key, worker.seen.claim)}
    used |= {*state.mark.below, *state.mark.noted}
    return next((stream, sequence) for sequence in range(1, 9) if (stream, sequence) not in used)


def canceller(world: World, state: State) -> Steps:
    """Yield the next step of the canceller: read, decide in the record, purge, tell the workers."""
    at, fence = state.cancel
    first = Rule.CANCEL_DECIDES_FIRST in world.rules
    if not at and state.left.cancels:
        begun = state._replace(left=state.left.less("cancels"), cancel=Cancel("read" if first else "purge"))
        yield "the canceller begins", begun, True
    elif at == "read" and state.record.state == "done":
        yield "the canceller is too late", state._replace(cancel=Cancel("over")), False
    elif at == "read":
        yield "the canceller reads", state._replace(cancel=Cancel("decide", state.record.sequence)), False
    elif at == "decide":
        record = Record(0, "done", state.record.attempt, outcome="cancelled")
        after = world.put(state, record, fence)
        if after is None:
            yield "the canceller is refused", state._replace(cancel=Cancel("read")), False
        else:
            yield "the canceller decides", after._replace(cancel=Cancel("purge" if first else "tell")), False
    elif at == "purge":
        purged = state._replace(messages=(), schedule=(0, 0), cancel=Cancel("tell" if first else "read"))
        yield "the canceller purges", purged, False
    elif at == "tell":
        stopped = [worker._replace(at="ack") if worker.at == "run" else worker for worker in state.workers]
        told = state._replace(workers=(stopped[0], stopped[1]), cancel=Cancel("answered"))
        yield "the canceller tells the workers", told, False
    if at in {"read", "decide", "purge", "tell"}:
        yield "the canceller dies", state._replace(cancel=Cancel("over")), True


def redriver(world: World, state: State) -> Steps:
    """Yield the next step of a program that redrives: read, publish, note it in the record."""
    at, fence, attempt = state.redrive
    failed = state.record.state == "done" and state.record.outcome == "dead"
    if not at and state.left.redrives and state.letter:
        begun = state._replace(left=state.left.less("redrives"))
        if failed:
            reading = Redrive("publish", state.record.sequence, state.record.attempt + 1)
            yield "the redriver reads the failure", begun._replace(redrive=reading), True
        else:
            yield "the redriver finds that the task has moved on", begun._replace(letter=False), True
    elif at == "publish":
        expected = fence if Rule.REDRIVE_FENCED in world.rules else 0
        key = _unused(state, WORK)
        message = Message(key, 0, attempt, expected, flagged=True, delivered=0, holder=FREE)
        after = state._replace(
            messages=tuple(sorted((*state.messages, message))), redrive=Redrive("note", fence, attempt)
        )
        if failed and state.record.sequence == fence:
            # From here on the task is not dead any more, and its letter is of the past.
            after = after._replace(ended="", letter=False)
        yield "the redrive is published", after, False
    elif at == "note":
        noted = world.put(state, Record(0, "retry", attempt), fence) or state
        yield "the redrive is noted in the record", noted._replace(redrive=Redrive()), False
    if at:
        yield "the redriver dies", state._replace(redrive=Redrive()), True
