"""`galley topic`: who subscribes to topics, the events that are kept and those that come, and replays."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Any, Final, NoReturn

import msgspec
from msgspec.structs import replace

from galley.broker.topics import StoredEvent
from galley.cli.command import Command, text
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.output import Column, Format, Listing, format_argument, rfc_3339, write_document
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.event import Attribute, Event, encode
from galley.listener import AsyncListener
from galley.shown import safe
from galley.topic import Subscription
from galley.topics import SubscribedQueue, TopicView

_ACTIONS: Final = ("show", "events", "follow", "replay")


def _document(view: TopicView) -> dict[str, Any]:
    """Return a topic as plain data, with stable names for programs."""
    topic = view.topic
    return {
        "name": topic.name,
        "retentionSeconds": topic.retention_seconds,
        "retentionBytes": topic.retention_bytes,
        "origin": topic.origin.value,
        "events": view.events,
        "queues": [
            {
                "queue": each.queue,
                "pending": each.pending,
                "full": each.full,
                "missed": {
                    "failed": each.missed.failed,
                    "expired": each.missed.expired,
                    **({"lastAt": rfc_3339(each.missed.last_at)} if each.missed.last_at else {}),
                },
                "subscriptions": [msgspec.to_builtins(one) for one in each.subscriptions],
            }
            for each in view.queues
        ],
    }


TOPICS: Final = Listing[TopicView](
    (
        Column("name", lambda view: view.name),
        Column("events", lambda view: view.events),
        Column("queues", lambda view: ",".join(each.queue for each in view.queues)),
        Column("pending", lambda view: sum(each.pending for each in view.queues)),
        Column("missed", lambda view: sum(each.missed.total for each in view.queues)),
        Column("retention", lambda view: view.topic.retention_seconds, wide=True),
        Column("declared", lambda view: view.topic.origin.value, wide=True),
    ),
    name=lambda view: view.name,
    document=_document,
    empty="no topics",
)


def _moment(word: str) -> datetime:
    moment: datetime | None = None
    with suppress(ValueError):
        moment = datetime.fromisoformat(word)
    if moment is None or moment.tzinfo is None:
        raise Misuse(f"{word!r} is no time with an offset", "such as 2026-01-01T12:00:00Z")
    return moment


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", metavar="|".join(_ACTIONS), choices=_ACTIONS)
    parser.add_argument("topic", metavar="TOPIC", type=text)
    parser.add_argument(
        "--filter", type=text, metavar="EXPRESSION", help="with follow: only events that match"
    )
    parser.add_argument(
        "--subscription",
        type=text,
        metavar="NAME",
        help="with replay: the subscription that gets the events again",
    )
    parser.add_argument(
        "--since", type=text, metavar="TIME", help="events stored since then; required for replay"
    )
    parser.add_argument("--until", type=text, metavar="TIME", help="with replay: events stored before then")
    format_argument(parser, Format.JSON, Format.YAML)
    server_arguments(parser)


async def _run(options: Namespace, terminal: Terminal) -> int:
    since = _moment(options.since) if options.since else None
    until = _moment(options.until) if options.until else None
    if options.filter is not None and options.action != "follow":
        raise Misuse("--filter is for follow", "galley topic follow TOPIC --filter EXPRESSION")
    if options.action == "follow":
        if options.output is Format.YAML:
            raise Misuse("follow prints lines, or JSON", "galley topic follow TOPIC -o json")
        async with connected(options, terminal) as client:
            await _follow(client, options, terminal)
    if options.action == "replay":
        if options.subscription is None or since is None:
            example = "galley topic replay TOPIC --subscription NAME --since TIME"
            raise Misuse("replay needs --subscription and --since", example)
        async with connected(options, terminal) as client:
            done = await client.topics.replay(options.topic, options.subscription, since, until)
        terminal.result(
            f"{done.copied} copied, {done.present} present already, {done.filtered} filtered, "
            f"{done.failed} failed"
        )
        return ExitCode.DONE
    async with connected(options, terminal) as client:
        if options.action == "events":
            async for stored in client.topics.events(options.topic, since):
                terminal.result(_cloudevent(stored))
            return ExitCode.DONE
        view = await client.topics.get(options.topic)
    if options.output is not None:
        write_document(_document(view), options.output, terminal)
        return ExitCode.DONE
    for line in _lines(view):
        terminal.result(safe(line))
    return ExitCode.DONE


def _cloudevent(stored: StoredEvent) -> str:
    """Return an event as one line; characters that a terminal obeys are escaped."""
    event = replace(stored.event, data=msgspec.Raw(json.dumps(_data(stored.event)).encode()))
    return json.dumps(json.loads(encode(event)))


def _data(event: Event) -> Any:
    """Return the data of an event; as a text, if Python cannot read it."""
    body = bytes(event.data)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # a number of 5,000 digits, a list in a thousand lists
        return body.decode("utf-8", "replace")


async def _follow(client: AsyncClient, options: Namespace, terminal: Terminal) -> NoReturn:
    """Print events as they come, until Ctrl-C."""
    with ExitStack() as hooks:
        async with client.topics.listen(options.topic, options.filter or "") as events:
            told = _Told(events, terminal)
            hooks.callback(told.changes)
            hooks.callback(client.broker.on_disconnect(told.lost))
            hooks.callback(client.broker.on_reconnect(told.back))
            terminal.say(f"listening to topic {options.topic}, until Ctrl-C")
            async for stored in events:
                told.changes()
                terminal.result(_cloudevent(stored) if options.output is Format.JSON else _line(stored))
    raise AssertionError("a listener ends with an error")


class _Told:
    """Says what is missed."""

    def __init__(self, events: AsyncListener, terminal: Terminal) -> None:
        self._events, self._terminal = events, terminal
        self._said = (0, 0, 0)

    async def lost(self) -> None:
        self._terminal.say("the connection is lost: events are missed until it is back")

    async def back(self) -> None:
        self._terminal.say("the connection is back")

    def changes(self) -> None:
        """Say what was missed since the last time."""
        now = self._events.dropped, self._events.gaps, self._events.failed
        dropped, gaps, failed = (one - other for one, other in zip(now, self._said, strict=True))
        self._said = now
        if dropped:
            self._terminal.say(f"{dropped} events came faster than they are printed, and are left out")
        if gaps:
            self._terminal.say("events may be missing here")
        if failed:
            self._terminal.say(f"the filter cannot be applied to {failed} events, which are left out")


def _line(stored: StoredEvent) -> str:
    event = stored.event
    named = {"subject": event.subject, "key": event.key, **event.attributes}
    words = [f"{name}={_word(value)}" for name, value in named.items() if value != ""]
    head = rfc_3339(stored.stored_at), _word(event.type), _word(event.source)
    return " ".join((*head, *words, json.dumps(_data(event), ensure_ascii=False)))


def _word(value: Attribute) -> str:
    bare = isinstance(value, str) and value.isprintable() and not set(value) & set(' "=')
    return str(value) if bare else json.dumps(value, ensure_ascii=False)


def _lines(view: TopicView) -> Iterator[str]:
    topic = view.topic
    yield f"topic       {topic.name}"
    yield f"declared    {topic.origin.value}"
    yield f"events      {view.events} kept, each for {topic.retention_seconds} s"
    if not view.queues:
        yield "queues      none subscribes"
    for each in view.queues:
        full = ", the queue is full" if each.full else ""
        yield f"queue       {each.queue}: {each.pending} to be looked at{full}"
        if each.missed.total:
            yield f"  missed {_missed(each)}"
        for one in each.subscriptions:
            yield f"  {one.name}{_rules(one)}"


def _missed(queue: SubscribedQueue) -> str:
    missed, parts = queue.missed, list[str]()
    if missed.failed:
        parts.append(f"{missed.failed} that became dead letters: galley dead list {queue.queue}")
    if missed.expired:
        parts.append(f"{missed.expired} whose retention ended before they were copied")
    return " and ".join(parts) + (f"; the last at {rfc_3339(missed.last_at)}" if missed.last_at else "")


def _rules(subscription: Subscription) -> str:
    said = f" runs {subscription.handler}"
    if subscription.filter:
        said += f" if {subscription.filter}"
    if subscription.ordered:
        said += ", in order"
    if subscription.key:
        said += f", keyed by {subscription.key}"
    return said + (f", since {rfc_3339(subscription.since)}" if subscription.since else "")


command: Final = Command(
    "topic",
    "Show a topic and its events, follow and replay them",
    _arguments,
    _run,
    (
        "galley topic show orders",
        "galley topic replay orders --subscription mail-send --since 2026-01-01T12:00:00Z",
    ),
)
