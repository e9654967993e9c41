"""Decisions are written in one form, and none is missing from the list."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / "docs" / "adr"
DECISIONS = sorted(FOLDER.glob("0*.md"))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_says_what_was_measured_what_it_costs_and_when_to_look_again(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.match(rf"# {int(path.name[:4])}\. \S", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Decision", "Measured", "Costs", "Revisit when"]


def test_every_decision_is_in_the_list() -> None:
    listed = re.findall(r"^\| \[\d+\]\((.+?)\)", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    assert listed == [path.name for path in DECISIONS]
