"""What may be wrong with an installation, judged from what is known of it. Pure: facts in, findings out.

`galley.broker.checkup` gathers the facts.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from importlib.metadata import version
from typing import Final

from msgspec import Struct

SOON: Final = timedelta(hours=24)
"""Credentials that end sooner are warned of; the operator renews them after days."""
NEARLY_FULL: Final = 0.8
FULL: Final = 0.98
CLOCK_SECONDS: Final = 5.0
_HERE: Final = version("galley-tasks")
_MANY_EVENTS: Final = 1000
"""Events that wait to be copied, from which on that is said; workers copy about as many in a second."""
_UNCAPPED: Final = -1


class Level(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Struct, frozen=True):
    """What one check found."""

    level: Level
    check: str
    """What was looked at, such as `server` or `queue images: workers`."""
    message: str
    hint: str = ""
    """What to do; empty if all is well."""


class ServerFacts(Struct, frozen=True):
    """What is known of the server and the connection."""

    address: str
    version: str
    encrypted: bool
    loopback: bool
    now: datetime
    """By our clock."""
    server_now: datetime | None = None
    """By the server's; None if no answer had it."""
    credentials_end: datetime | None = None
    storage_used: int = 0
    storage_limit: int = _UNCAPPED
    """Bytes all streams may take; -1 if there is no limit."""
    storage_reserved: int = 0


class QueueFacts(Struct, frozen=True):
    """What is known of a queue. What the credentials do not show is None."""

    name: str
    backlog: int
    backlog_limit: int
    paused: bool = False
    served: bool | None = None
    """Whether the operator, or `galley dev`, says that it starts the queue's workers."""
    problem: str = ""
    """Why no worker starts, as it says."""
    held: str = ""
    """What pauses it beside `galley pause`, as a sentence."""
    workers: int | None = None
    """Workers whose heartbeats were heard."""
    dead: int | None = None
    missing: tuple[str, ...] = ()
    """Streams and consumers that a queue of this version has, and this one has not."""
    differing: tuple[str, ...] = ()
    """Streams whose configuration is not that of this version, each with the fields that differ."""
    silent: tuple[str, ...] = ()
    """Streams of which the server says nothing: in a cluster of NATS, those without a leader."""
    locked: bool = False
    """Whether it is encrypted, and this client has no keys of it."""
    usage: tuple[tuple[str, int, int], ...] = ()
    """Name, used and limit of each limit in bytes that is known."""
    other_versions: tuple[str, ...] = ()
    """Versions of Galley in its workers other than ours; empty text for one before 0.2."""


class TopicFacts(Struct, frozen=True):
    """What is known of the topics of a namespace, which are in one stream."""

    stream: str
    used: int = 0
    limit: int = _UNCAPPED
    waiting: tuple[tuple[str, int], ...] = ()
    """The queues that subscribe, with the events that are not copied into them yet."""
    missing: tuple[str, ...] = ()
    """Queues that subscribe and have no consumer."""
    differing: tuple[str, ...] = ()
    """Fields of the stream that are not those of this version."""
    silent: bool = False
    """Whether the server says nothing of the stream."""


def judge_server(facts: ServerFacts) -> Iterator[Finding]:
    """Yield what there is to say of the server and the connection."""
    yield Finding(Level.OK, "server", f"{facts.address}, nats-server {facts.version}")
    if facts.encrypted:
        yield Finding(Level.OK, "tls", "the connection is encrypted")
    elif facts.loopback:
        yield Finding(Level.OK, "tls", "not encrypted, and does not leave this machine")
    else:
        yield Finding(
            Level.WARN, "tls", "the connection is not encrypted: tasks and results can be read on the way",
            "set nats.tls in the chart, and give this client ca.crt of its Secret (--tls-ca)",
        )  # fmt: skip
    yield _credentials(facts)
    yield _clock(facts)
    yield _storage(facts)


