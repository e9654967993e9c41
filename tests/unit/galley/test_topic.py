"""Which task an event becomes, and which events concern a subscription."""

from datetime import UTC, datetime, timedelta
from itertools import product

from galley.event import Event
from galley.topic import Subscription, concerns, copy_id

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def an_event(id: str = "1", source: str = "here") -> Event:  # noqa: A002 - its name
    return Event(id, source, "reading", time=NOW)


def test_each_event_of_each_source_topic_and_subscription_has_a_task_of_its_own() -> None:
    texts = ("a", "b", "ab", "bb")
    ids = {
        copy_id(topic, subscription, an_event(event, source))
        for topic, subscription, source, event in product(texts, repeat=4)
    }
    assert len(ids) == len(texts) ** 4
    assert copy_id("a", "b", an_event()) == copy_id("a", "b", an_event())


def test_a_subscription_gets_what_was_stored_since_then() -> None:
    subscription = Subscription("all", "images", "resize", since=NOW)
    assert concerns(subscription, "uploads", an_event(), NOW)
    assert not concerns(subscription, "uploads", an_event(), NOW - timedelta(milliseconds=1))
