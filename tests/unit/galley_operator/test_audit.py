"""Who changed an object, as far as that can be known, and the lines that say so."""

import logging
from typing import Any

import pytest

from galley.audit import Action
from galley_operator.audit import About, Author, author_of, record


def entry(manager: str, time: str, subresource: str = "") -> dict[str, str]:
    return {"manager": manager, "time": time} | ({"subresource": subresource} if subresource else {})


EVE = {"galley.dev/changed-by": "eve"}
APPLIED = entry("kubectl-client-side-apply", "2026-01-01T10:00:00Z")
SCALED = entry("kubectl", "2026-01-01T11:00:00Z", "scale")
LATER = "2026-01-01T12:00:00Z"


@pytest.mark.parametrize(
    ("metadata", "recorded", "author"),
    [
        ({}, True, Author()),
        ({"annotations": EVE, "managedFields": [APPLIED]}, True, Author("eve", APPLIED["manager"])),
        # Anyone could have written it.
        ({"annotations": EVE, "managedFields": [APPLIED]}, False, Author("", APPLIED["manager"])),
        # The annotation is of the change before.
        ({"annotations": EVE, "managedFields": [APPLIED, SCALED]}, True, Author("", "kubectl", True)),
        (
            {"managedFields": [APPLIED, entry("galley-operator", LATER), entry("x", LATER, "status")]},
            True,
            Author("", APPLIED["manager"]),
        ),
    ],
)
def test_the_author_is_who_changed_the_spec_last(
    metadata: dict[str, Any], recorded: bool, author: Author
) -> None:
    assert author_of(metadata, users_recorded=recorded) == author


def test_a_line_is_written_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("galley_operator").setLevel(logging.ERROR)
    try:
        record(Action.SUBMIT, "shop", "images", About(task="t1", uid="u", user="eve"))
    finally:
        logging.getLogger("galley_operator").setLevel(logging.NOTSET)
    [line] = caplog.records
    assert (line.name, line.getMessage()) == ("galley_operator.audit", "audit")
    told = {key: line.__dict__[key] for key in ("action", "namespace", "queue", "task", "uid", "user")}
    assert told == {
        "action": "submit", "namespace": "shop", "queue": "images", "task": "t1", "uid": "u", "user": "eve"
    }  # fmt: skip
