"""Each check of the doctor fails for what it is there to find, and says what to do."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from galley.doctor import (
    Finding,
    Level,
    QueueFacts,
    ServerFacts,
    TopicFacts,
    judge_queue,
    judge_server,
    judge_topics,
    strangers,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GIB = 1024**3
SERVER = ServerFacts(
    "nats://127.0.0.1:4222", "2.15.1", False, True, NOW, server_now=NOW,
    credentials_end=NOW + timedelta(days=7),
    storage_used=GIB, storage_limit=10 * GIB, storage_reserved=2 * GIB,
)  # fmt: skip
QUEUE = QueueFacts("images", 3, 1000, served=True, workers=1, dead=0, usage=(("laterBytes", 0, GIB),))


TOPICS = TopicFacts("GT_ns", 10, GIB, waiting=(("images", 0), ("mail", 999)))


@pytest.mark.parametrize(
    ("changes", "level", "check"),
    [
        ({"silent": True}, Level.FAIL, "topics"),
        ({"missing": ("mail",)}, Level.FAIL, "topics: subscribers"),
        ({"differing": ("discard",)}, Level.WARN, "topics"),
        ({"used": GIB * 9 // 10}, Level.WARN, "topics: room"),
        ({"used": GIB}, Level.FAIL, "topics: room"),
        ({"waiting": (("mail", 1000),)}, Level.WARN, "topics: queue mail"),
    ],
)
def test_what_is_wrong_with_topics_is_said(changes: dict[str, object], level: Level, check: str) -> None:
    assert wrong(judge_topics(TOPICS)) == []
    [said] = judge_topics(TOPICS)
    assert "images, mail" in said.message
    assert wrong(judge_topics(replace(TOPICS, **changes))) == [(level, check)]


def wrong(findings: Iterable[Finding]) -> list[tuple[Level, str]]:
    """Return level and check of what is not well; each has to say what to do."""
    found = [finding for finding in findings if finding.level is not Level.OK]
    assert all(finding.hint for finding in found)
    return [(finding.level, finding.check) for finding in found]


def test_workers_of_another_version_are_named_with_theirs() -> None:
    [found] = [
        each for each in judge_queue(replace(QUEUE, other_versions=("", "0.3.0"))) if each.level is Level.WARN
    ]
    assert found.check == "queue images: version"
    assert "before 0.2, 0.3.0" in found.message
    assert "spec.worker.image" in found.hint


def test_an_installation_that_is_well_has_nothing_but_ok() -> None:
    assert wrong(judge_server(SERVER)) == []
    assert wrong(judge_queue(QUEUE)) == []
    assert wrong(strangers({"images"}, {"images"})) == []


@pytest.mark.parametrize(
    ("changes", "level", "check"),
    [
        ({"loopback": False}, Level.WARN, "tls"),
        ({"credentials_end": NOW + timedelta(hours=1)}, Level.WARN, "credentials"),
        ({"credentials_end": NOW - timedelta(seconds=1)}, Level.FAIL, "credentials"),
        ({"server_now": NOW - timedelta(seconds=6)}, Level.WARN, "clock"),
        ({"server_now": NOW + timedelta(seconds=6)}, Level.WARN, "clock"),
        ({"storage_used": 8 * GIB}, Level.WARN, "jetstream"),
        ({"storage_reserved": 9 * GIB}, Level.WARN, "jetstream"),
        ({"storage_used": 10 * GIB}, Level.FAIL, "jetstream"),
    ],
)
def test_what_is_wrong_with_the_server_is_found(changes: dict[str, object], level: Level, check: str) -> None:
    assert wrong(judge_server(replace(SERVER, **changes))) == [(level, check)]


@pytest.mark.parametrize(
    "changes", [{"encrypted": True, "loopback": False}, {"credentials_end": None}, {"server_now": None},
                {"storage_limit": -1, "storage_used": 100 * GIB}],
)  # fmt: skip
def test_what_is_not_wrong_is_ok(changes: dict[str, object]) -> None:
    assert wrong(judge_server(replace(SERVER, **changes))) == []


@pytest.mark.parametrize(
    ("changes", "level", "check"),
    [
        ({"missing": ("stream GN_ns_images",)}, Level.FAIL, "queue images: streams"),
        ({"silent": ("GN_ns_images",)}, Level.FAIL, "queue images: streams"),
        ({"differing": ("GN_ns_images (discard)",)}, Level.WARN, "queue images: streams"),
        ({"problem": "the image cannot be pulled"}, Level.WARN, "queue images: workers"),
        ({"problem": "the image cannot be pulled", "workers": 0}, Level.FAIL, "queue images: workers"),
        ({"served": False, "workers": 0}, Level.FAIL, "queue images: workers"),
        ({"served": False, "workers": 0, "backlog": 0}, Level.WARN, "queue images: workers"),
        ({"workers": 0}, Level.WARN, "queue images: workers"),
        ({"paused": True}, Level.WARN, "queue images: paused"),
        ({"held": "spec.paused is true", "workers": 0}, Level.WARN, "queue images: paused"),
        ({"backlog": 800}, Level.WARN, "queue images: limits"),
        ({"backlog": 1000}, Level.FAIL, "queue images: limits"),
        ({"usage": (("deadLetterBytes", GIB, GIB),)}, Level.FAIL, "queue images: limits"),
        ({"dead": 1}, Level.WARN, "queue images: dead letters"),
        ({"dead": 7}, Level.WARN, "queue images: dead letters"),
        ({"locked": True}, Level.WARN, "queue images: keys"),
    ],
)
def test_what_is_wrong_with_a_queue_is_found(changes: dict[str, object], level: Level, check: str) -> None:
    assert wrong(judge_queue(replace(QUEUE, **changes))) == [(level, check)]


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 0, "backlog": 0},
        {"workers": 0, "backlog": 0, "paused": True},
        {"workers": None, "served": None, "dead": None},
        {"usage": (("laterBytes", 5, -1),)},
    ],
)
def test_a_queue_without_work_or_with_few_rights_is_no_problem(changes: dict[str, object]) -> None:
    assert wrong(judge_queue(replace(QUEUE, **changes))) == []


def test_workers_of_a_queue_that_is_not_there_are_found() -> None:
    assert wrong(strangers({"images"}, {"images", "gone"})) == [(Level.WARN, "queue gone: workers")]