def _credentials(facts: ServerFacts) -> Finding:
    if facts.credentials_end is None:
        return Finding(Level.OK, "credentials", "none with an end")
    left = facts.credentials_end - facts.now
    end = facts.credentials_end.isoformat(timespec="minutes")
    if left <= timedelta():
        return Finding(
            Level.FAIL, "credentials", f"ended at {end}", "take nats.creds of the queue's Secret as it is now"
        )
    if left < SOON:
        return Finding(
            Level.WARN, "credentials", f"end at {end}",
            "the operator renews them in the queue's Secret: mount it, or take nats.creds of it again",
        )  # fmt: skip
    return Finding(Level.OK, "credentials", f"end at {end}")


def _clock(facts: ServerFacts) -> Finding:
    if facts.server_now is None:
        return Finding(Level.OK, "clock", "not compared: no answer of the server had its time")
    ahead = (facts.now - facts.server_now).total_seconds()
    if abs(ahead) <= CLOCK_SECONDS:
        return Finding(Level.OK, "clock", "agrees with the server's")
    return Finding(
        Level.WARN, "clock",
        f"this machine's clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}",
        "deadlines and delays follow the clock of each machine: have NTP set both",
    )  # fmt: skip


def _storage(facts: ServerFacts) -> Finding:
    used, limit = facts.storage_used, facts.storage_limit
    if limit <= 0:
        return Finding(Level.OK, "jetstream", f"{_size(used)} used, no limit of the account")
    text = f"{_size(used)} of {_size(limit)} used, {_size(facts.storage_reserved)} set aside for streams"
    share = max(used, facts.storage_reserved) / limit
    hint = "raise nats.storage of the chart, or lower spec.limits of queues, or delete queues"
    if share >= FULL:
        return Finding(Level.FAIL, "jetstream", f"{text}: further queues and tasks are refused", hint)
    return Finding(Level.WARN, "jetstream", text, hint) if share >= NEARLY_FULL else _ok("jetstream", text)


def judge_queue(facts: QueueFacts) -> Iterator[Finding]:
    """Yield what there is to say of a queue."""
    name = f"queue {facts.name}"
    if facts.missing:
        yield Finding(
            Level.FAIL, f"{name}: streams", f"{', '.join(facts.missing)} missing",
            "run the operator, or `galley dev`, of this version: it makes them",
        )  # fmt: skip
    if facts.silent:
        yield Finding(
            Level.FAIL, f"{name}: streams", f"no answer about {', '.join(facts.silent)}",
            "it has no leader, or its disk is slow: look at the pods of NATS; `galley streams` shows leaders",
        )  # fmt: skip
    if facts.differing:
        yield Finding(
            Level.WARN, f"{name}: streams",
            f"made by another version, or changed by hand: {'; '.join(facts.differing)}",
            "run the operator, or `galley dev`, of this version: it changes them back",
        )  # fmt: skip
    if not (facts.missing or facts.silent or facts.differing):
        yield _ok(f"{name}: streams", "all there, and as this version makes them")
    yield _workers(name, facts)
    if facts.other_versions:
        theirs = ", ".join(each or "before 0.2" for each in facts.other_versions)
        yield Finding(
            Level.WARN, f"{name}: version", f"workers have Galley {theirs}, and this command {_HERE}",
            "build the image of the workers (spec.worker.image) with the version that is installed in the "
            "cluster, restart `galley dev`, or use the command of that version",
        )  # fmt: skip
    if facts.paused:
        level = Level.WARN if facts.backlog else Level.OK
        hint = f"galley resume {facts.name}" if facts.backlog else ""
        yield Finding(level, f"{name}: paused", f"paused, tasks in it: {facts.backlog}", hint)
    if facts.held:
        level = Level.WARN if facts.backlog else Level.OK
        yield Finding(
            level, f"{name}: paused", facts.held, f"galley why {facts.name}" if facts.backlog else ""
        )
    yield from _limits(name, facts)
    if facts.dead:
        letters = "1 task was given up" if facts.dead == 1 else f"{facts.dead} tasks were given up"
        yield Finding(
            Level.WARN, f"{name}: dead letters", letters,
            f"galley dead list {facts.name}; then galley dead redrive {facts.name} --all",
        )  # fmt: skip
    if facts.locked:
        yield Finding(
            Level.WARN, f"{name}: keys", "encrypted, and this client has no keys of it",
            "pass --keys or GALLEY_KEYS to read inputs, results and errors",
        )  # fmt: skip


