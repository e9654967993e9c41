"""`galley topic show`: who subscribes, how far they are, and what they missed."""

from datetime import UTC, datetime

from galley.cli.topic import TOPICS, _lines
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
