"""The worker's side of the protocol: from each place inside it, what it does next."""

from collections.abc import Callable, Iterator
from typing import Final

from tests.unit.protocol.rules import Flaw, Rule
from tests.unit.protocol.state import DROPPED, FREE, Record, State, Worker
from tests.unit.protocol.world import World, died, dropped, held, left, moved

RAN: Final = frozenset({"ok", "dead"})
"""Outcomes a run gave. A cancel decides beside the run, which may begin until the canceller has answered."""

WRITES: Final = frozenset(
    {"claim", "store", "retry", "defer", "schedule", "letter", "dead", "hand back", "mark", "nak", "ack"}
)
"""Where a worker's next step is a message to the broker, which may be on its way when the lease ends."""

RECORD_WRITES: Final = frozenset({"claim", "store", "retry", "defer", "dead", "mark"})

Moves = Iterator[tuple[str, State]]


def intended(world: World, index: int, worker: Worker) -> Record:
    """Return the record a worker is about to write."""
    attempt = worker.attempt
    match worker.at:
        case "claim":
            return Record(0, "run", attempt, worker.key, crashes=worker.crashes, by=index)
        case "hand back" | "mark":
            return Record(0, "run", attempt, worker.key, handed_back=True, crashes=worker.crashes, by=index)
        case "retry":
            return Record(0, "retry", attempt + 1)
        case "defer":
            return Record(0, "retry", attempt, crashes=worker.crashes, deferred=True)
        case "store":
            return Record(0, "done", attempt, outcome="ok")
        case _:
            return Record(0, "done", attempt, crashes=worker.crashes, outcome="dead")


def start(state: State, index: int, worker: Worker) -> State:
    """Return the state with the handler running."""
    flaw = state.flaw
    if state.ended in RAN:
        flaw = Flaw.RUNS_AFTER_DONE
    elif state.cancel.at == "answered":
        flaw = Flaw.RUNS_AFTER_CANCEL
    elif state.workers[1 - index].at == "run":
        flaw = Flaw.TWO_AT_ONCE
    return moved(state._replace(flaw=flaw), index, worker._replace(at="run"))


def alone(world: World, state: State, index: int, worker: Worker) -> Moves:
    """Wait for the other attempts of the worker, each of which may take it down, but not for too long."""
    if state.left.yields:
        bounded = Rule.GIVE_WAY_SELDOM in world.rules
        after = state._replace(left=state.left.less("yields")) if bounded else state
        yield "gives way to the others", left(held(after, worker.key, FREE), index)
    if Rule.CLAIM_WHEN_ALONE in world.rules:
        yield "is alone, and claims", moved(state, index, worker._replace(at="claim"))
    else:
        yield "is alone, and begins", start(state._replace(alone=True), index, worker)


def received(world: World, state: State, index: int, worker: Worker) -> Moves:
    if state.cancel.at == "answered" and Rule.REMEMBER_CANCELLED in world.rules:
        yield "knows it is cancelled", moved(state, index, worker._replace(at="ack"))
    else:
        if state.left.unknown:
            yield "does not know the handler, claims", moved(state, index, worker._replace(at="claim"))
        yield f"runs attempt {worker.attempt} on the fast path", start(state, index, worker)


def claim(world: World, state: State, index: int, worker: Worker) -> Moves:
    after = world.put(state, intended(world, index, worker), worker.fence)
    if after is None:
        yield "is refused its claim", moved(state, index, worker._replace(at="read", seen=state.record))
    else:
        mine = worker._replace(fence=after.top)
        by_itself = bool(world.scenario.crash_limit) and worker.crashes >= world.scenario.crash_limit
        if by_itself and Rule.CLAIM_WHEN_ALONE not in world.rules:
            waits = after._replace(alone=False)
            yield "claims, and waits for the others", moved(waits, index, mine._replace(at="alone"))
            return
        begun = start(after._replace(alone=by_itself), index, mine)
        yield f"claims and runs attempt {worker.attempt}", begun
        if state.left.unknown:
            at = "defer" if Rule.DEFER_RECORD_FIRST in world.rules else "schedule"
            spent = after._replace(left=after.left.less("unknown"))
            deferring = mine._replace(at=at, plan=worker.attempt)
            yield f"claims attempt {worker.attempt}, not knowing its handler", moved(spent, index, deferring)


def defer(world: World, state: State, index: int, worker: Worker) -> Moves:
    after = world.put(state, intended(world, index, worker), worker.fence)
    if after is None:
        yield "is refused its deferral", moved(state, index, worker._replace(at="lost", seen=state.record))
    else:
        yield "defers", moved(after, index, worker._replace(at="schedule", fence=after.top))


