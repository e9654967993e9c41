"""Labels and selectors, as Kubernetes has them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from galley import envelope, record
from galley.calls import Call, call
from galley.envelope import Envelope
from galley.errors import EnvelopeInvalid, LabelInvalid, SelectorInvalid, SubmissionInvalid
from galley.labels import check_labels, selector
from galley.record import Record, State
from galley.when import When
from tests.support.builders import an_envelope

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"team": "billing"},
        {"example.com/team": ""},
        {"a": "b" * 63, "A_b.c-d": "0"},
        {"d" * 253 + "/" + "k" * 63: "v"},
        {f"k{n}": "v" for n in range(64)},
    ],
)
def test_what_kubernetes_accepts_is_accepted(labels: dict[str, str]) -> None:
    assert check_labels(labels) == labels


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"": "v"}, "the key is not allowed"),
        ({"-a": "v"}, "the key is not allowed"),
        ({"Example.com/team": "v"}, "the key is not allowed"),
        ({"a/b/c": "v"}, "the key is not allowed"),
        ({"k" * 64: "v"}, "the key is not allowed"),
        ({"d" * 254 + "/k": "v"}, "the key is not allowed"),
        ({"a\n": "v"}, "the key is not allowed"),
        ({1: "v"}, "the key is not allowed"),
        ({"team": "a b"}, "label team: its value 'a b' is not allowed"),
        ({"team": "v" * 64}, "its value"),
        ({"team": "v\n"}, "its value"),
        ({"team": 1}, "its value 1 is not allowed"),
        ({"team": None}, "its value None"),
        ({f"k{n}": "v" for n in range(65)}, "65 labels, the limit is 64"),
        ("team=a", "mapping of text to text"),
        (["team"], "mapping of text to text"),
    ],
)
def test_what_kubernetes_refuses_is_refused_at_once(labels: object, words: str) -> None:
    with pytest.raises(LabelInvalid, match=words) as refused:
        When(labels=labels)  # type: ignore[arg-type]
    assert refused.value.hint


MINE = {"team": "billing", "tier": "gold", "example.com/a": ""}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        (" ", True),
        ("team=billing", True),
        ("team==billing", True),
        ("team = billing , tier = gold", True),
        ("team=billing,tier=low", False),
        ("team=other", False),
        ("team!=other", True),
        ("team!=billing", False),
        ("missing!=x", True),
        ("team", True),
        ("missing", False),
        ("!missing", True),
        ("! team", False),
        ("team in (billing, other)", True),
        ("team in (other)", False),
        ("team notin (other, third),tier", True),
        ("team notin (billing)", False),
        ("missing notin (x)", True),
        ("missing in (x)", False),
        ("example.com/a=", True),
        ("example.com/a in ()", True),
    ],
)
def test_a_selector_means_what_it_means_to_kubectl(text: str, fits: bool) -> None:
    assert selector(text)(MINE) is fits


@pytest.mark.parametrize(
    "text",
    ["=", ",", "team=billing,", ",team", "a b", "team=a b", "team in billing", "team in (a", "team in (a b)",
     "a=b=c",
     "team=(a)", "-a=b", "!", "team=" + "v" * 64, "team>1", "team in (a),,b", "in (a)", "a\n=b\n,c d"],
)  # fmt: skip
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(SelectorInvalid) as refused:
        selector(text)
    assert "kubectl -l" in refused.value.hint


def test_labels_in_the_place_of_a_selector_are_refused_with_how_to_write_it() -> None:
    given: Any = {"team": "billing"}
    with pytest.raises(SelectorInvalid, match="it is of type dict, and no text") as refused:
        selector(given)
    assert "kubectl -l" in refused.value.hint


def test_labels_of_call_rules_and_handler_add_up_by_precedence() -> None:
    rules = When(labels={"a": "options", "b": "options"}).over(When(labels={"b": "when", "c": "when"}))
    assert rules.labels == {"a": "options", "b": "options", "c": "when"}
    one: Call[object] = call("images", "resize").options(labels={"a": "1"}).options(labels={"b": "2"})
    assert one.rules is not None
    assert one.rules.labels == {"a": "1", "b": "2"}


def test_labels_that_are_too_many_together_are_refused() -> None:
    many = {f"k{n}": "v" for n in range(40)}
    with pytest.raises(LabelInvalid, match="80 labels"):
        When(labels=many).over(When(labels={f"l{n}": "v" for n in range(40)}))


def test_other_rules_are_still_checked_when_labels_are_merged() -> None:
    with pytest.raises(SubmissionInvalid):
        When(labels={"a": "b"}, not_before=NOON).over(When(deadline=NOON))


def test_a_task_without_labels_has_not_one_byte_for_them() -> None:
    plain, labelled = an_envelope(), an_envelope(labels={"team": "a"})
    assert b"labels" not in envelope.encode(plain)
    assert b'"labels":{"team":"a"}' in envelope.encode(labelled)
    assert envelope.decode(envelope.encode(labelled)).labels == {"team": "a"}
    done = Record(State.RUN, 1)
    assert b"labels" not in record.encode(done)


def test_labels_from_the_wire_have_bounds() -> None:
    one = Envelope("resize", NOON, labels={f"k{n}": "v" for n in range(65)})
    with pytest.raises(EnvelopeInvalid):
        envelope.decode(envelope.encode(one))
    long = Envelope("resize", NOON, labels={"k": "v" * 64})
    with pytest.raises(EnvelopeInvalid):
        envelope.decode(envelope.encode(long))
