"""What roles may do, against lists that do not come from the permissions: streams, and JetStream's requests.

`tests/integration/credentials/test_rights.py` asks a server, subject by subject. Here nothing can be left out
of a table: each stream that a queue or namespace has is asked for each request that the server knows.
"""

from typing import Any, Final

import pytest

from galley.broker import namespace_streams, stream_config
from galley.broker.accounts import EXPORTS, Flow
from galley.broker.permissions import Role, backup_permissions, gateway_permissions, permissions_of
from galley.broker.stream_kind import OF_NAMESPACE, StreamKind, name_of
from tests.integration.credentials.test_rights import covers
from tests.support.builders import a_queue

MINE = a_queue("mine", namespace="ns")
OTHERS = (a_queue("theirs", namespace="ns"), a_queue("mine", namespace="other"))
P, W, M = Role.PRODUCER, Role.WORKER, Role.MANAGER

ABOUT_STREAMS: Final = (
    "STREAM.CREATE", "STREAM.UPDATE", "STREAM.INFO", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE",
    "STREAM.MSG.GET", "STREAM.SNAPSHOT", "STREAM.RESTORE", "STREAM.PEER.REMOVE", "STREAM.LEADER.STEPDOWN",
    "CONSUMER.CREATE", "CONSUMER.LIST", "CONSUMER.NAMES", "DIRECT.GET",
)  # fmt: skip
ABOUT_CONSUMERS: Final = (
    "CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.PAUSE",
    "CONSUMER.RESET", "CONSUMER.UNPIN", "CONSUMER.LEADER.STEPDOWN", "CONSUMER.MSG.NEXT",
)  # fmt: skip
ABOUT_NONE: Final = (
    "INFO", "ACCOUNT.INFO", "ACCOUNT.PURGE.A", "ACCOUNT.STREAM.MOVE.A.GW_ns_mine", "STREAM.LIST",
    "STREAM.NAMES",
    "STREAM.TEMPLATE.LIST", "META.LEADER.STEPDOWN", "SERVER.REMOVE", "STREAM.TEMPLATE.CREATE.x",
)  # fmt: skip
"""The requests that nats-server 2.15 answers, by its own documents."""

S = StreamKind
OWN: dict[tuple[str, StreamKind], set[Role]] = {
    ("STREAM.INFO", S.WORK): {P, W, M},
    ("STREAM.INFO", S.LATER): {P, W, M},
    ("STREAM.INFO", S.OBJECTS): {P, W, M},
    ("STREAM.INFO", S.FLOWS): {P, M},
    ("STREAM.INFO", S.TOPICS): {P, W, M},
    ("STREAM.PURGE", S.WORK): {M},
    ("STREAM.PURGE", S.LATER): {M},
    ("STREAM.PURGE", S.DEAD): {M},
    ("STREAM.PURGE", S.OBJECTS): {W},
    ("STREAM.PURGE", S.FLOWS): {W},
    ("STREAM.MSG.DELETE", S.WORK): {W},
    ("DIRECT.GET", S.WORK): {P, W, M},
    ("DIRECT.GET", S.LATER): {P, W, M},
    ("DIRECT.GET", S.NOTES): {P, M},
    ("DIRECT.GET", S.COUNTS): {P, M},
    ("DIRECT.GET", S.FLOWS): {P, W, M},
    ("DIRECT.GET", S.DEAD): {M},
    ("DIRECT.GET", S.TOPICS): {M},
    ("CONSUMER.INFO", S.WORK): {P, M},
    ("CONSUMER.INFO", S.LATER): {P, M},
    ("CONSUMER.INFO", S.TOPICS): {P, M},
    ("CONSUMER.PAUSE", S.WORK): {M},
    ("CONSUMER.PAUSE", S.LATER): {M},
    ("CONSUMER.MSG.NEXT", S.WORK): {W},
    ("CONSUMER.MSG.NEXT", S.LATER): {W},
}
"""Requests about whole streams of the own queue and namespace, and any consumer; all others are refused."""


def allowed(patterns: tuple[str, ...], subject: str) -> bool:
    return any(covers(pattern, subject) for pattern in patterns)


def streams_of(namespace: str, queue: str) -> dict[StreamKind, str]:
    return {
        kind: name_of(kind, namespace) if kind in OF_NAMESPACE else name_of(kind, namespace, queue)
        for kind in StreamKind
    }


@pytest.mark.parametrize("role", Role)
def test_a_role_asks_of_each_stream_what_the_table_says(role: Role) -> None:
    publish = permissions_of(role, "ns", "mine").publish
    found = {
        (request, kind)
        for kind, name in streams_of("ns", "mine").items()
        for request, subjects in (
            *((each, [f"$JS.API.{each}.{name}"]) for each in ABOUT_STREAMS),
            *((each, [f"$JS.API.{each}.{name}.any"]) for each in ABOUT_CONSUMERS),
        )
        if any(allowed(publish, subject) for subject in subjects)
    }
    assert found == {cell for cell, roles in OWN.items() if role in roles}
    assert [each for each in ABOUT_NONE if allowed(publish, f"$JS.API.{each}")] == ["INFO"]


