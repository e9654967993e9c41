"""Every reason of a condition stands in docs/operations/operator.md."""

import re
from pathlib import Path

import pytest

from galley.errors import HandlersMissing

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = (ROOT / "docs" / "operations" / "operator.md").read_text("utf-8")
SOURCES = (
    "fleet/trouble.py", "fleet/deployment.py", "fleet/deployment_fleet.py",
    "queues/conditions.py", "queues/scaling_condition.py", "queues/scaled_queue.py",
)  # fmt: skip


def reasons() -> set[str]:
    found: set[str] = set()
    for name in SOURCES:
        text = (ROOT / "operator" / "galley_operator" / name).read_text("utf-8")
        found.update(re.findall(r'(?:Trouble|Interference)\(\s*"([A-Z]\w+)"', text))
        found.update(re.findall(r'"(QuotaExceeded|PodsRefused)"', text))
        found.update(re.findall(r'Truth\.\w+, "([A-Z]\w+)"', text))
        found.update(error.reason for error in (HandlersMissing,) if f"{error.__name__}(" in text)
    return found


def test_reasons_are_found() -> None:
    assert {"ImagePullFailed", "WorkerNotReady", "Serving", "QuotaExceeded"} <= reasons()


@pytest.mark.parametrize("reason", sorted(reasons()))
def test_a_reason_is_explained(reason: str) -> None:
    assert f"| `{reason}` |" in PAGE


def test_nothing_is_explained_that_is_not_said() -> None:
    rows = re.findall(r"^\| (?:`\w+` )?\| `([A-Z]\w+)` \|", PAGE, re.MULTILINE)
    assert set(rows) == reasons()
