"""What holds for every error class of every package."""

import inspect
import pickle
import re
import traceback
from typing import Any

import pytest

from docs.generate.errors import error_classes, sample
from galley.errors import GalleyError

CLASSES = sorted(error_classes(), key=lambda kind: (kind.__module__, kind.__name__))
"""In an order that no import changes: each process of pytest-xdist needs the same."""


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_with_message_and_hint(kind: type[GalleyError]) -> None:
    before = sample(kind)
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is kind
    assert str(after) == str(before)
    assert after.hint == before.hint
    assert after.reason == before.reason


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_has_a_reason_in_camel_case_and_a_sentence(kind: type[GalleyError]) -> None:
    assert re.fullmatch(r"([A-Z][a-z]*)+", kind.reason)
    assert kind.__doc__
    assert kind.__doc__.strip().splitlines()[0].endswith((".", "!"))


@pytest.mark.parametrize(
    "kind", [kind for kind in CLASSES if not kind.__subclasses__()], ids=lambda kind: kind.__name__
)
def test_an_error_that_is_raised_says_what_to_do(kind: type[GalleyError]) -> None:
    error = sample(kind)
    assert str(error)
    assert error.hint or kind.__name__ in NOTHING_TO_DO
    assert not error.hint or f"hint: {error.hint}" in traceback.format_exception(error)[-1]


NOTHING_TO_DO = {"TaskCancelled"}


def test_reasons_are_told_apart() -> None:
    reasons = [kind.reason for kind in CLASSES if kind.__name__ not in SAME_REASON]
    assert sorted(reasons) == sorted(set(reasons))


SAME_REASON = {"NoSuchTask"}
"""`galley show` asks several queues; what it finds missing is a TaskNotFound all the same."""


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_constructor_names_and_types_what_the_error_is_about(kind: type[GalleyError]) -> None:
    parameters = inspect.signature(kind).parameters.values()
    assert all(each.annotation not in {inspect.Parameter.empty, Any, object} for each in parameters)
    assert all(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters)
    error = sample(kind)
    stored = {*vars(error), "message", "hint"}
    assert {each.name for each in parameters} <= stored