@pytest.mark.parametrize("role", Role)
def test_a_role_has_no_right_on_a_stream_of_another_queue(role: Role) -> None:
    rights = permissions_of(role, "ns", "mine")
    shared = {name_of(S.TOPICS, "ns")}
    for other in OTHERS:
        for kind, name in streams_of(other.namespace, other.queue).items():
            for request in (*ABOUT_STREAMS, *ABOUT_CONSUMERS):
                for tail in ("", ".theirs", ".galley.x.y.z", ".theirs.galley.task.>"):
                    mine = name in shared or (kind in OF_NAMESPACE and other.namespace == "ns")
                    assert mine or not allowed(rights.publish, f"$JS.API.{request}.{name}{tail}"), (
                        kind,
                        request,
                    )
            assert name in shared or not allowed(rights.publish, f"$JS.ACK.{name}.high.1.1.1.1.0")
        for subject in subjects_in(stream_config.stream_definitions(other, 1)):
            assert not allowed(rights.publish, subject), subject
            assert not allowed(rights.subscribe, subject), subject
    for definition in (
        namespace_streams.topics_definition("other", "x", 1, 1, ()),
        namespace_streams.audit_definition("other", "x", 1),
    ):  # fmt: skip
        for subject in subjects_in([definition]):
            assert not allowed(rights.publish, subject), subject


def subjects_in(definitions: list[dict[str, Any]]) -> list[str]:
    """Return a subject for each pattern a stream has, and where the server repeats what it stores."""
    patterns = [each for definition in definitions for each in definition["subjects"]]
    patterns += [
        each["republish"]["dest"].replace("{{wildcard(1)}}", "a")
        for each in definitions
        if "republish" in each
    ]
    return [each.replace("*", "sdk").replace(">", "sdk.id") for each in patterns]


def test_each_stream_has_a_verb_that_no_other_account_has_by_default() -> None:
    """What is stored by its subject can only be exported if a role may use it."""
    stored = {
        subject.split(".")[1]
        for subject in subjects_in(
            [
                *stream_config.stream_definitions(MINE, 1),
                namespace_streams.topics_definition("ns", "x", 1, 1, ()),
                namespace_streams.audit_definition("ns", "x", 1),
            ]
        )
    }
    services = {each.subject.split(".")[1] for each in EXPORTS if each.flow is Flow.SERVICE}
    assert stored - services == {"topic", "bell", "done", "noted", "live"}


FEATURES: dict[StreamKind, set[str]] = {
    S.WORK: {"allow_direct"},
    S.LATER: {"allow_direct", "allow_msg_schedules", "allow_msg_ttl"},
    S.RECORDS: {"allow_direct", "allow_msg_ttl"},
    S.DEAD: {"allow_direct"},
    S.OBJECTS: {"allow_direct", "allow_msg_ttl"},
    S.NOTES: {"allow_direct"},
    S.COUNTS: {"allow_direct", "allow_msg_counter"},
    S.FLOWS: {"allow_direct", "allow_msg_ttl"},
    S.TOPICS: {"allow_direct", "allow_msg_ttl"},
    S.AUDIT: {"allow_direct"},
}
"""What headers of clients can do in each stream: no batches, no roll-ups, schedules in one only."""


def test_headers_have_an_effect_only_where_they_are_needed() -> None:
    definitions = [
        *stream_config.stream_definitions(MINE, 1),
        namespace_streams.topics_definition("ns", "x", 1, 1, ()),
        namespace_streams.audit_definition("ns", "x", 1),
    ]
    found = {
        each["name"]: {key for key in each if key.startswith("allow_") and each[key]} for each in definitions
    }
    assert found == {name: FEATURES[kind] for kind, name in streams_of("ns", "mine").items()}


def test_gateway_and_backup_ask_of_streams_what_they_need() -> None:
    everything = (*ABOUT_STREAMS, *ABOUT_CONSUMERS)

    def found(publish: tuple[str, ...]) -> set[str]:
        tails = dict.fromkeys(ABOUT_STREAMS, "") | dict.fromkeys(ABOUT_CONSUMERS, ".high")
        whole = {each for each in everything if allowed(publish, f"$JS.API.{each}.GW_ns_mine{tails[each]}")}
        return whole | {each for each in ABOUT_NONE if allowed(publish, f"$JS.API.{each}")}

    assert found(backup_permissions().publish) == {
        "INFO", "STREAM.LIST", "STREAM.INFO", "STREAM.MSG.GET", "CONSUMER.LIST", "DIRECT.GET",
    }  # fmt: skip
    assert found(gateway_permissions().publish) == {
        "INFO", "STREAM.LIST", "STREAM.INFO", "CONSUMER.INFO", "DIRECT.GET", "STREAM.PURGE", "CONSUMER.PAUSE",
    }  # fmt: skip