def read(world: World, state: State, index: int, worker: Worker) -> Moves:
    for record in _versions(world, state, worker):
        said = f"{record.state} {record.attempt}".strip() or "nothing"
        yield f"reads {said}", _decided(world, state, index, worker._replace(seen=Record()), record)


def lost(world: World, state: State, index: int, worker: Worker) -> Moves:
    for record in _versions(world, state, worker):
        if record.state == "done":
            at = _after_done(world, record)
            yield f"finds done({record.outcome})", moved(state, index, worker._replace(at=at, seen=Record()))
        elif worker.retrying and Rule.DROP_WHEN_RETRY_LOSES not in world.rules:
            yield (
                "was overtaken, acks all the same",
                moved(state, index, worker._replace(at="ack", seen=Record())),
            )
        else:
            yield "was overtaken, drops without ack", dropped(state, index)


def run(world: World, state: State, index: int, worker: Worker) -> Moves:
    rules, attempt = world.rules, worker.attempt
    ok = "store" if Rule.STORE_BEFORE_ACK in rules else "ack, then store"
    yield "succeeds", moved(state, index, worker._replace(at=ok))
    if attempt < world.scenario.attempts:
        at = "retry" if Rule.RETRY_RECORD_FIRST in rules else "schedule"
        yield "fails", moved(state, index, worker._replace(at=at, plan=attempt + 1, retrying=True))
    else:
        yield "fails for good", moved(state, index, worker._replace(at=_burial(world)))
    if state.left.unknown:
        at = "defer" if Rule.DEFER_RECORD_FIRST in rules else "schedule"
        spent = state._replace(left=state.left.less("unknown"))
        yield "asks to run again later", moved(spent, index, worker._replace(at=at, plan=attempt))


def store(world: World, state: State, index: int, worker: Worker) -> Moves:
    after = world.put(state, intended(world, index, worker), worker.fence)
    if after is None:
        yield "is refused its outcome", moved(state, index, worker._replace(at="lost", seen=state.record))
    elif Rule.STORE_BEFORE_ACK in world.rules:
        yield "stores the outcome", moved(after, index, worker._replace(at="ack"))
    else:
        yield "stores the outcome", left(after, index)


def retry(world: World, state: State, index: int, worker: Worker) -> Moves:
    after = world.put(state, intended(world, index, worker), worker.fence)
    if after is None:
        yield "is refused its retry", moved(state, index, worker._replace(at="lost", seen=state.record))
    else:
        at = "schedule" if Rule.RETRY_RECORD_FIRST in world.rules else "ack"
        yield f"writes retry {worker.plan}", moved(after, index, worker._replace(at=at, fence=after.top))


def schedule(world: World, state: State, index: int, worker: Worker) -> Moves:
    fence = worker.fence if Rule.SCHEDULE_FENCED in world.rules else 0
    at = "retry" if worker.retrying and Rule.RETRY_RECORD_FIRST not in world.rules else "ack"
    after = state._replace(schedule=(worker.plan, fence))
    yield f"publishes schedule {worker.plan}", moved(after, index, worker._replace(at=at))


def letter(world: World, state: State, index: int, worker: Worker) -> Moves:
    at = "dead" if Rule.DEAD_LETTER_FIRST in world.rules else "ack"
    flaw = Flaw.GHOST_LETTER if state.ended not in {"", "dead"} else state.flaw
    yield (
        "writes the dead letter",
        moved(state._replace(letter=True, flaw=flaw), index, worker._replace(at=at)),
    )


def dead(world: World, state: State, index: int, worker: Worker) -> Moves:
    after = world.put(state, intended(world, index, worker), worker.fence)
    if after is None:
        yield "is refused done(dead)", moved(state, index, worker._replace(at="lost", seen=state.record))
    else:
        at = "ack" if Rule.DEAD_LETTER_FIRST in world.rules else "letter"
        yield "writes done(dead)", moved(after, index, worker._replace(at=at))


def hand_back(world: World, state: State, index: int, worker: Worker) -> Moves:
    after = world.put(state, intended(world, index, worker), worker.fence)
    if after is None:
        yield "is refused the hand-back", moved(state, index, worker._replace(at="lost", seen=state.record))
    else:
        yield "marks its record handed back", moved(after, index, worker._replace(at="nak"))


def mark(world: World, state: State, index: int, worker: Worker) -> Moves:
    after = world.put(state, intended(world, index, worker), worker.fence)
    if after is None:
        yield "is refused its mark, as another took over", left(state, index)
    else:
        yield "marks the record of the attempt it dropped", left(after, index)


