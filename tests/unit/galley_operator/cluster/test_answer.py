import json
from typing import Any

import pytest
from msgspec import Struct

from galley_operator.cluster.answer import Change, error_of, events_in, page_in, retry_after_of
from galley_operator.cluster.errors import (
    ApiFailing,
    ApiRefused,
    ClusterError,
    CredentialsRefused,
    KindNotServed,
    NotAdmitted,
    ObjectConflict,
    ObjectInvalid,
    ObjectNotFound,
    RightsMissing,
    TooManyRequests,
    WatchExpired,
)


class Metadata(Struct):
    name: str


class Thing(Struct):
    metadata: Metadata


def a_status(code: int, reason: str = "", message: str = "no", **details: object) -> bytes:
    return json.dumps(
        {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    ).encode()


def error(code: int, body: bytes = b"", **headers: str) -> ClusterError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_of(code, named, body or a_status(code), "get", "tasks images/one")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, ObjectInvalid),
        (401, CredentialsRefused),
        (403, RightsMissing),
        (405, ApiRefused),
        (409, ObjectConflict),
        (410, WatchExpired),
        (413, ObjectInvalid),
        (422, ObjectInvalid),
        (429, TooManyRequests),
        (500, ApiFailing),
        (503, ApiFailing),
        (504, ApiFailing),
    ],
)
def test_a_refusal_becomes_the_error_of_its_code(code: int, kind: type[ClusterError]) -> None:
    assert type(error(code)) is kind


def test_an_object_that_is_too_large_for_etcd_is_not_written_again_as_it_is() -> None:
    answer = a_status(500, "InternalError", "etcdserver: request is too large")
    assert type(error(500, answer)) is ObjectInvalid


def test_a_missing_object_is_told_from_a_missing_kind() -> None:
    assert type(error(404, a_status(404, "NotFound", name="one", kind="tasks"))) is ObjectNotFound
    assert type(error(404, b"404 page not found\n")) is KindNotServed
    assert type(error(404, a_status(404, "NotFound", "the server could not find it"))) is KindNotServed


def test_what_the_server_said_is_quoted_with_what_it_was_about() -> None:
    assert (
        str(error(409, a_status(409, message="changed")))
        == "cannot get tasks images/one: changed (status 409)"
    )
    assert "gateway is down" in str(error(502, b"<html>gateway is down</html>"))


def test_a_missing_right_is_named_with_who_lacks_it() -> None:
    message = (
        'tasks.galley.dev "one" is forbidden: User "system:serviceaccount:galley-system:operator" '
        'cannot patch resource "tasks/status" in API group "galley.dev" in the namespace "images"'
    )
    assert error(403, a_status(403, "Forbidden", message)).hint == (
        "give the ServiceAccount galley-system/operator the right to 'patch' on 'tasks/status' of galley.dev "
        'in the namespace "images"'
    )


@pytest.mark.parametrize(
    ("problem", "hint"),
    [
        ("exceeded quota: small, requested: count/deployments.apps=1", "which quota"),
        ("unable to create new content in namespace images because it is being terminated", "nothing: "),
    ],
)
def test_what_a_rule_of_the_cluster_refuses_is_no_missing_right(problem: str, hint: str) -> None:
    refusal = error(403, a_status(403, "Forbidden", f'deployments.apps "galley-a" is forbidden: {problem}'))
    assert type(refusal) is NotAdmitted
    assert hint in refusal.hint


def test_the_time_the_server_names_is_waited_and_not_much_longer() -> None:
    refusal = error(429, Retry_After="4")
    assert isinstance(refusal, TooManyRequests)
    assert refusal.retry_after == 4
    assert 4 <= retry_after_of(refusal) <= 6
    assert isinstance(error(503, Retry_After="1"), TooManyRequests)


@pytest.mark.parametrize("text", ["", "soon", "-3", "nan"])
def test_a_time_that_makes_no_sense_is_a_short_one(text: str) -> None:
    refusal = error(429, Retry_After=text)
    assert isinstance(refusal, TooManyRequests)
    assert 0.1 <= refusal.retry_after <= 1.0


def a_line(change: str, thing: Any) -> bytes:
    return json.dumps({"type": change, "object": thing}).encode()


def test_of_an_event_only_what_was_asked_for_is_read() -> None:
    thing = {"metadata": {"name": "one", "managedFields": [{"manager": "kubectl"}]}, "spec": {"a": 1}}
    (event,) = events_in([a_line("ADDED", thing), b""], Thing, "things")
    assert event.change is Change.ADDED
    assert event.object == Thing(Metadata("one"))


def test_a_bookmark_tells_how_far_the_watch_is_and_whether_all_was_listed() -> None:
    done = {"metadata": {"resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"}}}
    later = {"metadata": {"resourceVersion": "9"}}
    first, second = events_in([a_line("BOOKMARK", done), a_line("BOOKMARK", later)], Thing, "things")
    assert (first.version, first.listed) == ("7", True)
    assert (second.version, second.listed) == ("9", False)


def test_a_watch_that_fell_behind_says_so_between_its_events() -> None:
    lines = [a_line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})]
    with pytest.raises(WatchExpired, match="too old"):
        list(events_in(lines, Thing, "things"))


def test_a_page_has_its_things_its_version_and_where_the_next_begins() -> None:
    body = {"metadata": {"resourceVersion": "5", "continue": "abc"}, "items": [{"metadata": {"name": "one"}}]}
    page = page_in(json.dumps(body).encode(), Thing)
    assert page.items == [Thing(Metadata("one"))]
    assert (page.metadata.resource_version, page.metadata.more) == ("5", "abc")


class Counted(Struct):
    """An object with one field."""

    count: int


def test_an_object_that_is_not_as_defined_is_left_out_and_the_others_are_read() -> None:
    items = b'{"items": [{"count": 1}, {"count": "two"}, {"count": 3}], "metadata": {"continue": "x"}}'
    page = page_in(items, Counted)
    assert ([each.count for each in page.items], page.metadata.more) == ([1, 3], "x")
    lines = [b'{"type": "ADDED", "object": {"count": %s}}' % count for count in (b"1", b'"two"', b"3")]
    read = [event.object for event in events_in(lines, Counted, "watch")]
    assert [each.count for each in read if each is not None] == [1, 3]