def _workers(name: str, facts: QueueFacts) -> Finding:
    check = f"{name}: workers"
    if facts.problem:
        level = Level.FAIL if facts.backlog and not facts.workers else Level.WARN
        return Finding(level, check, f"none starts: {facts.problem}", "solve that, and they start")
    waits = f"{facts.backlog} tasks wait or run" if facts.backlog else "no task waits"
    if facts.backlog == 1:
        waits = "1 task waits or runs"
    if facts.served is False:
        return Finding(
            Level.FAIL if facts.backlog and not facts.workers else Level.WARN, check,
            f"nothing starts workers of it ({waits}): no operator that leads serves it, nor a `galley dev`",
            "look at the operator's pods and log, and whether its namespace is in operator.namespaces",
        )  # fmt: skip
    if facts.workers is None:
        return _ok(check, f"served; {waits}")
    if not facts.workers and facts.backlog and not facts.paused and not facts.held:
        return Finding(
            Level.WARN, check, f"{waits}, and no worker is there",
            "wait for the first to start; if none comes, `galley show` of a task says why",
        )  # fmt: skip
    return _ok(check, f"{facts.workers} there; {waits}")


def _limits(name: str, facts: QueueFacts) -> Iterator[Finding]:
    for limit, used, most in (("backlog", facts.backlog, facts.backlog_limit), *facts.usage):
        if most <= 0 or used < NEARLY_FULL * most:
            continue
        level = Level.FAIL if used >= FULL * most else Level.WARN
        shown = f"{used} of {most}" if limit == "backlog" else f"{_size(used)} of {_size(most)}"
        yield Finding(
            level, f"{name}: limits", f"{shown} of spec.limits.{limit} used",
            "raise the limit of the TaskQueue, add workers, or purge what is not needed",
        )  # fmt: skip


def judge_topics(facts: TopicFacts) -> Iterator[Finding]:
    """Yield what there is to say of the topics of a namespace."""
    if facts.silent:
        yield Finding(
            Level.FAIL, "topics", f"no answer about stream {facts.stream}",
            "it has no leader, or its disk is slow: look at the pods of NATS; `galley streams` shows leaders",
        )  # fmt: skip
        return
    if facts.missing:
        yield Finding(
            Level.FAIL, "topics: subscribers",
            f"{', '.join(facts.missing)} subscribe, and stream {facts.stream} has no consumer for them",
            "run the operator, or `galley dev`, of this version: it makes them",
        )  # fmt: skip
    if facts.differing:
        yield Finding(
            Level.WARN, "topics",
            f"made by another version, or changed by hand: {', '.join(facts.differing)}",
            "run the operator, or `galley dev`, of this version: it changes them back",
        )  # fmt: skip
    if facts.limit > 0 and facts.used >= NEARLY_FULL * facts.limit:
        yield Finding(
            Level.FAIL if facts.used >= FULL * facts.limit else Level.WARN, "topics: room",
            f"{_size(facts.used)} of {_size(facts.limit)} used; full topics refuse events",
            "raise spec.retention.bytes of a Topic, or keep events for a shorter time",
        )  # fmt: skip
    for queue, waiting in facts.waiting:
        if waiting >= _MANY_EVENTS:
            yield Finding(
                Level.WARN, f"topics: queue {queue}", f"{waiting} events are not copied into it yet",
                "its workers copy them: see what is said of its workers, and whether its backlog is full",
            )  # fmt: skip
    if not (facts.missing or facts.differing):
        several = ", ".join(queue for queue, _ in facts.waiting) or "none"
        yield _ok(
            "topics", f"{_size(facts.used)} of {_size(facts.limit)} used; queues that subscribe: {several}"
        )


def strangers(queues: set[str], heard: set[str]) -> Iterator[Finding]:
    """Yield a finding for each queue whose workers are heard, and which is not there."""
    for name in sorted(heard - queues):
        yield Finding(
            Level.WARN, f"queue {name}: workers", "workers of it are there, and it has no streams",
            "stop them, or apply its TaskQueue again",
        )  # fmt: skip


def _ok(check: str, message: str) -> Finding:
    return Finding(Level.OK, check, message)


def _size(number: int) -> str:
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"