def nak(world: World, state: State, index: int, worker: Worker) -> Moves:
    # The server takes a nak from any delivery of the message, also from one whose lease has ended.
    mine = [
        m for m in state.messages if m.key == worker.key and (m.holder == index or world.scenario.stale_nak)
    ]
    # A worker that drains ends afterwards, and who asks for its process then finds it gone.
    yield "naks, and ends", died(held(state, worker.key, FREE) if mine else state, index)


def ack(world: World, state: State, index: int, worker: Worker) -> Moves:
    messages = tuple([message for message in state.messages if message.key != worker.key])
    yield "acks", left(state._replace(messages=messages), index)


def ack_first(world: World, state: State, index: int, worker: Worker) -> Moves:
    messages = tuple([message for message in state.messages if message.key != worker.key])
    yield "acks", moved(state._replace(messages=messages), index, worker._replace(at="store"))


Move = Callable[[World, State, int, Worker], Moves]
MOVES: Final[dict[str, Move]] = {
    "received": received,
    "claim": claim,
    "alone": alone,
    "read": read,
    "run": run,
    "store": store,
    "retry": retry,
    "defer": defer,
    "schedule": schedule,
    "letter": letter,
    "dead": dead,
    "hand back": hand_back,
    "mark": mark,
    "nak": nak,
    "ack": ack,
    "ack, then store": ack_first,
    "lost": lost,
}


def _burial(world: World) -> str:
    return "letter" if Rule.DEAD_LETTER_FIRST in world.rules else "dead"


def _after_done(world: World, record: Record) -> str:
    owed = record.outcome == "dead" and Rule.DEAD_LETTER_REPAIRED in world.rules
    return "letter" if owed else "ack"


def _versions(world: World, state: State, worker: Worker) -> list[Record]:
    """Return the versions a follower may answer with: as old as the refusal at most."""
    versions = [worker.seen]
    if state.record.sequence != worker.seen.sequence:
        versions.append(state.record)
    if Rule.READ_UP_TO_REFUSED not in world.rules and state.previous.sequence < worker.seen.sequence:
        versions.append(state.previous)
    return versions


def _decided(world: World, state: State, index: int, worker: Worker, record: Record) -> State:
    """Return the state after a refused claim has read the record: take over, schedule again, or let go."""
    mine, rules = worker.attempt, world.rules
    fresh = worker._replace(fence=record.sequence, crashes=0)
    ahead = record.attempt - mine
    named = record.claim == worker.key or Rule.CLAIM_NAMES_MESSAGE not in rules
    match record.state:
        case "done":
            at = _after_done(world, record)
        case "retry" if ahead > 0:
            again = Rule.REPUBLISH_SCHEDULE in rules and (ahead == 1 or Rule.ANY_LATER_RETRY in rules)
            at, fresh = "schedule" if again else "ack", fresh._replace(plan=record.attempt)
        case "" | "retry" if ahead == 0 or not record.state:
            at = "claim"
        case "run" if ahead == 0 and named:
            return _taken_over(world, state, index, fresh, record)
        case "run" if ahead >= 0:
            at = "ack"
        case _:
            return dropped(state._replace(flaw=Flaw.UNFORESEEN), index)
    return moved(state, index, fresh._replace(at=at))


def _taken_over(world: World, state: State, index: int, worker: Worker, record: Record) -> State:
    rules, limit = world.rules, world.scenario.crash_limit
    holder = state.workers[1 - index]
    runs = holder.key == worker.key and holder.at not in {"idle", "mark"} and not holder.stale
    if runs and holder.away and Rule.AWAIT_RECONNECT in rules:
        return left(held(state, worker.key, FREE), index)
    if runs and not holder.away and Rule.ASK_HOLDER in rules:
        # Its renewals name the message, so they hold it wherever it was delivered.
        return left(held(state, worker.key, 1 - index), index)
    if not limit:
        return moved(state, index, worker._replace(at="claim"))
    by = state.record.by if state.record.sequence == record.sequence else record.by
    own = by == index and Rule.OWN_CLAIM_IS_NO_CRASH in rules
    lives = (by == DROPPED or (by == 1 - index and not runs)) and Rule.CRASH_IF_GONE in rules
    crashes = record.crashes + (0 if record.handed_back or own or lives else 1)
    buried = crashes > limit if Rule.ALONE_BEFORE_BURIAL in rules else crashes >= limit
    if buried and crashes > record.crashes and not state.alone:
        state = state._replace(flaw=Flaw.BURIED_NEIGHBOUR)
    waits = crashes >= limit and Rule.CLAIM_WHEN_ALONE in rules
    at = _burial(world) if buried else "alone" if waits else "claim"
    return moved(state, index, worker._replace(at=at, crashes=crashes))
