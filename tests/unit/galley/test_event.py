"""Events: CloudEvents there and back, and what is refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

import galley
from galley.errors import EventInvalid
from galley.event import DATA_LIMIT, check_topic_name, decode, encode, event_of, from_headers
from galley.testing import EagerClient
from galley.topic import check_mapping, subscribes, subscription_name

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_an_event_comes_back_as_it_was() -> None:
    event = event_of(
        {"n": 1},
        NOW,
        source="shop",
        attributes={"region": "eu", "size": 3, "hot": True},
        key="a",
        subject="s",
    )
    assert decode(encode(event)) == event
    assert b'"specversion":"1.0"' in encode(event)
    assert decode(b'{"specversion":"1.0","id":"a","source":"b","type":"c","x":null}', NOW).time == NOW


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"data": float("nan")}, "data"),
        ({"data": object()}, "data: cannot be written"),
        ({"data": "x" * DATA_LIMIT}, "the limit is"),
        ({"key": "k" * 10_000}, "key: has 10000 characters"),
        ({"event_id": ""}, "id: is ''"),
        ({"source": "a\nb"}, "source: is"),
        ({"attributes": "region"}, "attributes: they are of type str"),
        ({"attributes": {"Region": "eu"}}, "cannot be the name"),
        ({"attributes": {"id": "eu"}}, "cannot be the name"),
        ({"attributes": {"big": 2**40}}, "32 bits|big is"),
        ({"attributes": {"none": None}}, "none is"),
        ({"attributes": {f"a{n}": 1 for n in range(40)}}, "there are 40"),
        ({"hops": 99}, "galleyhops"),
    ],
)
def test_what_can_be_no_event_is_refused(changes: dict[str, Any], problem: str) -> None:
    given: dict[str, Any] = {"data": 1, "source": "shop", **changes}
    with pytest.raises(EventInvalid, match=problem):
        event_of(given.pop("data"), NOW, **given)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b'{"id":"a"}', b'{"specversion":"0.3","id":"a","source":"b","type":"c"}',
        b'{"specversion":"1.0","id":"a","source":"b","type":"c"}',
        b'{"specversion":"1.0","id":"a","source":"b","type":"c","data_base64":"aa"}',
        b'{"specversion":"1.0","id":"a","source":"b","type":"c","x":{"deep":1}}',
    ],
)  # fmt: skip
def test_what_is_no_cloudevent_is_refused(body: bytes) -> None:
    with pytest.raises(EventInvalid):
        decode(body)


def test_names_mappings_and_subscriptions_are_checked() -> None:
    for wrong in ("a.b", "", "A"):
        with pytest.raises(EventInvalid, match="topic"):
            check_topic_name(wrong)
    with pytest.raises(EventInvalid, match="no part of an event"):
        check_mapping({"a": "body.x"})
    with pytest.raises(EventInvalid, match="has 65 fields"):
        check_mapping({f"a{n}": "data" for n in range(65)})
    long: tuple[Any, ...] = ("data" + ".a" * 9, "data." + "a" * 124, 7)
    for path in ("event", "data", "data.", "data.a b", "time", "key.a", *long):
        with pytest.raises(EventInvalid, match="no part of an event that can be a key"):
            subscribes(galley.Subscribe("a", key=path))
    with pytest.raises(EventInvalid, match="names a topic twice"):
        subscribes(["a", "a"])
    with pytest.raises(EventInvalid, match="without queue"):
        galley.task(subscribe="a")
    assert len(subscription_name("q" * 63, "h" * 63)) <= 32


@galley.task(queue="eager-topics", subscribe=galley.Subscribe("eager-orders", filter='key == "a"'))
def note_order(n: int) -> int:
    return n + 1


def test_a_client_for_tests_runs_the_handlers_that_subscribe() -> None:
    client = EagerClient()
    client.publish("eager-orders", {"n": 1}, key="a", event_id="one")
    client.publish("eager-orders", {"n": 1}, key="a", event_id="one")
    client.publish("eager-orders", {"n": 5}, key="b")
    (status,) = client.tasks("eager-topics")
    assert client.handle("eager-topics", status.address.id).result() == 2


HEADERS = {"CE-ID": "7", "ce-source": "shop%20a", "ce-type": "order.paid", "ce-specversion": "1.0"}


def test_an_event_in_binary_mode_has_its_attributes_in_headers() -> None:
    more = {"content-type": "application/json; charset=utf-8", "ce-region": "eu", "ce-galleyhops": "3"}
    event = from_headers(HEADERS | more, b'{"order": 7}', NOW)
    assert (event.id, event.source, event.type, event.hops) == ("7", "shop a", "order.paid", 3)
    assert event.attributes == {"region": "eu"}
    assert bytes(event.data) == b'{"order": 7}'
    assert bytes(from_headers(HEADERS, b"", NOW).data) == b"null"
    assert bytes(from_headers(HEADERS | {"content-type": "text/plain"}, b"paid", NOW).data) == b'"paid"'


def test_an_event_in_structured_mode_is_all_in_the_body() -> None:
    event = from_headers(HEADERS, b"1", NOW)
    structured = {"content-type": "application/cloudevents+json"}
    assert from_headers(structured, encode(event)) == event


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ({}, b"{}", "ce-id is missing"),
        (HEADERS, b"no json", "is not JSON"),
        (HEADERS | {"content-type": "image/png"}, b"", "image/png"),
        (HEADERS | {"content-type": "application/cloudevents-batch+json"}, b"[]", "a batch"),
        (HEADERS | {"ce-specversion": "0.3"}, b"1", "0.3"),
        (HEADERS | {"ce-galleyhops": "x"}, b"1", "no CloudEvent"),
        (HEADERS, b'1,"source":"other"', "is not JSON"),
    ],
)
def test_what_is_no_event_in_headers_is_refused(headers: dict[str, str], body: bytes, told: str) -> None:
    with pytest.raises(EventInvalid, match=told):
        from_headers(headers, body, NOW)


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_an_event_carries_its_trace_as_the_extension_of_cloudevents_says() -> None:
    event = event_of(1, NOW, source="shop", traceparent=TRACE)
    assert decode(encode(event)) == event
    assert f'"traceparent":"{TRACE}"'.encode() in encode(event)
    assert from_headers(HEADERS | {"ce-traceparent": TRACE}, b"1", NOW).traceparent == TRACE
    # A header of the message is the trace of its way here: it counts if the event names none of its own.
    of_message = {"traceparent": TRACE.replace("4bf", "aaa")}
    assert from_headers(HEADERS | of_message, b"1", NOW).traceparent == of_message["traceparent"]
    assert from_headers(HEADERS | of_message | {"ce-traceparent": TRACE}, b"1", NOW).traceparent == TRACE
    with pytest.raises(EventInvalid, match="cannot be the name"):
        event_of(1, NOW, source="shop", attributes={"traceparent": TRACE})


@pytest.mark.parametrize(
    "given", ["", "x" * 300, TRACE.upper(), f"{TRACE},{TRACE}", "00-" + "0" * 32 + TRACE[35:]]
)
def test_a_trace_that_cannot_be_read_is_left_out(given: str) -> None:
    assert from_headers(HEADERS | {"ce-traceparent": given}, b"1", NOW).traceparent == ""
