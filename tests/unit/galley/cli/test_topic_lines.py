"""`galley topic`: who subscribes, how far they are, and what they missed; events as lines."""

import json
from datetime import UTC, datetime

from galley.broker.topics import StoredEvent
from galley.cli.topic import TOPICS, _cloudevent, _line, _lines
from galley.event import decode, event_of
from galley.missed import Missed
from galley.topic import Subscription, Topic
from galley.topics import SubscribedQueue, TopicView

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_what_a_queue_missed_stands_below_it() -> None:
    subscriptions = (Subscription("send", "mail", "send", ordered=True, key="data.customer"),)
    missed = Missed(failed=2, expired=3, last_at=AT)
    view = TopicView(
        Topic("orders"),
        (
            SubscribedQueue("mail", subscriptions, 7, missed, full=True),
            SubscribedQueue("stock", (), 0, Missed(expired=1)),
            SubscribedQueue("files", (), 0),
        ),
        9,
    )
    dead = "that became dead letters: galley dead list mail"
    expired = "whose retention ended before they were copied"
    assert list(_lines(view))[3:] == [
        "queue       mail: 7 to be looked at, the queue is full",
        f"  missed 2 {dead} and 3 {expired}; the last at 2026-01-01T12:00:00.000Z",
        "  send runs send, in order, keyed by data.customer",
        "queue       stock: 0 to be looked at",
        f"  missed 1 {expired}",
        "queue       files: 0 to be looked at",
    ]
    (column,) = (each for each in TOPICS.columns if each.title == "missed")
    assert column.cell(view) == 6
    assert TOPICS.document(view)["queues"][0]["missed"] == {
        "failed": 2, "expired": 3, "lastAt": "2026-01-01T12:00:00.000Z",
    }  # fmt: skip


def test_an_event_is_one_line() -> None:
    event = event_of(
        {"order": 7, "note": "two\nlines"}, AT, source="web shop", event_type="order.paid", key="ann",
        attributes={"region": "eu", "total": 12, "test": False, "note": 'a "quote"'},
    )  # fmt: skip
    stored = StoredEvent("orders", event, 3, AT)
    assert _line(stored) == (
        '2026-01-01T12:00:00.000Z order.paid "web shop" key=ann region=eu total=12 test=false '
        'note="a \\"quote\\"" {"order": 7, "note": "two\\nlines"}'
    )
    assert json.loads(_cloudevent(stored))["data"] == {"order": 7, "note": "two\nlines"}


def test_data_that_python_cannot_read_is_shown_as_text() -> None:
    """One such event must not end the command for those after it."""
    for data in ("9" * 5000, "[" * 900 + "\n" + "]" * 900):
        body = f'{{"specversion":"1.0","id":"1","source":"s","type":"t","data":{data}}}'
        stored = StoredEvent("orders", decode(body.encode(), AT), 1, AT)
        assert "\n" not in _line(stored)
        assert len(json.loads(_cloudevent(stored))["data"]) in {1, len(data)}
